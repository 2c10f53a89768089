//! How a task worker's loop is told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// What a task worker does about tasks. It only ever goes on to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TaskLoopMode {
    /// Takes one after the other.
    Taking = 0,
    /// Takes what waits in the queue, until it is empty.
    FinishQueue = 1,
    /// Finishes the one that runs, and leaves the rest in the queue for others.
    StopTaking = 2,
    /// Drops the one that runs, too.
    Cut = 3,
}

impl TaskLoopMode {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Taking,
            1 => Self::FinishQueue,
            2 => Self::StopTaking,
            _ => Self::Cut,
        }
    }
}

/// Tells a task worker's loop to end; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct TaskControl {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    mode: AtomicU8,
    changed: Notify,
}

impl TaskControl {
    /// Run what waits in the queue until it is empty, then end.
    pub fn finish_queue(&self) {
        self.go_on_to(TaskLoopMode::FinishQueue);
    }

    /// Finish the task that runs, then end; what waits stays in the queue.
    pub fn stop_taking(&self) {
        self.go_on_to(TaskLoopMode::StopTaking);
    }

    /// End now: a running task is dropped at its next await point, answered with
    /// [`TaskError::Cut`](super::TaskError::Cut) and logged.
    pub fn cut(&self) {
        self.go_on_to(TaskLoopMode::Cut);
    }

    /// What the loop does.
    #[must_use]
    pub fn mode(&self) -> TaskLoopMode {
        TaskLoopMode::from_number(self.inner.mode.load(Ordering::Acquire))
    }

    fn go_on_to(&self, mode: TaskLoopMode) {
        if self.inner.mode.fetch_max(mode as u8, Ordering::AcqRel) < mode as u8 {
            self.inner.changed.notify_waiters();
        }
    }

    /// Waits until the mode is another than `known`.
    pub(crate) async fn changed_from(&self, known: TaskLoopMode) {
        self.until(|mode| mode != known).await;
    }

    /// Waits until the running task is to be dropped.
    pub(crate) async fn until_cut(&self) {
        self.until(|mode| mode == TaskLoopMode::Cut).await;
    }

    async fn until(&self, reached: impl Fn(TaskLoopMode) -> bool) {
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            // Enabled before the look, so that a change between the two is not missed.
            changed.as_mut().enable();
            if reached(self.mode()) {
                return;
            }
            changed.await;
        }
    }
}
