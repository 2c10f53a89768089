//! The metrics, put together from the slab, the kernel and what the core has decided.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use shiftwork_sys::listen;
use shiftwork_sys::slab::Sums;

use crate::control::Response;
use crate::control::status::Role;
use crate::core::event::Ticket;
use crate::metrics::{AcceptQueue, Metrics, WorkerMetrics, render};
use crate::protocol::template::Kind;

use super::Manager;

impl Manager {
    /// Sends the metrics to whoever asks.
    pub(super) fn send_metrics(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let text = render(self.metrics());
        self.send_long(ticket, &Response::Metrics { text });
    }

    fn metrics(&mut self) -> Metrics {
        let mut workers = BTreeMap::new();
        for (id, process) in &self.processes.children {
            let Some(row) = process.row.map(|row| self.slab.row(row)) else { continue };
            let Some(child) = self.core.child(*id) else { continue };
            let role = match child.kind {
                Kind::Worker => Role::Worker,
                Kind::TaskWorker => Role::TaskWorker,
            };
            let slot = (child.kind, child.worker_id, child.generation);
            workers
                .entry(slot)
                .or_insert_with(|| WorkerMetrics::new(role, child.worker_id, child.generation))
                .add(row);
        }
        Metrics {
            status: self.status(),
            sums: self.sums(),
            workers: workers.into_values().collect(),
            queues: self.accept_queues(),
            tally: self.core.tally().clone(),
            manager_deaths: self.deaths,
        }
    }

    /// Totals of all processes, those that are gone included.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = self.slab.retired();
        for row in self.processes.children.values().filter_map(|it| it.row) {
            sums.merge(&self.slab.row(row).counts.read());
        }
        sums
    }

    /// Unix sockets do not tell the length of theirs.
    fn accept_queues(&self) -> Vec<AcceptQueue> {
        let bound = self.listeners.get(&self.core.generation());
        let tcp = bound.into_iter().flatten().filter(|it| !it.address.starts_with("unix:"));
        tcp.filter_map(|it| {
            let waiting = listen::waiting(it.socket.as_fd()).ok()?;
            Some(AcceptQueue { listener: it.name.clone(), slot: it.slot, waiting })
        })
        .collect()
    }
}
