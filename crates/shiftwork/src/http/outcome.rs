//! How the service of a connection ended.

use std::time::Duration;

use bytes::Bytes;

use super::UpgradeTo;
use crate::conn::Stream;

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client has closed it, or one of both has said `Connection: close`.
    Ended,
    /// Nothing came for `idle_timeout`, or the client took nothing of its answer for so long.
    Idle,
    /// A request head was not finished in `header_timeout`.
    HeaderTimeout,
    /// The worker stops, and nothing was in hand.
    Stopped,
    /// The worker has cut it, with what was in hand.
    Cut,
    /// The client broke the protocol or the connection broke.
    Failed(String),
}

/// How the service of a connection ended.
#[must_use = "an open connection may be in it"]
#[derive(Debug)]
pub enum Outcome {
    /// It is closed; nothing is left to do.
    Closed(CloseReason),
    /// It is open, between two requests, and to be handed over.
    HandOver {
        /// The socket.
        stream: Stream,
        /// What was read from it and not used: the beginning of the next request.
        unread: Bytes,
        /// How long it has been quiet.
        idle_for: Duration,
    },
    /// A 101 has been sent; another protocol takes over.
    Upgraded {
        /// The socket.
        stream: Stream,
        /// What was read from it and belongs to the next protocol.
        unread: Bytes,
        /// Who takes over.
        upgrade: UpgradeTo,
    },
}
