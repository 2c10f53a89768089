//! What a connection consists of, under the type that handlers see.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout};

use super::BoxError;
use super::control::{Call, Control};
use super::guard::Panicked;
use super::limits::{FAR, StreamLimits};
use super::mailbox::{Mailbox, Push};
use super::reason::{CloseReason, Violation};
use super::shared::Shared;
use super::start::OnDrain;
use super::wire::Wire;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client and its address; 0.0.0.0:0 for one that was gone before it was asked.
    Tcp(SocketAddr),
    /// A client on a Unix socket, as the kernel vouches for it.
    Unix {
        /// Its user.
        uid: u32,
        /// Its process; 0 when unknown.
        pid: i32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix { uid, pid } => write!(f, "unix (uid {uid}, pid {pid})"),
        }
    }
}

/// Why something could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended or has begun to close.
    #[error("the connection is closed")]
    Closed,
    /// The connection lives on in another worker, where `resume` was called for it: what sends to it
    /// from here has to end, and begin there.
    #[error("the connection has passed to another worker")]
    HandedOver,
    /// The queue of pushes is full: the client is slower than what is sent to it.
    #[error("the connection's queue is full")]
    Full,
    /// The message is longer than its length field can say.
    #[error("a message of {bytes} bytes; its length field has room for {most}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The most that there can be.
        most: usize,
    },
    /// The client took no bytes for `idle_timeout`.
    #[error("the client took no bytes for {0:?}")]
    Stalled(Duration),
    /// Writing failed.
    #[error("cannot write to the client: {0}")]
    Write(String),
}

/// What a framing found in the bytes.
#[derive(Debug)]
pub(crate) enum Incoming<M> {
    /// A whole message.
    Message(M),
    /// Something that concerns the framing alone (a ping); it has been dealt with.
    Control,
    /// The client wants to close.
    Close { code: Option<u16>, reason: String },
}

/// One protocol's way of cutting bytes into messages. Never does input or output itself.
pub(crate) trait Framing: Send + 'static {
    type Message: Send + 'static;
    /// For the log.
    const NAME: &'static str;
    /// Whether [`probe`](Framing::probe) can ask a silent client for a sign of life.
    const PROBES: bool;

    /// Takes the next thing from `unread`; answers that need no handler go to `unsent`.
    fn decode(
        &mut self,
        unread: &mut BytesMut,
        unsent: &mut BytesMut,
    ) -> Result<Option<Incoming<Self::Message>>, Violation>;
    /// Appends a message to `unsent`, whole.
    fn encode(&mut self, message: Self::Message, unsent: &mut BytesMut);
    /// Says goodbye, if the protocol has words for it.
    fn write_close(&mut self, reason: &CloseReason, unsent: &mut BytesMut);
    /// Whether the client owes an answer to our goodbye.
    fn awaits_close(&self) -> bool;
    /// Asks for a sign of life.
    fn probe(&mut self, _unsent: &mut BytesMut) {}
    /// Whether part of a message was taken from `unread` and waits for the rest.
    fn half_read(&self) -> bool;
    /// What the end of the client's stream means, with so many bytes left that make no message.
    fn end_of_stream(&self, left: usize) -> CloseReason;
    /// What must travel with the connection.
    fn save(&self) -> Vec<u8>;
    /// Takes up what [`save`](Framing::save) wrote; false when it cannot be read.
    fn restore(&mut self, saved: &[u8]) -> bool;
}

/// More unsent bytes than this are written out before anything is added to them.
pub(crate) const HIGH_WATER: usize = 16 * 1024;

/// A connection without its session.
pub(crate) struct Link<F: Framing> {
    pub(crate) wire: Wire,
    pub(crate) framing: F,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Peer,
    pub(crate) limits: StreamLimits,
    pub(crate) mailbox: Mailbox<F::Message>,
    /// What the order to drain means here.
    pub(crate) on_drain: OnDrain,
    /// Set by whoever wants the connection to end; the first reason stands.
    pub(crate) ending: Option<CloseReason>,
    /// The last sign of life.
    pub(crate) last_seen: Instant,
    /// A probe was sent since.
    pub(crate) probed: bool,
}

