//! Tasks and answers as bytes: one packet each, a fixed head read without copying, then postcard.
//!
//! | task | bytes | | answer | bytes |
//! |---|---|---|---|---|
//! | version | 1 | | version | 1 |
//! | flags (bit 0: idempotent) | 1 | | status | 1 |
//! | length of the name | 2 | | task id | 8 |
//! | number of the reply socket | 4 | | payload | rest |
//! | task id | 8 | | | |
//! | deadline, CLOCK_MONOTONIC ms | 8 | | | |
//! | name, UTF-8 | n | | | |
//! | payload | rest | | | |
//!
//! Numbers are little-endian.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shiftwork_supervisor::protocol::template::Formats;

/// The version of the format that is written.
pub const VERSION: u8 = 1;

/// The formats that this release can read and write.
pub const FORMATS: Formats = Formats { oldest: 1, newest: VERSION };

/// Bytes before a task's name.
pub const TASK_HEAD: usize = 24;

/// Bytes before an answer's payload.
pub const REPLY_HEAD: usize = 10;

/// Bytes that a packet may have beyond the largest payload: the head and a name.
pub const MAX_HEAD: usize = TASK_HEAD + u16::MAX as usize;

/// Flag: the task may be run twice.
pub const IDEMPOTENT: u8 = 1;

/// Longest error message in an answer, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// Why a packet was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than its head says.
    #[error("a packet of {0} bytes is cut short")]
    Short(usize),
    /// Written by another version of the library.
    #[error("task format {0}, this side reads {oldest} to {newest}", oldest = FORMATS.oldest, newest = FORMATS.newest)]
    Version(u8),
    /// A status that this version does not have.
    #[error("an answer with the unknown status {0}")]
    Status(u8),
    /// The name is not UTF-8.
    #[error("a task whose name is not text")]
    Name,
}

/// A task packet, borrowed from the buffer it was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskPacket<'a> {
    /// [`IDEMPOTENT`] or 0; unknown bits are ignored.
    pub flags: u8,
    /// Where the answer goes.
    pub reply_index: u32,
    /// As the sender numbered it.
    pub id: u64,
    /// CLOCK_MONOTONIC in ms from which nobody waits for the answer.
    pub deadline_ms: u64,
    /// Finds the handler.
    pub name: &'a str,
    /// The task itself.
    pub payload: &'a [u8],
}

impl<'a> TaskPacket<'a> {
    /// Reads the head; does not look into the payload.
    ///
    /// # Errors
    /// If the packet is short, of another version, or its name is not text.
    pub fn decode(packet: &'a [u8]) -> Result<Self, WireError> {
        let short = WireError::Short(packet.len());
        let (head, rest) = packet.split_first_chunk::<TASK_HEAD>().ok_or_else(|| {
            // A version byte alone tells more than "short" does.
            match packet.first() {
                Some(&version) if version != VERSION => WireError::Version(version),
                _ => short.clone(),
            }
        })?;
        let [version, flags, n0, n1, r0, r1, r2, r3, tail @ ..] = *head;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let [i0, i1, i2, i3, i4, i5, i6, i7, deadline @ ..] = tail;
        let length = usize::from(u16::from_le_bytes([n0, n1]));
        let (name, payload) = rest.split_at_checked(length).ok_or(short)?;
        Ok(Self {
            flags,
            reply_index: u32::from_le_bytes([r0, r1, r2, r3]),
            id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            deadline_ms: u64::from_le_bytes(deadline),
            name: std::str::from_utf8(name).map_err(|_| WireError::Name)?,
            payload,
        })
    }

    /// Replaces what `buffer` holds by head and name; the payload is appended next.
    ///
    /// A name over 65,535 bytes is cut, and then found by no handler.
    pub fn begin(buffer: &mut Vec<u8>, flags: u8, reply_index: u32, deadline_ms: u64, name: &str) {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        buffer.clear();
        buffer.extend_from_slice(&[VERSION, flags]);
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&reply_index.to_le_bytes());
        buffer.extend_from_slice(&[0; 8]); // the id: see set_id
        buffer.extend_from_slice(&deadline_ms.to_le_bytes());
        buffer.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
    }

    /// Writes the task id into a packet that was begun.
    pub fn set_id(packet: &mut [u8], id: u64) {
        if let Some(place) = packet.get_mut(8..16) {
            place.copy_from_slice(&id.to_le_bytes());
        }
    }
}

