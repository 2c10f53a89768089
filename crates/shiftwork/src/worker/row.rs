//! This process's row in the shared slab: what status shows of it.

use std::sync::Arc;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::slab::{Row, Slab};

use crate::conn::{Counters, Registry};

/// A row, written by this process alone.
#[derive(Debug, Clone)]
pub(super) struct OwnRow {
    slab: Arc<Slab>,
    number: u32,
}

impl OwnRow {
    pub(super) fn new(slab: Arc<Slab>, number: u32) -> Self {
        Self { slab, number }
    }

    fn row(&self) -> &Row {
        self.slab.row(self.number)
    }

    /// What the connections of this worker are counted in.
    pub(super) fn counters(&self) -> Counters {
        Counters::shown(Arc::clone(&self.slab), self.number)
    }

    /// Shows what only a look at everything can tell.
    pub(super) fn write(&self, registry: &Registry, tasks_unanswered: usize) {
        let now = monotonic_ms();
        let totals = registry.totals();
        let row = self.row();
        row.set_tasks_unanswered(tasks_unanswered as u64);
        row.set_oldest_ms(totals.oldest.map_or(0, |age| {
            now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(0)).max(1)
        }));
    }

    /// Shows that the loop turns: whoever watches wants to see another number every second.
    pub(super) fn beat(&self) {
        self.row().set_heartbeat_ms(monotonic_ms());
    }

    /// Whether the manager, or this process itself, has marked it as draining.
    pub(super) fn is_marked(&self) -> bool {
        self.row().draining() != 0
    }

    pub(super) fn drains(&self) {
        self.row().set_draining(1);
        self.row().set_adopts(0);
    }

    /// This process takes up connections from now on.
    pub(super) fn adopts(&self) {
        self.row().set_adopts(1);
    }

    /// Its own open connections.
    pub(super) fn connections(&self) -> u64 {
        self.row().connections()
    }

    /// Whether this worker is a canary that is being judged.
    pub(super) fn is_on_trial(&self) -> bool {
        self.row().on_trial() == 1
    }

    /// The other processes that take up connections, a canary that is being judged aside: their rows,
    /// and how many each has open.
    pub(super) fn other_adopters(&self) -> impl Iterator<Item = (u32, u64)> {
        (0..self.slab.used()).filter(|number| *number != self.number).filter_map(|number| {
            let row = self.slab.row(number);
            let adopts = row.adopts() == 1 && row.draining() == 0 && row.on_trial() == 0;
            adopts.then(|| (number, row.connections()))
        })
    }
}
