//! The envelope: a version byte, then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of the messages in [`template`](super::template) and [`worker`](super::worker).
pub const VERSION: u8 = 1;

/// Largest packet that is ever sent or accepted, in bytes.
pub const MAX_PACKET: usize = 256 * 1024;

/// Why a packet was not understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The packet has no bytes: a peer never sends that.
    #[error("an empty message")]
    Empty,
    /// Written by another version of the library.
    #[error("message format {found}, this side speaks {VERSION}")]
    Version {
        /// The version byte that was found.
        found: u8,
    },
    /// The bytes are not a message.
    #[error("unreadable message: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Encodes a message for one packet.
///
/// # Errors
/// If the value cannot be encoded, which postcard reports for maps of unknown length only.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(message)?);
    Ok(bytes)
}

/// Decodes one packet.
///
/// # Errors
/// If the packet is empty, of another version, or not a `T`.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, WireError> {
    match packet {
        [] => Err(WireError::Empty),
        [VERSION, rest @ ..] => Ok(postcard::from_bytes(rest)?),
        [found, ..] => Err(WireError::Version { found: *found }),
    }
}
