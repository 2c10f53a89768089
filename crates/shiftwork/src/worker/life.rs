//! A worker's life as it sees it itself: which order of the manager makes sense when.

use std::time::Duration;

use shiftwork_supervisor::protocol::worker::DrainMode;

/// Where this process is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// `on_worker_start` runs, or has returned; nobody is served.
    Waiting,
    /// Accepting, or taking tasks.
    Serving,
    /// On the way out.
    Draining(DrainOrder),
}

/// How to drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DrainOrder {
    /// What becomes of open connections.
    pub(super) mode: DrainMode,
    /// Addresses that are no longer served by anybody.
    pub(super) removed: Vec<String>,
    /// Names of listeners that nobody has any more.
    pub(super) gone: Vec<String>,
    /// Task workers: run what waits, too.
    pub(super) finish_queue: bool,
    /// Until unguarded work is cut.
    pub(super) max_wait: Duration,
    /// After that, until guarded work is cut.
    pub(super) guard: Duration,
    /// Listening sockets are left with what waits in them, for whoever is next.
    pub(super) leave_doors: bool,
}

impl DrainOrder {
    /// What to do when nobody is there any more to give orders: close the door at once, finish
    /// what is in hand.
    pub(super) fn abandoned(max_wait: Duration, guard: Duration) -> Self {
        Self {
            mode: DrainMode::Close,
            removed: Vec::new(),
            gone: Vec::new(),
            finish_queue: true,
            max_wait,
            guard,
            leave_doors: std::env::var_os(shiftwork_supervisor::KEPT_LISTENERS).is_some(),
        }
    }
}

/// What follows from an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Open the door.
    Open,
    /// Leave: nobody was ever served.
    Leave,
    /// Begin to drain.
    BeginDrain,
    /// Drain on, under the new order.
    ChangeDrain,
    /// Nothing.
    Ignore,
}

impl Life {
    /// The manager has said `Serve`.
    pub(super) fn serve(&mut self) -> Step {
        match self {
            Self::Waiting => {
                *self = Self::Serving;
                Step::Open
            }
            Self::Serving | Self::Draining(_) => Step::Ignore,
        }
    }

    /// The manager has said `Drain`, or is gone.
    pub(super) fn drain(&mut self, order: DrainOrder) -> Step {
        let step = match self {
            Self::Waiting => Step::Leave,
            Self::Serving => Step::BeginDrain,
            Self::Draining(_) => Step::ChangeDrain,
        };
        *self = Self::Draining(order);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(mode: DrainMode) -> DrainOrder {
        DrainOrder { mode, ..DrainOrder::abandoned(Duration::ZERO, Duration::ZERO) }
    }

    #[test]
    fn a_worker_serves_once_and_drains_whatever_it_is_told_afterwards() {
        let mut life = Life::Waiting;
        assert_eq!(life.serve(), Step::Open);
        assert_eq!(life.serve(), Step::Ignore);
        assert_eq!(life.drain(order(DrainMode::HandOver)), Step::BeginDrain);
        assert_eq!(life.serve(), Step::Ignore);
        assert_eq!(life.drain(order(DrainMode::Close)), Step::ChangeDrain);
        assert_eq!(life, Life::Draining(order(DrainMode::Close)));
    }

    #[test]
    fn who_has_served_nobody_just_leaves() {
        assert_eq!(Life::Waiting.drain(order(DrainMode::Close)), Step::Leave);
    }
}
