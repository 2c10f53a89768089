//! What is in hand on a connection, and what is said of it if it is cut.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Uri};

use crate::session::{Call, Peer};

/// What is in hand on a connection.
#[derive(Debug, Clone)]
pub enum Work {
    /// An HTTP request: its method, and what it asks for, if that has a path.
    Request(Method, Option<PathAndQuery>),
    /// A handler of another protocol.
    Handler(Call),
    /// An answer that was given, and that the client has not taken yet.
    Answer,
}

impl Work {
    /// An HTTP request. Keeps no more of it than the log may want.
    #[inline]
    pub fn request(method: &Method, uri: &Uri) -> Work {
        Work::Request(method.clone(), uri.path_and_query().cloned())
    }

    /// Whether the client has asked for it. What a hand-over brings with it is no request: else
    /// workers with `max_request` would wear each other out.
    #[inline]
    pub(super) fn is_request(&self) -> bool {
        !matches!(self, Work::Handler(Call::Resume))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the query, which may hold what does not belong into a log.
            Work::Request(method, Some(asked)) => write!(f, "{method} {}", asked.path()),
            Work::Request(method, None) => method.fmt(f),
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