impl<F: Framing> Link<F> {
    /// Ends the connection when the handler returns.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        if self.ending.is_none() {
            self.ending = Some(reason);
        }
    }

    /// Sends one message whole. Dropping the future leaves no half message behind: the rest stays in
    /// `unsent` and goes out before anything else.
    pub(crate) async fn send(&mut self, message: F::Message) -> Result<(), SendError> {
        if self.ending.is_some() {
            return Err(SendError::Closed);
        }
        if self.wire.unsent.len() > HIGH_WATER {
            self.flush().await?;
        }
        self.framing.encode(message, &mut self.wire.unsent);
        if self.on_drain != OnDrain::HandOver {
            return self.flush().await;
        }
        let draining = self.draining();
        tokio::select! {
            biased;
            flushed = self.flush() => return flushed,
            () = draining => {}
        }
        match self.control.orders().close {
            true => self.flush().await,
            // What a slow client has not taken travels with the connection.
            false => Ok(()),
        }
    }

    /// Writes all that is unsent. A client that takes nothing for `idle_timeout` loses its connection.
    pub(crate) async fn flush(&mut self) -> Result<(), SendError> {
        let patience = self.limits.idle_timeout;
        while !self.wire.unsent.is_empty() {
            let written = match patience.is_zero() {
                true => Ok(self.wire.write_some().await),
                false => timeout(patience, self.wire.write_some()).await,
            };
            match written {
                Ok(Ok(_)) if !F::PROBES => self.seen(),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(SendError::Write(error.to_string()))),
                Err(_) => return Err(self.lost(SendError::Stalled(patience))),
            }
        }
        match self.wire.flush_stream().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(SendError::Write(error.to_string()))),
        }
    }

    fn lost(&mut self, error: SendError) -> SendError {
        // Whatever else was the reason before: nothing can be said to the client any more.
        self.ending = Some(CloseReason::Lost(error.to_string()));
        self.wire.unsent.clear();
        error
    }

    /// The client has shown a sign of life.
    pub(crate) fn seen(&mut self) {
        self.last_seen = Instant::now();
        self.probed = false;
    }

    /// When to look at the clocks again.
    pub(crate) fn deadline(&self, patience_ends: Option<Instant>) -> Instant {
        let probe_next = F::PROBES && !self.probed;
        let idle = self.limits.idle_timeout;
        let wait = match (idle.is_zero(), probe_next) {
            (true, _) => FAR,
            (false, true) => idle / 2,
            (false, false) => idle,
        };
        let deadline = self.last_seen + wait;
        patience_ends.map_or(deadline, |ends| ends.min(deadline))
    }

    /// Whether the client has been silent for too long.
    pub(crate) fn is_idle(&self) -> bool {
        let idle = self.limits.idle_timeout;
        !idle.is_zero() && self.last_seen.elapsed() >= idle
    }

    /// Asks a silent client for a sign of life, once per silence.
    pub(crate) fn probe_if_due(&mut self) {
        let idle = self.limits.idle_timeout;
        let due = !idle.is_zero() && self.last_seen.elapsed() >= idle / 2;
        if F::PROBES && due && !self.probed {
            self.framing.probe(&mut self.wire.unsent);
            self.probed = true;
        }
    }

    /// Handles one push from a sender.
    pub(crate) async fn deliver(&mut self, push: Push<F::Message>) -> Result<(), SendError> {
        match push {
            Push::Message(message) => self.send(message).await,
            Push::Close { code, reason } => {
                self.end(CloseReason::Asked { code, reason });
                Ok(())
            }
        }
    }

    /// The handler begins to work on something.
    pub(crate) fn begin(&mut self, call: Call) {
        self.shared.begin(call);
        self.control.begin(call);
    }

    /// The handler is done with it. Returns whether all went well; if not, the connection ends.
    pub(crate) fn settle(
        &mut self,
        call: Call,
        result: Result<Result<(), BoxError>, Panicked>,
    ) -> bool {
        // The client was waiting for us, not we for it.
        self.seen();
        self.settle_unseen(call, result)
    }

    /// As [`settle`](Link::settle), of something that the client knows nothing of.
    pub(crate) fn settle_unseen(
        &mut self,
        call: Call,
        result: Result<Result<(), BoxError>, Panicked>,
    ) -> bool {
        self.control.end();
        self.shared.end();
        let (protocol, peer) = (F::NAME, self.peer);
        match result {
            Ok(Ok(())) => return true,
            Ok(Err(error)) if matches!(self.ending, Some(CloseReason::Lost(_))) => {
                tracing::debug!(protocol, %peer, %call, %error, "the connection broke under its handler");
            }
            Ok(Err(error)) => {
                self.control.failed();
                tracing::error!(protocol, %peer, %call, %error, "a handler failed");
            }
            Err(Panicked(text)) => {
                self.control.failed();
                tracing::error!(protocol, %peer, %call, panic = %text, "a handler panicked");
            }
        }
        self.end(CloseReason::Failed);
        false
    }

    /// As [`deliver`](Link::deliver), without writing anything out.
    pub(crate) fn append(&mut self, push: Push<F::Message>) {
        match push {
            Push::Message(message) if self.ending.is_none() => {
                self.framing.encode(message, &mut self.wire.unsent);
            }
            Push::Message(_) => {}
            Push::Close { code, reason } => self.end(CloseReason::Asked { code, reason }),
        }
    }

    /// Resolves when the worker drains. Can be awaited in any task.
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<F> {
        if self.control.orders().drain {
            self.shared.set_draining();
        }
        Arc::clone(&self.shared).drained()
    }
}
