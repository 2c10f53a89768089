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

    /// Shows the counters of the connections whenever they change.
    pub(super) fn show(&self, registry: &Registry) {
        let own = self.clone();
        registry.counters().mirror(move |counters| own.copy(counters));
    }

    fn copy(&self, counters: &Counters) {
        let row = self.row();
        let in_hand = counters.in_hand();
        row.set_requests(counters.requests().saturating_sub(in_hand));
        row.set_in_flight(in_hand);
        row.set_connections(counters.connections());
        row.set_failures(counters.failures());
        // A blocked worker does not sweep: the first request in hand is the oldest until then.
        match (in_hand, row.oldest_ms()) {
            (0, 1..) => row.set_oldest_ms(0),
            (1.., 0) => row.set_oldest_ms(monotonic_ms()),
            _ => {}
        }
    }

    /// Shows what only a look at all connections can tell.
    pub(super) fn write(&self, registry: &Registry) {
        let now = monotonic_ms();
        let totals = registry.totals();
        let row = self.row();
        self.copy(registry.counters());
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
    }
}
