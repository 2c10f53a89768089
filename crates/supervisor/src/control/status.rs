//! The status: what `status --json` prints.

use serde::{Deserialize, Serialize};

use crate::core::outcome::Progress;

use super::latency::Latency;

/// A server, its addresses and its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's name.
    pub name: String,
    /// The master's pid.
    pub pid: i32,
    /// `starting`, `serving`, `reloading`, `observing`, `rolling_back`, `scaling`, `upgrading` or
    /// `stopping`.
    pub state: String,
    /// How far that is, if it is known: a reload, an upgrade, a rollback, an observation or a
    /// change of number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The generation whose workers serve (0: none yet).
    pub generation: u64,
    /// That generation's release, by the application's own name for it.
    pub release: String,
    /// Since the start, in milliseconds.
    pub uptime_ms: u64,
    /// The addresses.
    pub listeners: Vec<ListenerStatus>,
    /// The generations there are still, the oldest one first.
    #[serde(default)]
    pub releases: Vec<ReleaseStatus>,
    /// Master, manager, templates, workers, task workers, in this order.
    pub processes: Vec<ProcessStatus>,
    /// Sums over all processes, those that are gone included.
    pub totals: Totals,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// The name that the application gave it.
    pub name: String,
    /// The address, with the real port.
    pub address: String,
    /// What is spoken.
    pub protocol: String,
}

/// A generation, and the release that it was started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Its number.
    pub generation: u64,
    /// The application's own name for the release; empty until it has said so.
    pub release: String,
    /// `starting`, `serving`, `draining`, ...
    pub state: String,
    /// Where the executable was.
    pub executable: String,
    /// SHA-256 of the executable, in hexadecimal digits; none for the moment that it takes to compute.
    pub digest: Option<String>,
    /// When it was started: milliseconds since 1970; 0: unknown.
    pub started_ms: u64,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds everything.
    Master,
    /// Starts, watches, replaces.
    Manager,
    /// Forks.
    Template,
    /// Serves.
    Worker,
    /// Runs tasks.
    TaskWorker,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it is.
    pub role: Role,
    /// Workers and task workers only.
    pub worker_id: Option<u32>,
    /// None while it is being forked.
    pub pid: Option<i32>,
    /// None for master and manager.
    pub generation: Option<u64>,
    /// `starting`, `ready`, `serving`, `draining`, `running`, ...; a template that stays for a rollback
    /// is `parked`.
    pub state: String,
    /// Since it began, in milliseconds.
    pub uptime_ms: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests in hand.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u64,
    /// Tasks done.
    pub tasks: u64,
    /// Proportional share of memory (PSS) where the kernel tells it, else resident, in bytes.
    pub memory_bytes: u64,
    /// How often its slot was filled again after a death.
    pub restarts: u64,
    /// How long its requests took since it began; of a task worker: its tasks. None: it has done
    /// nothing yet, or does neither.
    #[serde(default)]
    pub latency: Option<Latency>,
}

/// Sums.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests answered since the start.
    pub requests: u64,
    /// Requests in hand.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u64,
    /// Tasks done since the start.
    pub tasks: u64,
    /// Of all processes that live.
    pub memory_bytes: u64,
    /// Deaths after which a slot was filled again.
    pub restarts: u64,
    /// How long requests took since the start.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// How long tasks took since the start.
    #[serde(default)]
    pub task_latency: Option<Latency>,
}
