//! Where one message of a byte stream ends and the next begins.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use crate::session::Violation;

/// How a raw stream is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// A message is a line: what stands before each LF. One CR before the LF is taken off as well.
    /// Any bytes may stand in a line; nothing is checked for UTF-8. A line of more than
    /// `message_size` bytes ends the connection, and what stands after the last LF when the client
    /// ends its stream is never given to the handler: it may be half of something.
    Lines,
    /// A message stands behind its length (Swoole's `open_length_check`). A longer one than
    /// `message_size` ends the connection as soon as its length is read.
    Packets(LengthField),
    /// A message is whatever has come in, in pieces of at most `message_size` bytes whose borders
    /// mean nothing.
    Bytes,
}

/// How the length before a message is written. It counts the bytes of the message alone, not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LengthField {
    /// One byte (Swoole's `package_length_type` C).
    U8,
    /// Two bytes, the high one first (n).
    U16,
    /// Two bytes, the low one first (v).
    U16Le,
    /// Four bytes, the high ones first (N).
    U32,
    /// Four bytes, the low ones first (V).
    U32Le,
}

impl LengthField {
    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::U16Le => 2,
            Self::U32 | Self::U32Le => 4,
        }
    }

    /// The longest message that it has room for, in bytes.
    #[must_use]
    pub fn longest(self) -> usize {
        match self {
            Self::U8 => u8::MAX.into(),
            Self::U16 | Self::U16Le => u16::MAX.into(),
            Self::U32 | Self::U32Le => u32::MAX as usize,
        }
    }

    /// Writes a length; one that there is no room for is not written, and false.
    #[must_use]
    pub fn write(self, length: usize, into: &mut BytesMut) -> bool {
        let fits = length <= self.longest();
        if fits {
            let (big, little) = ((length as u64).to_be_bytes(), (length as u64).to_le_bytes());
            match self {
                Self::U8 | Self::U16 | Self::U32 => {
                    into.extend_from_slice(&big[big.len() - self.bytes()..]);
                }
                Self::U16Le | Self::U32Le => into.extend_from_slice(&little[..self.bytes()]),
            }
        }
        fits
    }

    /// Takes a message out of `unread`, once it is there: behind its length, which is taken as well.
    ///
    /// # Errors
    /// [`Violation`] when it is longer than `limit`, as soon as its length is there.
    pub fn take(self, unread: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, Violation> {
        let head = self.bytes();
        let Some(field) = unread.get(..head) else { return Ok(None) };
        let more = |length: usize, byte: &u8| length << 8 | usize::from(*byte);
        let length = match self {
            Self::U8 | Self::U16 | Self::U32 => field.iter().fold(0, more),
            Self::U16Le | Self::U32Le => field.iter().rev().fold(0, more),
        };
        if length > limit {
            return Err(PACKET_TOO_LONG);
        }
        if unread.len() - head < length {
            return Ok(None);
        }
        unread.advance(head);
        Ok(Some(unread.split_to(length).freeze()))
    }
}

const PACKET_TOO_LONG: Violation = Violation { code: 1009, text: "the packet is too long" };

/// Cuts lines out of a stream. Usable with tokio-util's `Framed` as well.
///
/// ```
/// use bytes::BytesMut;
/// use shiftwork::tcp::Lines;
/// use tokio_util::codec::Decoder;
///
/// let mut lines = Lines::new(80);
/// let mut unread = BytesMut::from("one\r\ntwo\nthr");
/// assert_eq!(lines.decode(&mut unread).unwrap().unwrap(), "one");
/// assert_eq!(lines.decode(&mut unread).unwrap().unwrap(), "two");
/// assert_eq!(lines.decode(&mut unread).unwrap(), None);
/// assert_eq!(unread, "thr");
/// ```
#[derive(Debug, Clone)]
pub struct Lines {
    limit: usize,
    /// So many bytes of `unread` are known to hold no LF. Only saves work; may be lost.
    searched: usize,
    /// Whether the last line ended with CR LF.
    pub(super) carriage_return: bool,
}

impl Lines {
    /// Lines of at most `limit` bytes, their ending not counted.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Lines { limit, searched: 0, carriage_return: false }
    }
}

/// Why lines cannot be cut any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// A line is too long.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// Reading failed; only from `Framed`.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

const TOO_LONG: Violation = Violation { code: 1009, text: "the line is too long" };

impl Decoder for Lines {
    type Item = Bytes;
    type Error = LinesError;

    fn decode(&mut self, unread: &mut BytesMut) -> Result<Option<Bytes>, LinesError> {
        let from = self.searched.min(unread.len());
        let Some(end) = unread[from..].iter().position(|&byte| byte == b'\n') else {
            self.searched = unread.len();
            // A CR at the limit may belong to the ending.
            let room = self.limit.saturating_add(1);
            let over = unread.len() > room || (unread.len() == room && !unread.ends_with(b"\r"));
            return if over { Err(TOO_LONG.into()) } else { Ok(None) };
        };
        self.searched = 0;
        let end = from + end;
        let length = unread[..end].strip_suffix(b"\r").map_or(end, <[u8]>::len);
        if length > self.limit {
            return Err(TOO_LONG.into());
        }
        self.carriage_return = length < end;
        let line = Bytes::copy_from_slice(&unread[..length]);
        unread.advance(end + 1);
        Ok(Some(line))
    }

    fn decode_eof(&mut self, unread: &mut BytesMut) -> Result<Option<Bytes>, LinesError> {
        let line = self.decode(unread)?;
        if line.is_none() {
            unread.clear();
        }
        Ok(line)
    }
}
