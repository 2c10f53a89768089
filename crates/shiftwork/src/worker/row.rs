//! This process's row in the shared slab: what status shows of it.

use std::sync::Arc;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::slab::{Row, Slab};

use crate::conn::Registry;

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

    /// Copies the counters of the connections.
    pub(super) fn write(&self, registry: &Registry) {
        let now = monotonic_ms();
        let totals = registry.totals();
        let row = self.row();
        row.set_requests(totals.requests.saturating_sub(totals.in_hand));
        row.set_in_flight(totals.in_hand);
        row.set_connections(totals.connections);
        row.set_failures(totals.failures);
        row.set_oldest_ms(totals.oldest.map_or(0, |age| {
            now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(0)).max(1)
        }));
        row.set_heartbeat_ms(now);
    }

    pub(super) fn beat(&self) {
        self.row().set_heartbeat_ms(monotonic_ms());
    }

    pub(super) fn drains(&self) {
        self.row().set_draining(1);
    }
}
