//! What a connection needs to begin, or to go on, in a process; and what is left of it afterwards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::limits::StreamLimits;
use super::link::Peer;
use super::reason::CloseReason;
use super::wire::Transport;

/// With which session a connection begins.
#[derive(Debug, Clone, Default)]
pub enum Begin {
    /// A new connection, with the session type's default. `open` (`connect`) is called.
    #[default]
    Fresh,
    /// A new connection whose session was prepared (see `websocket::upgrade_with`). `open` is called.
    With(Vec<u8>),
    /// A connection that another process served so far. `open` is not called again.
    Adopt(Saved),
    /// A connection that another process served so far, and that cannot go on here: it is closed (a
    /// WebSocket with 1012), and that is logged.
    Unreadable,
}

/// What travels with a connection beside its descriptor and its unread bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The application's session.
    pub session: Vec<u8>,
    /// The `SESSION_VERSION` in which it is written.
    pub version: u32,
    /// The framing's half-read message.
    pub half_read: Vec<u8>,
    /// What the client has not taken yet; usually nothing.
    pub unsent: Vec<u8>,
    /// How long the connection had been idle.
    pub idle: Duration,
}

impl Saved {
    /// As it travels.
    ///
    /// # Errors
    /// None is known for plain data in memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        postcard::to_allocvec(self).map_err(|error| error.to_string())
    }

    /// From what [`to_bytes`](Saved::to_bytes) has written, here or in another release.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        super::form::decode(bytes)
    }
}

/// What the order to drain means for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrain {
    /// Close at the next boundary between two messages: WebSocket with 1012.
    Close,
    /// Go on serving until ordered to close or cut. Handlers learn that the worker drains.
    Serve,
    /// Give the connection back as soon as no handler runs.
    HandOver,
}

/// Everything that a driver needs to serve one connection.
pub struct Start<S> {
    /// The stream.
    pub stream: S,
    /// Bytes that were read from it before, and belong to this protocol.
    pub unread: Bytes,
    /// New, or adopted.
    pub begin: Begin,
    /// Who is at the other end.
    pub peer: Peer,
    /// Where the worker's orders come from.
    pub control: Arc<dyn Control>,
    /// The limits.
    pub limits: StreamLimits,
    /// What draining means here.
    pub on_drain: OnDrain,
    /// In which version the session is written for others, if the handler can (the setting
    /// `session_write_version`). None: in its own.
    pub write_version: Option<u32>,
}

impl<S> Start<S> {
    /// A new connection without unread bytes, with default limits, that closes when its worker
    /// drains. Change the fields for anything else.
    pub fn new(stream: S, peer: Peer, control: Arc<dyn Control>) -> Self {
        Start {
            stream,
            unread: Bytes::new(),
            begin: Begin::Fresh,
            peer,
            control,
            limits: StreamLimits::default(),
            on_drain: OnDrain::Close,
            write_version: None,
        }
    }
}

impl<S: Transport> Start<S> {
    pub(crate) fn boxed(self) -> Start<Box<dyn Transport>> {
        Start {
            stream: Box::new(self.stream),
            unread: self.unread,
            begin: self.begin,
            peer: self.peer,
            control: self.control,
            limits: self.limits,
            on_drain: self.on_drain,
            write_version: self.write_version,
        }
    }
}

impl<S> fmt::Debug for Start<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("peer", &self.peer)
            .field("unread", &self.unread.len())
            .field("on_drain", &self.on_drain)
            .finish_non_exhaustive()
    }
}

/// A connection that can go on elsewhere.
pub struct Parcel<S> {
    /// The stream.
    pub stream: S,
    /// Bytes that were read and not used.
    pub unread: Bytes,
    /// Session, half-read message, what is owed to the client, idle time.
    pub saved: Saved,
}

impl<S> fmt::Debug for Parcel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel")
            .field("unread", &self.unread.len())
            .field("saved", &self.saved)
            .finish_non_exhaustive()
    }
}

/// How serving a connection ended.
#[derive(Debug)]
pub enum Outcome<S> {
    /// The connection is gone.
    Closed(CloseReason),
    /// The connection lives, and whoever called `serve` has it back.
    HandOver(Parcel<S>),
}

/// From the erased stream back to the type it was made of.
pub(super) fn unbox<S: Transport>(outcome: Outcome<Box<dyn Transport>>) -> Outcome<S> {
    let parcel = match outcome {
        Outcome::Closed(reason) => return Outcome::Closed(reason),
        Outcome::HandOver(parcel) => parcel,
    };
    match parcel.stream.into_any().downcast::<S>() {
        Ok(stream) => Outcome::HandOver(Parcel {
            stream: *stream,
            unread: parcel.unread,
            saved: parcel.saved,
        }),
        // The box was made from an S by `boxed`; nothing replaces it on the way.
        Err(_) => Outcome::Closed(CloseReason::Lost("the stream changed its type".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Other releases have this form in their code: it must never change under hand-over format 1.
    #[test]
    fn what_travels_is_written_as_ever() {
        let saved = Saved {
            session: vec![1, 2],
            version: 300,
            half_read: vec![3],
            unsent: vec![],
            idle: Duration::new(5, 6),
        };
        let fixture = [2, 1, 2, 0xac, 2, 1, 3, 0, 5, 6];
        assert_eq!(saved.to_bytes().unwrap(), fixture);
        assert_eq!(Saved::from_bytes(&fixture), Some(saved));
        assert_eq!(Saved::from_bytes(&fixture[..9]), None);
    }
}
