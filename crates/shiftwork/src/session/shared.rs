//! The little that a connection's driver and futures elsewhere both look at.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::control::Call;

/// Whether the worker drains, and what the handler is at.
#[derive(Default)]
pub(crate) struct Shared {
    draining: AtomicBool,
    notify: Notify,
    in_hand: Mutex<Option<(Call, Instant)>>,
}

impl Shared {
    pub(crate) fn set_draining(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            self.notify.notify_waiters();
        }
    }

    /// Resolves when the worker drains.
    pub(crate) async fn drained(self: Arc<Self>) {
        let mut notified = pin!(self.notify.notified());
        // Enlisted before the flag is read, or a notice between the two would be missed.
        notified.as_mut().enable();
        if !self.draining.load(Ordering::Acquire) {
            notified.await;
        }
    }

    pub(crate) fn begin(&self, call: Call) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some((call, Instant::now()));
    }

    pub(crate) fn end(&self) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the handler is at, and since when.
    pub(crate) fn in_hand(&self) -> Option<(Call, Instant)> {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
