//! The envelope: a version byte, then postcard. Master and manager, which can be of two versions for
//! a moment, write JSON instead: what one does not know, the other can leave out.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a message in JSON begins with, in place of the version.
const TEXT: u8 = b'\n';

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
    /// The text is not a message.
    #[error("unreadable message: {0}")]
    Unknown(#[from] serde_json::Error),
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

/// Encodes a message for one packet, readable for versions before and after this one.
///
/// # Errors
/// If the value cannot be written as JSON.
pub fn encode_text<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![TEXT];
    serde_json::to_writer(&mut bytes, message)?;
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
        [TEXT, rest @ ..] => Ok(serde_json::from_slice(rest)?),
        [found, ..] => Err(WireError::Version { found: *found }),
    }
}