/// How a task ended, as the answer's second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The payload is the output.
    Done = 0,
    /// No handler of this name.
    Unknown = 1,
    /// The payload says why the task was not decodable.
    Unreadable = 2,
    /// The payload says why the output was not encodable.
    Unencodable = 3,
    /// The payload is size and limit of the output, two u64.
    OutputTooLarge = 4,
    /// The payload is the handler's error.
    Failed = 5,
    /// The payload is the panic's message.
    Panicked = 6,
    /// The task worker's drain deadline passed.
    Cut = 7,
    /// The deadline had passed before a task worker took it: it was not run.
    Expired = 8,
}

impl Status {
    fn decode(byte: u8) -> Result<Self, WireError> {
        const ALL: [Status; 9] = [
            Status::Done,
            Status::Unknown,
            Status::Unreadable,
            Status::Unencodable,
            Status::OutputTooLarge,
            Status::Failed,
            Status::Panicked,
            Status::Cut,
            Status::Expired,
        ];
        ALL.get(usize::from(byte)).copied().ok_or(WireError::Status(byte))
    }
}

/// An answer packet, borrowed from the buffer it was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyPacket<'a> {
    /// How it ended.
    pub status: Status,
    /// Whose answer this is.
    pub id: u64,
    /// By status.
    pub payload: &'a [u8],
}

impl<'a> ReplyPacket<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// If the packet is short, of another version, or its status is unknown.
    pub fn decode(packet: &'a [u8]) -> Result<Self, WireError> {
        let Some((head, payload)) = packet.split_first_chunk::<REPLY_HEAD>() else {
            return Err(match packet.first() {
                Some(&version) if version != VERSION => WireError::Version(version),
                _ => WireError::Short(packet.len()),
            });
        };
        let [version, status, id @ ..] = *head;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self { status: Status::decode(status)?, id: u64::from_le_bytes(id), payload })
    }

    /// Replaces what `buffer` holds by the head; the payload is appended next, and the status
    /// settled by [`replace`](Self::replace) if it changes.
    pub fn begin(buffer: &mut Vec<u8>, status: Status, id: u64) {
        buffer.clear();
        buffer.extend_from_slice(&[VERSION, status as u8]);
        buffer.extend_from_slice(&id.to_le_bytes());
    }

    /// The status of a packet that was begun with [`begin`](Self::begin).
    #[must_use]
    pub fn status(packet: &[u8]) -> Option<Status> {
        packet.get(1).and_then(|byte| Status::decode(*byte).ok())
    }

    /// Replaces the status, and the payload by `payload`.
    pub fn replace(buffer: &mut Vec<u8>, status: Status, payload: &[u8]) {
        buffer.truncate(REPLY_HEAD);
        if let Some(place) = buffer.get_mut(1) {
            *place = status as u8;
        }
        buffer.extend_from_slice(payload);
    }
}

/// The payload of [`Status::OutputTooLarge`].
#[must_use]
pub fn sizes(size: usize, limit: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(size as u64).to_le_bytes());
    bytes[8..].copy_from_slice(&(limit as u64).to_le_bytes());
    bytes
}

/// Reads what [`sizes`] wrote; zeros if it is something else.
#[must_use]
pub fn read_sizes(payload: &[u8]) -> (usize, usize) {
    let number = |at: usize| {
        payload
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map_or(0, |bytes| usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX))
    };
    (number(0), number(8))
}

/// The longest prefix of `text` within [`MAX_MESSAGE`] bytes.
#[must_use]
pub fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_MESSAGE)]
}

/// Appends to a buffer that is used again and again.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends `value` to `buffer`.
///
/// # Errors
/// If the value's own `Serialize` refuses, or it holds a sequence of unknown length.
pub fn append<T: Serialize>(buffer: &mut Vec<u8>, value: &T) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(buffer))
}

/// Decodes a whole payload; bytes that are left over are an error too, since they mean that the
/// two sides have different types in mind.
///
/// # Errors
/// Why not, in words.
pub fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} of {} bytes left over", rest.len(), payload.len())),
        Err(error) => Err(error.to_string()),
    }
}
