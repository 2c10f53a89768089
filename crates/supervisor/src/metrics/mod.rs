//! Metrics: everything that the server counts, as it stands at one moment.
//!
//! The manager takes it in ([`Metrics`]), [`render`] writes it down for Prometheus.

mod families;
mod render;

pub use render::render;

use shiftwork_sys::slab::{Row, Sums};

use crate::control::status::{Role, Status};
use crate::core::tally::Tally;

/// The media type of what [`render`] writes.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is written down.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The server and its processes.
    pub status: Status,
    /// Totals over all processes, those that are gone included.
    pub sums: Sums,
    /// What the processes that live have counted themselves.
    pub workers: Vec<WorkerMetrics>,
    /// Connections that wait to be accepted.
    pub queues: Vec<AcceptQueue>,
    /// What the manager has decided.
    pub tally: Tally,
    /// Managers that have died and were replaced.
    pub manager_deaths: u64,
}

/// A worker or task worker; while it is replaced within its generation, it and its successor
/// together.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    /// Which of the two.
    pub role: Role,
    /// Its slot.
    pub worker_id: u32,
    /// Its generation.
    pub generation: u64,
    /// Its own totals.
    pub sums: Sums,
    /// Requests, or tasks, in hand.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u64,
    /// Tasks that it has sent and that are not answered.
    pub tasks_unanswered: u64,
}

impl WorkerMetrics {
    /// One that has not counted anything.
    #[must_use]
    pub fn new(role: Role, worker_id: u32, generation: u64) -> Self {
        Self {
            role,
            worker_id,
            generation,
            sums: Sums::default(),
            in_flight: 0,
            connections: 0,
            tasks_unanswered: 0,
        }
    }

    /// Adds what a process shows.
    pub fn add(&mut self, row: &Row) {
        self.sums.merge(&row.counts.read());
        self.in_flight += row.in_flight();
        self.connections += row.connections();
        self.tasks_unanswered += row.tasks_unanswered();
    }
}

/// The accept queue of one listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptQueue {
    /// The listener's name.
    pub listener: String,
    /// The slot whose socket it is.
    pub slot: u32,
    /// Connections that wait.
    pub waiting: u32,
}
