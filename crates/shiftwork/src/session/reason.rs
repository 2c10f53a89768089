//! Why a connection ended, and the close code that says so on a WebSocket.

use std::fmt;

/// What a client did against the protocol or its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// The WebSocket close code for it: 1002 (protocol), 1007 (not UTF-8) or 1009 (too big).
    pub code: u16,
    /// What was wrong, in words for the log and the close frame.
    pub text: &'static str,
}

/// Why a connection ended. Given to the handler's `close`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed: by a close frame, or (raw TCP) by ending its stream.
    Client {
        /// The code of its close frame, if it gave one.
        code: Option<u16>,
        /// The reason in its close frame; often empty.
        reason: String,
    },
    /// The handler, or a [`Sender`](super::Sender), asked for it.
    Asked {
        /// The close code.
        code: u16,
        /// The reason as it was given to `close`.
        reason: String,
    },
    /// The client broke the protocol or a limit.
    Violation(Violation),
    /// The handler returned an error or panicked; 1011.
    Failed,
    /// Nothing came from the client for `idle_timeout`; 1001.
    Idle,
    /// The worker drains and could not pass the connection on; 1012, *service restart*.
    Restart,
    /// The worker was ordered to close this connection; 1001.
    Stopped,
    /// The session that came with the connection cannot be read by this release; 1012.
    Unreadable,
    /// The connection broke: a reset, an end of stream in the middle, a client that took no bytes.
    Lost(String),
    /// The worker's deadline passed: dropped without a word.
    Cut,
}

impl CloseReason {
    /// The close code that goes to a WebSocket client, or came from it; None where no close frame
    /// passed.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            CloseReason::Client { code, .. } => *code,
            CloseReason::Asked { code, .. } => Some(*code),
            CloseReason::Violation(violation) => Some(violation.code),
            CloseReason::Failed => Some(1011),
            CloseReason::Idle | CloseReason::Stopped => Some(1001),
            CloseReason::Restart | CloseReason::Unreadable => Some(1012),
            CloseReason::Lost(_) | CloseReason::Cut => None,
        }
    }

    /// The words that go into the close frame.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            CloseReason::Client { reason, .. } | CloseReason::Asked { reason, .. } => reason,
            CloseReason::Violation(violation) => violation.text,
            CloseReason::Failed => "internal error",
            CloseReason::Idle => "idle timeout",
            CloseReason::Restart | CloseReason::Unreadable => "service restart",
            CloseReason::Stopped => "going away",
            CloseReason::Lost(text) => text,
            CloseReason::Cut => "cut",
        }
    }

    /// Whether bytes can still be sent to the client.
    pub(crate) fn can_write(&self) -> bool {
        !matches!(self, CloseReason::Lost(_) | CloseReason::Cut)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Client { code: Some(code), .. } => {
                write!(f, "closed by the client ({code})")
            }
            CloseReason::Client { code: None, .. } => f.write_str("closed by the client"),
            CloseReason::Asked { code, .. } => write!(f, "closed by the application ({code})"),
            CloseReason::Violation(violation) => write!(f, "closed: {violation}"),
            CloseReason::Failed => f.write_str("closed: the handler failed"),
            CloseReason::Idle => f.write_str("closed: idle"),
            CloseReason::Restart => f.write_str("closed: the worker drains"),
            CloseReason::Stopped => f.write_str("closed by the worker"),
            CloseReason::Unreadable => f.write_str("closed: its session cannot be read"),
            CloseReason::Lost(text) => write!(f, "lost: {text}"),
            CloseReason::Cut => f.write_str("cut at the deadline"),
        }
    }
}
