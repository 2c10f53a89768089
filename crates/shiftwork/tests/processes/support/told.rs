//! What commands tell with `--json`. A field that is missing fails the test.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use shiftwork_supervisor::control::latency::Latency;
use shiftwork_supervisor::core::outcome::Progress;

/// What `status --json` promises. A field that is missing fails the test.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) pid: i32,
    pub(crate) state: String,
    pub(crate) progress: Option<Progress>,
    pub(crate) generation: u64,
    pub(crate) release: String,
    pub(crate) uptime_ms: u64,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) releases: Vec<Release>,
    /// All but those below.
    pub(crate) processes: Vec<Process>,
    /// Templates of earlier releases, kept for a rollback: idle, and no part of what serves.
    #[serde(skip)]
    pub(crate) parked: Vec<Process>,
    pub(crate) totals: Value,
}

/// A listener in the status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) protocol: String,
}

/// A release in the status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Release {
    pub(crate) generation: u64,
    pub(crate) release: String,
    pub(crate) state: String,
    pub(crate) executable: PathBuf,
    /// None while it is computed.
    pub(crate) digest: Option<String>,
    pub(crate) started_ms: u64,
}

/// A process in the status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub(crate) role: String,
    pub(crate) worker_id: Option<u32>,
    /// 0 while it is being forked, when the server says null.
    #[serde(deserialize_with = "pid")]
    pub(crate) pid: i32,
    pub(crate) generation: Option<u64>,
    pub(crate) state: String,
    pub(crate) uptime_ms: u64,
    pub(crate) requests: u64,
    pub(crate) in_flight: u64,
    pub(crate) connections: u64,
    pub(crate) tasks: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) restarts: u64,
    pub(crate) latency: Option<Latency>,
}

fn pid<'de, D: serde::Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    Option::<i32>::deserialize(from).map(Option::unwrap_or_default)
}

impl Status {
    /// Processes of a role.
    pub(crate) fn role(&self, role: &str) -> Vec<&Process> {
        self.processes.iter().filter(|process| process.role == role).collect()
    }

    /// Whether all that serves, starts or drains is of the generation in force; a parked template is
    /// no matter.
    pub(crate) fn is_of_one_generation(&self) -> bool {
        let own = |it: &Process| it.generation.is_none_or(|it| it == 0 || it == self.generation);
        self.processes.iter().all(own)
    }

    /// Pids of a role, in one generation.
    pub(crate) fn pids(&self, role: &str, generation: u64) -> Vec<i32> {
        self.role(role)
            .into_iter()
            .filter(|process| process.generation == Some(generation))
            .map(|process| process.pid)
            .collect()
    }

    /// The pid of the only process of a role.
    #[track_caller]
    pub(crate) fn one(&self, role: &str) -> i32 {
        match self.role(role)[..] {
            [process] => process.pid,
            _ => panic!("not one {role}: {self:#?}"),
        }
    }

    /// Where a TCP listener is.
    #[track_caller]
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|listener| listener.name == name);
        let found = found.unwrap_or_else(|| panic!("no listener {name}: {self:#?}"));
        found.address.parse().unwrap_or_else(|_| panic!("{found:?}"))
    }
}

/// What `reload --json` promises.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Reloaded {
    #[serde(skip)]
    pub(crate) code: i32,
    pub(crate) outcome: String,
    pub(crate) generation: u64,
    pub(crate) reason: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) duration_ms: u64,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}
