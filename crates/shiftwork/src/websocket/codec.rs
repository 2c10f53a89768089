//! RFC 6455 from bytes to messages and back, for the server's side, without input or output.
//!
//! tungstenite reads and writes the frame headers. Its `FrameSocket` is not used: it reserves memory
//! for the length that a header declares, holds 128 KiB for every connection, and keeps a header that
//! it has read where nobody can get at it. Here a frame stays in the caller's buffer until it is
//! whole, so that buffer and [`Decoder`] together are all there is to know of a connection.

use std::io::Cursor;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use super::message::{Message, Text, code};
use super::partial::Partial;
use crate::session::Violation;

/// Longest payload of a control frame.
const CONTROL_SIZE: u64 = 125;

/// Payloads up to this size are copied out, so that a small message that somebody keeps does not
/// keep a large read buffer alive.
const COPY_UP_TO: usize = 4 * 1024;

/// What a [`Decoder`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A whole message.
    Message(Message),
    /// The client asks for a pong with the same payload.
    Ping(Bytes),
    /// The client answers a ping, or just shows that it lives.
    Pong(Bytes),
    /// The client closes. Nothing is decoded after it.
    Close {
        /// Its code, if it gave one.
        code: Option<u16>,
        /// Its reason; often empty.
        reason: String,
    },
}

/// Turns a client's bytes into messages. All that it remembers between two calls is plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    /// Longest message in bytes.
    limit: usize,
    /// The fragments of an unfinished message.
    partial: Option<Partial>,
    /// A close frame or a violation came: nothing after it counts.
    ended: bool,
}

