//! What is said over the control socket: one JSON object a line, both ways.

pub mod client;
pub mod latency;
pub mod status;

use serde::{Deserialize, Serialize};

use crate::core::event::{Scope, Until};
use crate::core::history::Entry;
use crate::core::outcome::{Outcome, Progress};
use crate::core::scale::{Count, Wish};
use status::Status;

/// A request; one per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Replace code and settings.
    Reload {
        /// Which processes.
        #[serde(default = "all")]
        scope: Scope,
        /// `KEY=VALUE`s that hold from now on.
        #[serde(default)]
        set: Vec<String>,
        /// When to answer.
        #[serde(default)]
        until: Until,
    },
    /// Replace manager and master by the program on the disk, then code and settings.
    Upgrade {
        /// `KEY=VALUE`s that hold from now on.
        #[serde(default)]
        set: Vec<String>,
        /// When to answer.
        #[serde(default)]
        until: Until,
    },
    /// Go back to the release before, which must be kept still.
    Rollback {
        /// When to answer.
        #[serde(default)]
        until: Until,
    },
    /// Have more or fewer processes, until the settings say another number than now.
    Scale {
        /// Workers; none: as many as there are.
        #[serde(default)]
        workers: Option<Count>,
        /// Task workers; none: as many as there are.
        #[serde(default)]
        task_workers: Option<Count>,
    },
    /// Stop the server.
    Stop {
        /// At once: what is in hand is cut.
        #[serde(default)]
        now: bool,
    },
    /// Tell how things are.
    Status {},
    /// Tell what was asked for before, and what came of it.
    History {},
    /// Tell it in numbers.
    Metrics {},
}

impl From<Wish> for Request {
    fn from(it: Wish) -> Self {
        Self::Scale { workers: it.workers, task_workers: it.task_workers }
    }
}

fn all() -> Scope {
    Scope::All
}

/// The last reloads, upgrades, changes of number, and the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// At most [`MOST_ENTRIES`](crate::core::history::MOST_ENTRIES), the oldest one first.
    pub entries: Vec<Entry>,
}

/// A line of the answer; the last one is anything but `Progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Response {
    /// How far a reload is.
    Progress(Progress),
    /// What it came to.
    Outcome(Outcome),
    /// How things are.
    Status(Box<Status>),
    /// What was asked for before.
    History(History),
    /// The same in numbers.
    Metrics {
        /// In the OpenMetrics text format, which Prometheus reads.
        text: String,
    },
    /// The stop has begun; it is over when this process is gone.
    Stopping {
        /// The master's pid.
        pid: i32,
    },
    /// The request was refused.
    Refused {
        /// Why.
        reason: String,
        /// Whether because of who asked.
        not_permitted: bool,
    },
}
