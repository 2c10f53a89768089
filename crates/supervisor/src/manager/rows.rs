//! Which row of the slab belongs to whom, and the sums of those who are gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shiftwork_sys::slab::Slab;

use crate::protocol::template::Kind;

/// Row of the master.
pub const MASTER: u32 = 0;
/// Row of the manager.
pub const MANAGER: u32 = 1;

/// The rows that are free, and how often each slot was filled again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The first row that was never used.
    fresh: u32,
    /// Used before, and free again.
    free: Vec<u32>,
    #[serde(with = "crate::pairs")]
    restarts: BTreeMap<(Kind, u32), u64>,
}

impl Rows {
    /// All rows but those of master and manager are free.
    pub fn new() -> Self {
        Self { fresh: MANAGER + 1, free: Vec::new(), restarts: BTreeMap::new() }
    }

    /// Takes a row and clears it.
    pub fn take(&mut self, slab: &Slab) -> Option<u32> {
        let row = match self.free.pop() {
            Some(row) => row,
            None if self.fresh < slab.rows() => {
                self.fresh += 1;
                slab.set_used(self.fresh);
                self.fresh - 1
            }
            None => return None,
        };
        slab.row(row).clear();
        Some(row)
    }

    /// Adds a row's counters to those of the dead, and frees it.
    pub fn free(&mut self, slab: &Slab, row: u32) {
        slab.retire(row);
        self.free.push(row);
    }

    /// Notes that a slot was filled again after a death.
    pub fn restarted(&mut self, kind: Kind, worker_id: u32) {
        *self.restarts.entry((kind, worker_id)).or_default() += 1;
    }

    /// The same over all slots.
    pub fn all_restarts(&self) -> u64 {
        self.restarts.values().sum()
    }

    /// How often a slot was filled again after a death.
    pub fn restarts(&self, kind: Kind, worker_id: u32) -> u64 {
        self.restarts.get(&(kind, worker_id)).copied().unwrap_or(0)
    }
}
