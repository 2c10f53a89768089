//! The limits of one long-lived connection.

use std::time::Duration;

/// Limits of one WebSocket or raw TCP connection. All are on by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Longest message in bytes, fragments added up; default 1 MiB. A longer one ends the connection
    /// (WebSocket: with 1009) as soon as its length is known, before it is held in memory.
    pub message_size: usize,
    /// How long nothing may come from the client (raw TCP: in either direction), default 75 s; zero
    /// means for ever. A WebSocket client is sent a ping after half of it. It is also how long a
    /// client may refuse to take what is sent to it.
    pub idle_timeout: Duration,
    /// How long the end of a connection may take: the client's half of a WebSocket close, or of a
    /// TCP close; default 3 s. When a worker drains, a client in the middle of sending a message has
    /// this long to finish it.
    pub close_timeout: Duration,
    /// How many messages [`Sender`](super::Sender)s may have waiting for a connection; default 64.
    /// When it is full, `send` waits and `try_send` fails.
    pub push_queue: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        StreamLimits {
            message_size: 1024 * 1024,
            idle_timeout: Duration::from_secs(75),
            close_timeout: Duration::from_secs(3),
            push_queue: 64,
        }
    }
}

/// As good as never, and safe to add to a time.
pub(crate) const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

impl StreamLimits {
    /// Without values that overflow when they are added to a time.
    pub(crate) fn clamped(mut self) -> Self {
        self.idle_timeout = self.idle_timeout.min(FAR);
        self.close_timeout = self.close_timeout.min(FAR);
        self
    }
}
