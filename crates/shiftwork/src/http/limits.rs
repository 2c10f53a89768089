//! What a client may take of a worker.

use std::time::Duration;

use crate::conn::SweepLimits;

/// The most bytes that hyper may have read and not used: what travels with a connection at most.
pub const MAX_UNREAD: usize = 64 * 1024;

/// hyper refuses to work with less.
const SMALLEST_HEADER_SIZE: usize = 8 * 1024;

/// Limits of one HTTP connection. All are on by default; a duration of zero switches its limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Longest request head in bytes; default 16 KiB, at least 8 KiB, at most 64 KiB. A longer one is
    /// answered with 431 and ends the connection.
    pub header_size: usize,
    /// Longest time from the first byte of a request head to its last; default 10 s. A slower client
    /// is answered with 408 and loses its connection.
    pub header_timeout: Duration,
    /// Longest request body in bytes; default 10 MiB, 0 for no limit. A longer one is answered with
    /// 413 before the handler runs if its length is announced; else reading it fails with
    /// [`http_body_util::LengthLimitError`].
    pub body_size: u64,
    /// Longest time from the end of the head to the beginning of the answer; default 60 s. The
    /// handler is dropped at its next await point, logged, and the client answered with 503.
    pub request_timeout: Duration,
    /// Longest time between two requests, or for which a client takes nothing of its answer; default
    /// 75 s. Then the connection is closed.
    pub idle_timeout: Duration,
    /// Whether a handler is dropped when its client goes away; default false: it runs to its end, so
    /// that what it has begun is finished. When true, a client that closes only its sending side is
    /// taken for gone.
    pub cancel_on_disconnect: bool,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            header_size: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            body_size: 10 * 1024 * 1024,
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            cancel_on_disconnect: false,
        }
    }
}

impl HttpLimits {
    /// What the sweeper has to know of them.
    pub fn sweep(&self) -> SweepLimits {
        SweepLimits {
            idle: self.idle_timeout,
            header: self.header_timeout,
            request: self.request_timeout,
        }
    }

    pub(super) fn effective_header_size(&self) -> usize {
        self.header_size.clamp(SMALLEST_HEADER_SIZE, MAX_UNREAD)
    }

    pub(super) fn effective_body_size(&self) -> u64 {
        match self.body_size {
            0 => u64::MAX,
            size => size,
        }
    }
}
