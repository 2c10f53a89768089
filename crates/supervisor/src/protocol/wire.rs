//! How messages are written: JSON, one message a packet.
//!
//! Two processes that speak can be linked with two versions of this library: a new release under an
//! old manager, or the reverse after an upgrade. So a reader leaves out what it does not know, a field
//! that comes later has a default, and a message that cannot be read is dropped with a word in the
//! log. Nothing that is said for each request or task goes this way.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest packet that is ever sent or accepted, in bytes.
pub const MAX_PACKET: usize = 256 * 1024;

/// Why a packet was not understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The packet has no bytes: a peer never sends that.
    #[error("an empty message")]
    Empty,
    /// The bytes are not a message that this side knows.
    #[error("unreadable message: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// Encodes a message for one packet.
///
/// # Errors
/// If the value cannot be written as JSON, such as a map whose keys are no strings.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    Ok(serde_json::to_vec(message)?)
}

/// Decodes one packet.
///
/// # Errors
/// If the packet is empty, or not a `T`.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, WireError> {
    if packet.is_empty() {
        return Err(WireError::Empty);
    }
    Ok(serde_json::from_slice(packet)?)
}
