//! The doors of a worker: those that it began with, and those that it gets or gives up because the
//! number of workers has changed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use shiftwork_supervisor::protocol::worker::DrainMode;
use tokio_util::task::TaskTracker;

use super::accept::{Closing, Door};
use super::connection::Service;
use super::life::DrainOrder;
use super::row::OwnRow;

/// An address, and which of its sockets.
type Key = (String, u32);

/// Everything that this worker accepts on.
#[derive(Debug, Default)]
pub(super) struct Doors {
    running: TaskTracker,
    closings: HashMap<Key, Closing>,
}

impl Doors {
    /// Opens those that are not open yet.
    ///
    /// # Errors
    /// The first one that does not open; the others do.
    pub(super) fn open(
        &mut self,
        doors: Vec<Door>,
        service: &Arc<Service>,
        row: &OwnRow,
        most: u64,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for door in doors {
            let key = (door.address.clone(), door.slot);
            if self.closings.contains_key(&key) {
                continue;
            }
            let closing = Closing::default();
            match door.open(service, row.clone(), most, closing.clone()) {
                Ok(serving) => {
                    self.running.spawn(serving);
                    self.closings.insert(key, closing);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Leaves all but those of these slots to whoever has them now.
    pub(super) fn keep(&mut self, slots: &[u32]) {
        self.closings.retain(|(_, slot), closing| {
            let stays = slots.contains(slot);
            if !stays {
                closing.leave.cancel();
            }
            stays
        });
    }

    /// Stops accepting, as the order says for each address.
    pub(super) fn close(&self, order: &DrainOrder) {
        for ((address, _), closing) in &self.closings {
            let close = order.mode == DrainMode::Close || order.removed.contains(address);
            if close && !order.leave_doors {
                closing.shut.cancel();
            } else {
                closing.leave.cancel();
            }
        }
        self.running.close();
    }

    /// Whether all are closed, and nobody waits behind them.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
