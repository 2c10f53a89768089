//! What is in hand on a connection, and what is said of it if it is cut.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::session::{Call, Peer};

/// What is in hand on a connection.
#[derive(Debug, Clone)]
pub enum Work {
    /// An HTTP request: its method and path, of a long one the beginning. Not its query, which may
    /// hold what does not belong into a log.
    Request(Method, String),
    /// A handler of another protocol.
    Handler(Call),
    /// An answer that was given, and that the client has not taken yet.
    Answer,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // CONNECT has none.
            Work::Request(method, path) if path.is_empty() => method.fmt(f),
            Work::Request(method, path) => write!(f, "{method} {path}"),
            Work::Handler(call) => call.fmt(f),
            Work::Answer => f.write_str("an answer that its client has not taken"),
        }
    }
}

/// Work that was cut, for the log.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The connection's number.
    pub id: u64,
    /// Whose it was.
    pub peer: Peer,
    /// The listener that it came by, if that was told.
    pub listener: Option<Arc<str>>,
    /// What it was; displays as `POST /orders`.
    pub work: Work,
    /// How long it had been in hand.
    pub age: Duration,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.work, self.peer)?;
        if let Some(listener) = &self.listener {
            write!(f, " on listener {listener}")?;
        }
        write!(f, ", in hand for {} ms", self.age.as_millis())
    }
}
