//! A raw connection as its handler sees it.

use std::fmt;
use std::future::Future;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::framing::{Framing, LengthField, Lines, LinesError};
use crate::session::{
    self, CloseReason, Incoming, Link, Peer, SendError, Sender, StreamLimits, Violation,
};

/// One client's connection, with the session that the application keeps for it.
pub struct Connection<S> {
    /// The application's value for this connection. It is written out (serde) when the connection
    /// passes to another process, so it holds what must survive a reload and nothing else.
    pub session: S,
    pub(super) link: Link<TcpFraming>,
}

impl<S> Connection<S> {
    /// Sends bytes as they are, in either framing, and waits until the kernel has taken all of them.
    /// A client that does not read makes this wait, for at most `idle_timeout`; nothing piles up in
    /// memory. Dropping the future leaves nothing half sent: the rest goes out before anything else.
    ///
    /// # Errors
    /// [`SendError`] when the connection is closing or broken. It ends when the handler returns.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        self.link.send(bytes.into()).await
    }

    /// Sends a line with the ending that this client's own last line had: LF, or CR LF.
    ///
    /// # Errors
    /// As [`send`](Connection::send).
    pub async fn send_line(&mut self, line: impl AsRef<[u8]>) -> Result<(), SendError> {
        let (line, ending) = (line.as_ref(), self.link.framing.ending());
        let mut bytes = BytesMut::with_capacity(line.len() + ending.len());
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(ending);
        self.link.send(bytes.freeze()).await
    }

    /// Sends a message behind its length, written as this listener's framing
    /// ([`Framing::Packets`]) has it; in another framing, as [`send`](Connection::send).
    ///
    /// # Errors
    /// As [`send`](Connection::send), and [`SendError::TooLong`] if the length has no room in its
    /// field; then nothing is sent, and the connection goes on.
    pub async fn send_packet(&mut self, message: impl AsRef<[u8]>) -> Result<(), SendError> {
        let message = message.as_ref();
        let mut bytes = BytesMut::with_capacity(message.len() + 4);
        if let TcpFraming::Packets { field, .. } = &self.link.framing
            && !field.write(message.len(), &mut bytes)
        {
            return Err(SendError::TooLong { bytes: message.len(), most: field.longest() });
        }
        bytes.extend_from_slice(message);
        self.link.send(bytes.freeze()).await
    }

    /// A handle for sending from other tasks and timers. It does not keep the connection open.
    pub fn sender(&mut self) -> Sender<Bytes> {
        self.link.mailbox.sender()
    }

    /// Closes the connection when the handler returns; what was sent before still arrives.
    pub fn close(&mut self) {
        self.link.end(CloseReason::Asked { code: 1000, reason: String::new() });
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

/// A raw stream under the common driver.
pub(crate) enum TcpFraming {
    Lines(Lines),
    Packets { field: LengthField, limit: usize },
    Bytes { limit: usize },
}

impl TcpFraming {
    pub(crate) fn new(framing: Framing, limits: &StreamLimits) -> Self {
        match framing {
            Framing::Lines => TcpFraming::Lines(Lines::new(limits.message_size)),
            Framing::Packets(field) => {
                TcpFraming::Packets { field, limit: limits.message_size.max(1) }
            }
            Framing::Bytes => TcpFraming::Bytes { limit: limits.message_size.max(1) },
        }
    }

    fn ending(&self) -> &'static [u8] {
        match self {
            TcpFraming::Lines(lines) if lines.carriage_return => b"\r\n",
            TcpFraming::Lines(_) | TcpFraming::Packets { .. } | TcpFraming::Bytes { .. } => b"\n",
        }
    }
}

impl session::Framing for TcpFraming {
    type Message = Bytes;
    const NAME: &'static str = "tcp";
    const PROBES: bool = false;

    fn decode(
        &mut self,
        unread: &mut BytesMut,
        _unsent: &mut BytesMut,
    ) -> Result<Option<Incoming<Bytes>>, Violation> {
        let message = match self {
            TcpFraming::Bytes { .. } if unread.is_empty() => None,
            TcpFraming::Bytes { limit } => Some(unread.split_to(unread.len().min(*limit)).freeze()),
            TcpFraming::Packets { field, limit } => field.take(unread, *limit)?,
            TcpFraming::Lines(lines) => lines.decode(unread).map_err(|error| match error {
                LinesError::Violation(violation) => violation,
                // Decoding from memory reads nothing.
                LinesError::Io(_) => Violation { code: 1002, text: "reading failed" },
            })?,
        };
        Ok(message.map(Incoming::Message))
    }

    fn encode(&mut self, message: Bytes, unsent: &mut BytesMut) {
        unsent.extend_from_slice(&message);
    }

    fn write_close(&mut self, _reason: &CloseReason, _unsent: &mut BytesMut) {}

    fn awaits_close(&self) -> bool {
        false
    }

    fn half_read(&self) -> bool {
        // A half line stays in `unread`.
        false
    }

    fn end_of_stream(&self, left: usize) -> CloseReason {
        match left {
            0 => CloseReason::Client { code: None, reason: String::new() },
            _ => CloseReason::Lost(format!("the client ended the stream in a line ({left} bytes)")),
        }
    }

    // Half a message stays in `unread`. All that is to be remembered is how this client ends a line.
    fn save(&self) -> Vec<u8> {
        match self {
            TcpFraming::Lines(lines) if lines.carriage_return => vec![b'\r'],
            TcpFraming::Lines(_) | TcpFraming::Packets { .. } | TcpFraming::Bytes { .. } => vec![],
        }
    }

    fn restore(&mut self, saved: &[u8]) -> bool {
        match (self, saved) {
            (_, []) => true,
            (TcpFraming::Lines(lines), b"\r") => {
                lines.carriage_return = true;
                true
            }
            _ => false,
        }
    }
}
