//! A WebSocket connection as its handler sees it.

use std::fmt;
use std::future::Future;

use bytes::BytesMut;

use super::codec::{self, Decoded, Decoder};
use super::message::{Message, code};
use super::partial::Partial;
use crate::session::{
    CloseReason, Framing, Incoming, Link, Peer, SendError, Sender, StreamLimits, Violation,
};

/// One client's connection, with the session that the application keeps for it.
pub struct Connection<S> {
    /// The application's value for this connection. It is written out (serde) when the connection
    /// passes to another process, so it holds what must survive a reload and nothing else.
    pub session: S,
    pub(super) link: Link<WebSocketFraming>,
}

impl<S> Connection<S> {
    /// Sends one message, and waits until the kernel has taken all of it. A client that does not
    /// read makes this wait, for at most `idle_timeout`; nothing piles up in memory.
    ///
    /// Dropping the future (a timeout, a `select!`) never leaves half a message: it still goes out
    /// whole, before anything that is sent later.
    ///
    /// # Errors
    /// [`SendError`] when the connection is closing or broken. It ends when the handler returns;
    /// returning the error with `?` is fine.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), SendError> {
        self.link.send(message.into()).await
    }

    /// A handle for sending from other tasks and timers. It does not keep the connection open.
    pub fn sender(&mut self) -> Sender<Message> {
        self.link.mailbox.sender()
    }

    /// Closes the connection when the handler returns. `code` is one of [`code`], or the
    /// application's own from 3000 to 4999 (anything else is sent as 1011); `reason` is cut to 123
    /// bytes. The first call counts.
    pub fn close(&mut self, code: u16, reason: impl Into<String>) {
        self.link.end(CloseReason::Asked { code, reason: reason.into() });
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.link.peer
    }

    /// Whether this worker drains: a handler that runs for long should come to an end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.link.control.orders().drain
    }

    /// Resolves when this worker drains. The future borrows nothing; it can be awaited anywhere.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<S> {
        self.link.draining()
    }
}

impl<S: fmt::Debug> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.link.peer)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// WebSocket under the common driver.
pub(crate) struct WebSocketFraming {
    decoder: Decoder,
    /// We have said goodbye; only the client's goodbye still matters.
    closing: bool,
}

impl WebSocketFraming {
    pub(crate) fn new(limits: &StreamLimits) -> Self {
        WebSocketFraming { decoder: Decoder::new(limits.message_size), closing: false }
    }
}

impl Framing for WebSocketFraming {
    type Message = Message;
    const NAME: &'static str = "websocket";
    const PROBES: bool = true;

    fn decode(
        &mut self,
        unread: &mut BytesMut,
        unsent: &mut BytesMut,
    ) -> Result<Option<Incoming<Message>>, Violation> {
        let Some(found) = self.decoder.decode(unread)? else { return Ok(None) };
        Ok(Some(match found {
            Decoded::Message(message) => Incoming::Message(message),
            Decoded::Ping(payload) => {
                if !self.closing {
                    codec::encode_pong(payload, unsent);
                }
                Incoming::Control
            }
            Decoded::Pong(_) => Incoming::Control,
            Decoded::Close { code, reason } => Incoming::Close { code, reason },
        }))
    }

    fn encode(&mut self, message: Message, unsent: &mut BytesMut) {
        codec::encode_message(message, unsent);
    }

    fn write_close(&mut self, reason: &CloseReason, unsent: &mut BytesMut) {
        if self.closing {
            return;
        }
        self.closing = true;
        match (reason, reason.code()) {
            // A client's close is answered with its own code, and without one if it gave none.
            (CloseReason::Client { code, .. }, _) => codec::encode_close(*code, "", unsent),
            (_, Some(code)) if code::is_sendable(code) => {
                codec::encode_close(Some(code), reason.text(), unsent);
            }
            _ => codec::encode_close(Some(code::INTERNAL), reason.text(), unsent),
        }
    }

    fn awaits_close(&self) -> bool {
        !self.decoder.has_ended()
    }

    fn probe(&mut self, unsent: &mut BytesMut) {
        codec::encode_ping(b"", unsent);
    }

    fn half_read(&self) -> bool {
        self.decoder.partial().is_some()
    }

    fn end_of_stream(&self, _left: usize) -> CloseReason {
        CloseReason::Lost("the client ended the stream without a close frame".to_owned())
    }

    fn save(&self) -> Vec<u8> {
        // Cannot fail for plain data in memory; an empty answer would be refused by `restore`.
        postcard::to_allocvec(&self.decoder.partial()).unwrap_or_default()
    }

    fn restore(&mut self, saved: &[u8]) -> bool {
        match postcard::take_from_bytes::<Option<Partial>>(saved) {
            Ok((partial, [])) => {
                self.decoder.resume(partial);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }
}