impl Decoder {
    /// A decoder that refuses messages of more than `limit` bytes, all fragments together.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Decoder { limit, partial: None, ended: false }
    }

    /// The unfinished message, if fragments of one have come.
    #[must_use]
    pub fn partial(&self) -> Option<&Partial> {
        self.partial.as_ref()
    }

    /// Goes on with another process's unfinished message.
    pub(crate) fn resume(&mut self, partial: Option<Partial>) {
        self.partial = partial;
    }

    /// Whether the client's close frame, or a violation, has come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next whole frame off the front of `unread`. None when more bytes are needed; then
    /// `unread` is as it was.
    ///
    /// A frame that is too long is refused when its header has come, before its payload is waited
    /// for: `unread` never has to hold more than the limit and one header.
    ///
    /// # Errors
    /// [`Violation`] when the client breaks the protocol or the limit. The connection has to be
    /// closed then; further calls return None.
    pub fn decode(&mut self, unread: &mut BytesMut) -> Result<Option<Decoded>, Violation> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match self.frame(unread) {
                Ok(Step::Incomplete) => return Ok(None),
                Ok(Step::Fragment) => {}
                Ok(Step::Found(found)) => {
                    self.ended = matches!(found, Decoded::Close { .. });
                    return Ok(Some(found));
                }
                Err(violation) => {
                    self.ended = true;
                    return Err(violation);
                }
            }
        }
    }

    fn frame(&mut self, unread: &mut BytesMut) -> Result<Step, Violation> {
        let mut cursor = Cursor::new(&unread[..]);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(Step::Incomplete),
            // All that can be wrong for it is the opcode.
            Err(_) => return Err(protocol("unknown opcode")),
        };
        let head = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some(mask) = header.mask else { return Err(protocol("a frame is not masked")) };
        let length = self.check(&header, head, length)?;
        if unread.len() - head < length {
            return Ok(Step::Incomplete);
        }
        unread.advance(head);
        match header.opcode {
            OpCode::Control(control) => {
                let payload = take_payload(unread, length, mask);
                control_frame(control, payload).map(Step::Found)
            }
            OpCode::Data(Data::Continue) => {
                unmask(&mut unread[..length], mask);
                let payload = unread.split_to(length);
                self.fragment(&payload, header.is_final)
            }
            OpCode::Data(kind) if header.is_final => {
                let payload = take_payload(unread, length, mask);
                let message = match kind {
                    Data::Text => Message::Text(Text::from_utf8(payload).ok_or_else(not_utf8)?),
                    _ => Message::Binary(payload),
                };
                Ok(Step::Found(Decoded::Message(message)))
            }
            OpCode::Data(kind) => {
                unmask(&mut unread[..length], mask);
                let payload = unread.split_to(length);
                self.partial = Some(Partial::new(kind == Data::Text));
                self.fragment(&payload, false)
            }
        }
    }

    /// Checks a header by itself; returns the payload's length, which is within the limits.
    fn check(&self, header: &FrameHeader, head: usize, length: u64) -> Result<usize, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(protocol("a reserved bit is set"));
        }
        if length > i64::MAX as u64 {
            return Err(protocol("the length is negative"));
        }
        if head != header.len(length) {
            return Err(protocol("the length is not in its shortest form"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                return Err(protocol("a control frame is fragmented"));
            }
            OpCode::Control(_) if length > CONTROL_SIZE => {
                return Err(protocol("a control frame is longer than 125 bytes"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(Data::Continue) if self.partial.is_none() => {
                return Err(protocol("a continuation without a beginning"));
            }
            OpCode::Data(Data::Continue) => {}
            OpCode::Data(_) if self.partial.is_some() => {
                return Err(protocol("a message begins inside another"));
            }
            OpCode::Data(_) => {}
        }
        let before = match header.opcode {
            OpCode::Data(_) => self.partial.as_ref().map_or(0, Partial::len),
            OpCode::Control(_) => 0,
        };
        let too_big = Violation { code: code::TOO_BIG, text: "the message is too big" };
        let length = usize::try_from(length).map_err(|_| too_big.clone())?;
        let is_control = matches!(header.opcode, OpCode::Control(_));
        if !is_control && length > self.limit.saturating_sub(before) {
            return Err(too_big);
        }
        Ok(length)
    }

    fn fragment(&mut self, payload: &[u8], is_last: bool) -> Result<Step, Violation> {
        let Some(partial) = &mut self.partial else {
            return Err(protocol("a continuation without a beginning"));
        };
        partial.push(payload).map_err(|_| not_utf8())?;
        match self.partial.take_if(|_| is_last) {
            Some(whole) => {
                let message = whole.finish().map_err(|_| not_utf8())?;
                Ok(Step::Found(Decoded::Message(message)))
            }
            None => Ok(Step::Fragment),
        }
    }
}

/// What one frame came to.
enum Step {
    Incomplete,
    Fragment,
    Found(Decoded),
}

fn control_frame(control: Control, payload: Bytes) -> Result<Decoded, Violation> {
    match control {
        Control::Ping => Ok(Decoded::Ping(payload)),
        Control::Pong => Ok(Decoded::Pong(payload)),
        Control::Close => close_frame(&payload),
        Control::Reserved(_) => Err(protocol("unknown opcode")),
    }
}

fn close_frame(payload: &[u8]) -> Result<Decoded, Violation> {
    match payload {
        [] => Ok(Decoded::Close { code: None, reason: String::new() }),
        [_] => Err(protocol("a close frame with half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !code::is_sendable(code) {
                return Err(protocol("a close code that must not be sent"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| not_utf8())?;
            Ok(Decoded::Close { code: Some(code), reason: reason.to_owned() })
        }
    }
}

fn take_payload(unread: &mut BytesMut, length: usize, mask: [u8; 4]) -> Bytes {
    unmask(&mut unread[..length], mask);
    if length > COPY_UP_TO {
        return unread.split_to(length).freeze();
    }
    let payload = Bytes::copy_from_slice(&unread[..length]);
    unread.advance(length);
    payload
}

/// Removes (or puts on) the mask, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn protocol(text: &'static str) -> Violation {
    Violation { code: code::PROTOCOL, text }
}

fn not_utf8() -> Violation {
    Violation { code: code::INVALID, text: "text that is not UTF-8" }
}

/// Decodes all that is in `bytes`, as the beginning of a connection: what was found, and what was
/// wrong, if anything. For tests and fuzzing.
///
/// ```
/// use shiftwork::websocket::{Decoded, Message, decode};
///
/// // "hi", masked with zeros.
/// let (found, violation) = decode(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'], 1024);
/// assert_eq!(found, [Decoded::Message(Message::from("hi"))]);
/// assert_eq!(violation, None);
/// ```
#[must_use]
pub fn decode(bytes: &[u8], limit: usize) -> (Vec<Decoded>, Option<Violation>) {
    let mut decoder = Decoder::new(limit);
    let mut unread = BytesMut::from(bytes);
    let mut found = Vec::new();
    loop {
        match decoder.decode(&mut unread) {
            Ok(Some(one)) => found.push(one),
            Ok(None) => return (found, None),
            Err(violation) => return (found, Some(violation)),
        }
    }
}

/// Appends a message as one unmasked frame.
pub(crate) fn encode_message(message: Message, out: &mut BytesMut) {
    let kind = match &message {
        Message::Text(_) => Data::Text,
        Message::Binary(_) => Data::Binary,
    };
    encode(Frame::message(message.into_bytes(), OpCode::Data(kind), true), out);
}

/// Appends a ping.
pub(crate) fn encode_ping(payload: &'static [u8], out: &mut BytesMut) {
    encode(Frame::ping(Bytes::from_static(payload)), out);
}

/// Appends a pong.
pub(crate) fn encode_pong(payload: Bytes, out: &mut BytesMut) {
    encode(Frame::pong(payload), out);
}

/// Appends a close frame; a reason that is too long for one is cut at a character.
pub(crate) fn encode_close(code: Option<u16>, reason: &str, out: &mut BytesMut) {
    let close = code.map(|code| {
        let longest = CONTROL_SIZE as usize - 2;
        let reason = &reason[..reason.floor_char_boundary(longest)];
        CloseFrame { code: code.into(), reason: Utf8Bytes::from(reason) }
    });
    encode(Frame::close(close), out);
}

fn encode(frame: Frame, out: &mut BytesMut) {
    out.reserve(frame.len());
    let written = frame.format(&mut out.writer());
    debug_assert!(written.is_ok(), "memory takes every byte");
}
