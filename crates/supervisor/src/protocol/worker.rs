//! Manager ↔ worker or task worker, over the control socket that each has of its own.
//!
//! Life of a worker as both sides see it:
//! `Give`… `Begin` → (on_worker_start) → `Ready` → (`Probe` → `Health`) → `Serve` → `Serving` → `Drain` → exit 0.
//! End of file means that manager and master are gone: close the listeners, drain, exit.

use serde::{Deserialize, Serialize};

use super::template::Kind;

/// A descriptor that the manager gives to a process, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// The shared slab (a memfd).
    Slab,
    /// The log; taken for stdout and stderr when ready, or at once when given later.
    Log,
    /// Where draining workers put connections (SOCK_SEQPACKET, the sending end).
    HandOverSend,
    /// Where serving workers take connections (the receiving end).
    HandOverReceive,
    /// Where workers put tasks (SOCK_SEQPACKET, the sending end).
    TaskSend,
    /// Where task workers take tasks (the receiving end).
    TaskReceive,
    /// Where the owner of reply socket `index` reads answers (SOCK_SEQPACKET).
    ReplyReceive {
        /// Number of the reply socket in its generation.
        index: u32,
    },
    /// Where task workers write the answers for the owner of reply socket `index`.
    ReplySend {
        /// Number of the reply socket in its generation.
        index: u32,
    },
    /// A bound socket. `listen` is called by whoever accepts on it first.
    Listener {
        /// The listener's name.
        name: String,
        /// The address it is bound to, with the real port.
        address: String,
        /// Length of the queue for `listen`.
        backlog: u32,
        /// Its slot.
        #[serde(default)]
        slot: u32,
    },
}

/// Everything a process has to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// What it is.
    pub kind: Kind,
    /// Its worker id.
    pub worker_id: u32,
    /// Its generation.
    pub generation: u64,
    /// Its row in the slab.
    pub row: u32,
    /// Pid of the master.
    pub master_pid: i32,
    /// Pid of the manager.
    pub manager_pid: i32,
    /// Format in which it writes connections that it hands over.
    pub hand_over_format: u8,
}

/// Where the connections of a draining worker go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainMode {
    /// A reload or a retirement: others go on accepting, connections are handed over.
    HandOver,
    /// A stop: the accept queues are emptied and answered, idle connections closed.
    Close,
}

/// Manager → worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// With one descriptor.
    Give(Resource),
    /// All is given: run `on_worker_start`, then say `Ready`.
    Begin(Begin),
    /// Say whether you are healthy: call your own service, as the settings say, and the application's
    /// check.
    Probe {
        /// Echoed in [`FromWorker::Health`].
        attempt: u32,
    },
    /// Start accepting (task worker: start taking tasks), then say `Serving`.
    Serve,
    /// Accept on the listeners of these slots, all of which have been given, and leave the others to
    /// whoever has them now.
    Doors {
        /// The slots.
        slots: Vec<u32>,
    },
    /// Stop accepting, finish what is in hand, hand over or close the rest, exit 0.
    /// Sent again, it replaces the deadlines (zero: now).
    Drain {
        /// What becomes of open connections.
        mode: DrainMode,
        /// Addresses that the next generation no longer has: their queue is emptied and
        /// answered first, whatever the mode.
        removed: Vec<String>,
        /// Names of listeners that the next generation no longer has: their connections are
        /// finished and closed, since nobody could take them.
        gone: Vec<String>,
        /// Task workers: run what waits in the queue too, until it is empty.
        finish_queue: bool,
        /// Milliseconds until unguarded work is cut.
        max_wait_ms: u64,
        /// Milliseconds after that until guarded work is cut.
        guard_ms: u64,
    },
    /// A task of this process was in a task worker that died.
    TaskLost {
        /// As the sender numbered it.
        task: u64,
    },
    /// Answer to [`FromWorker::Ask`].
    Answer {
        /// As asked.
        ticket: u64,
        /// JSON of what the control socket would have answered.
        json: String,
    },
    /// Another manager has taken up where the last one died: say again where you stand.
    TakenUp {
        /// Its pid.
        manager_pid: i32,
    },
}

/// Why a process wants to be replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireCause {
    /// It has served `max_request` requests, or run `task_max_request` tasks.
    MaxRequest,
    /// More than `max_memory` is its own.
    MaxMemory,
    /// It is older than `max_lifetime`.
    MaxLifetime,
    /// It was told to with TERM.
    Signal,
    /// Something that only another version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What application code in a worker may ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// As the command `reload`.
    Reload,
    /// As the command `stop`.
    Shutdown,
    /// As the command `status`.
    Stats,
}

/// Worker → manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// `on_worker_start` has returned.
    Ready,
    /// This process cannot start, and why. Exits next.
    Failed {
        /// For the operator.
        reason: String,
    },
    /// Answer to [`ToWorker::Probe`].
    Health {
        /// As asked.
        attempt: u32,
        /// What is wrong, for the operator; None: it is healthy.
        failure: Option<String>,
    },
    /// Accepting.
    Serving,
    /// Please replace me (TERM was received, max_request reached, ...), then drain me.
    Retire {
        /// Why; for the metrics.
        #[serde(default)]
        cause: RetireCause,
        /// The same for the log.
        reason: String,
    },
    /// Application code asks; answered with [`ToWorker::Answer`].
    Ask {
        /// Echoed in the answer.
        ticket: u64,
        /// What.
        ask: Ask,
    },
}
