//! What a worker has done and is doing, as numbers.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one worker. Written by the drivers, read by whoever publishes them.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) in_hand: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) failures: AtomicU64,
    mirror: OnceLock<Mirror>,
}

/// Where the numbers are shown to other processes as they change, so that they are true even while
/// a handler blocks the worker.
struct Mirror(Box<dyn Fn(&Counters) + Send + Sync>);

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mirror")
    }
}

/// What [`Registry::totals`](super::Registry::totals) found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests (messages, for protocols that have those) begun since the worker started.
    pub requests: u64,
    /// Requests begun and not finished, those whose client has gone included.
    pub in_hand: u64,
    /// Connections open now.
    pub connections: u64,
    /// Answers with a status of 500 or above since the worker started.
    pub failures: u64,
    /// Age of the oldest request in hand, as of the last sweep.
    pub oldest: Option<Duration>,
}

impl Counters {
    /// Has every change shown by `show`, which must be quick. Once; later calls do nothing.
    pub fn mirror(&self, show: impl Fn(&Counters) + Send + Sync + 'static) {
        let _ = self.mirror.set(Mirror(Box::new(show)));
    }

    #[inline]
    pub(super) fn changed(&self) {
        if let Some(mirror) = self.mirror.get() {
            (mirror.0)(self);
        }
    }

    /// Requests begun since the worker started.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests begun and not finished.
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Answers with a status of 500 or above since the worker started.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}
