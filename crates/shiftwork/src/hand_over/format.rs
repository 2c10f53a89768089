//! What stands in a packet: the format that two releases have to share.
//!
//! Format 1: the byte 1, then in postcard a list of passports, each `{protocol: u8 (0 HTTP/1,
//! 1 WebSocket, 2 raw TCP), listener: string, handler: optional string, unread: bytes, session:
//! optional bytes, idle_for_ms: u64}`. The byte 0 in the place of the format means that the packet's
//! second descriptor is a memfd with all of this.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::conn::Protocol;

/// The oldest format that can be read and written here.
pub const OLDEST: u8 = 1;
/// The newest format that can be read and written here.
pub const NEWEST: u8 = 1;

/// In the place of the format: the passports are in a memfd.
pub(super) const IN_MEMFD: u8 = 0;

/// What travels with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passport {
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The name of the listener that accepted it.
    pub listener: String,
    /// For a connection that was upgraded, the name of the handler that serves it.
    pub handler: Option<String>,
    /// Bytes that were read from it and not used.
    pub unread: Bytes,
    /// What its handler keeps for it, in the handler's own form.
    pub session: Option<Bytes>,
    /// How long it has been quiet; travels in milliseconds.
    pub idle_for: Duration,
}

impl Passport {
    /// Never less than what it takes in a packet.
    pub(super) fn size(&self) -> usize {
        let handler = self.handler.as_ref().map_or(0, String::len);
        let session = self.session.as_ref().map_or(0, Bytes::len);
        64 + self.listener.len() + handler + self.unread.len() + session
    }
}

/// Why passports cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The other side speaks a format that is unknown here.
    #[error("hand-over format {0} is not known here ({OLDEST} to {NEWEST} are)")]
    UnknownFormat(u8),
    /// A number that stands for no protocol.
    #[error("protocol {0} is not known here")]
    UnknownProtocol(u8),
    /// The bytes are not what the format says.
    #[error("a packet that cannot be read: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct Entry1<'a> {
    protocol: u8,
    listener: &'a str,
    handler: Option<&'a str>,
    #[serde(borrow)]
    unread: Raw<'a>,
    #[serde(borrow)]
    session: Option<Raw<'a>>,
    idle_for_ms: u64,
}

/// Writes passports in `format`.
///
/// # Errors
/// When the format is not known here.
pub fn encode<'a>(
    format: u8,
    passports: impl IntoIterator<Item = &'a Passport>,
) -> Result<Vec<u8>, FormatError> {
    if !(OLDEST..=NEWEST).contains(&format) {
        return Err(FormatError::UnknownFormat(format));
    }
    let entries: Vec<Entry1<'_>> = passports.into_iter().map(entry).collect();
    postcard::to_extend(&entries, vec![format]).map_err(malformed)
}

fn entry(passport: &Passport) -> Entry1<'_> {
    Entry1 {
        protocol: passport.protocol as u8,
        listener: &passport.listener,
        handler: passport.handler.as_deref(),
        unread: Raw(&passport.unread),
        session: passport.session.as_deref().map(Raw),
        idle_for_ms: u64::try_from(passport.idle_for.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Reads what [`encode`] has written, here or in another release.
///
/// # Errors
/// When the bytes are of an unknown format or not what they should be.
pub fn decode(bytes: &[u8]) -> Result<Vec<Passport>, FormatError> {
    let (&format, rest) =
        bytes.split_first().ok_or_else(|| FormatError::Malformed("it is empty".to_owned()))?;
    if !(OLDEST..=NEWEST).contains(&format) {
        return Err(FormatError::UnknownFormat(format));
    }
    let (entries, rest) = postcard::take_from_bytes::<Vec<Entry1<'_>>>(rest).map_err(malformed)?;
    if !rest.is_empty() {
        return Err(FormatError::Malformed(format!("{} bytes too many", rest.len())));
    }
    entries.into_iter().map(passport).collect()
}

fn passport(entry: Entry1<'_>) -> Result<Passport, FormatError> {
    let protocol = match entry.protocol {
        0 => Protocol::Http1,
        1 => Protocol::WebSocket,
        2 => Protocol::Tcp,
        other => return Err(FormatError::UnknownProtocol(other)),
    };
    Ok(Passport {
        protocol,
        listener: entry.listener.to_owned(),
        handler: entry.handler.map(str::to_owned),
        unread: Bytes::copy_from_slice(entry.unread.0),
        session: entry.session.map(|session| Bytes::copy_from_slice(session.0)),
        idle_for: Duration::from_millis(entry.idle_for_ms),
    })
}

fn malformed(error: postcard::Error) -> FormatError {
    FormatError::Malformed(error.to_string())
}

/// Bytes that are written and read in one piece.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Raw<'de>, E> {
                Ok(Raw(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
