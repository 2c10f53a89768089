//! Master ↔ manager, over a SOCK_SEQPACKET pair made before the manager is forked.
//!
//! What the manager holds that must outlive it, the master keeps a duplicate of ([`Keepsake`]). A
//! manager that dies is followed by another one: it is given all keepsakes, then `TakeUp`, goes on
//! from the journal among them, and says `TakenUp`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::template::{ListenerSpec, Snapshot};
use crate::core::event::{ChildId, Ended, Generation, Millis, Scope, Ticket, Until};
use crate::core::history::{Asked, Requester, What};
use crate::core::outcome::{Outcome, Progress};
use crate::core::scale::Wish;
use crate::places::Places;
use crate::settings::LogLevel;

/// The ticket of the first start, which nobody asked for.
pub const START: Ticket = 0;

/// What stays the same from release to release: how the server was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The executable, absolute, its links unresolved.
    pub executable: PathBuf,
    /// The arguments of the start, the program's name first.
    pub arguments: Vec<OsString>,
}

/// What a manager has to know that goes by nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The server's name.
    pub name: String,
    /// How the server was started.
    pub origin: Origin,
    /// The settings of the start.
    pub snapshot: Snapshot,
    /// `start_timeout` until the first release has said its own.
    pub start_timeout: Duration,
    /// What is logged.
    pub log_level: LogLevel,
}

/// A descriptor, or some, that the master keeps for whichever manager there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keepsake {
    /// What the manager has written down.
    Journal,
    /// The program that manager and master are to become.
    Program,
    /// The queue of connections under way between workers: sending and receiving end.
    HandOver,
    /// The control socket of a template.
    Template(Generation),
    /// What a template writes until it is loaded.
    TemplateOutput(Generation),
    /// The control socket of a worker or task worker.
    Child(ChildId),
    /// What a child or hook writes until it is ready.
    ChildOutput(ChildId),
    /// A release: executable and snapshot.
    Release(Generation),
    /// A generation's task queue: sending and receiving end.
    Queue(Generation),
    /// One of its reply sockets: sending and receiving end.
    Reply(Generation, u32),
}

impl Keepsake {
    /// The generation with whose end it is of no use any more.
    pub fn generation(self) -> Option<Generation> {
        match self {
            Self::Release(it) | Self::Queue(it) | Self::Reply(it, _) => Some(it),
            _ => None,
        }
    }
}

/// What can be asked of the server, by command or by signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Replace workers and task workers, or these alone.
    Reload {
        /// Which processes.
        scope: Scope,
        /// `KEY=VALUE`s that hold from now on.
        overrides: Vec<String>,
        /// When to answer.
        until: Until,
    },
    /// Replace manager and master by the program on the disk, then reload.
    Upgrade {
        /// `KEY=VALUE`s that hold from now on.
        overrides: Vec<String>,
        /// When to answer.
        until: Until,
    },
    /// Go back to the release before.
    Rollback {
        /// When to answer.
        until: Until,
    },
    /// Have more or fewer processes.
    Scale(Wish),
    /// Finish what is in hand, then leave; after `pre_stop_delay`.
    Stop,
    /// It was asked for a second time: the delay is over; if it was already, leave now.
    Hurry,
    /// Leave now.
    Quit,
    /// Tell how things are.
    Status,
    /// Tell what was asked for before.
    History,
    /// Tell how things are in numbers.
    Metrics,
}

impl Verb {
    /// What the history is to know of it; None: nothing.
    pub fn asked(&self, at_ms: u64, by: Requester) -> Option<Asked> {
        Some(match self {
            Self::Reload { scope: Scope::All, overrides, .. } => {
                Asked::new(at_ms, by, What::Reload, overrides)
            }
            Self::Reload { scope: Scope::Tasks, overrides, .. } => {
                Asked::new(at_ms, by, What::ReloadTasks, overrides)
            }
            Self::Upgrade { overrides, .. } => Asked::new(at_ms, by, What::Upgrade, overrides),
            Self::Rollback { .. } => Asked::new(at_ms, by, What::Rollback, &[]),
            Self::Scale(wish) => {
                Asked { wish: Some(*wish), ..Asked::new(at_ms, by, What::Scale, &[]) }
            }
            Self::Stop
            | Self::Hurry
            | Self::Quit
            | Self::Status
            | Self::History
            | Self::Metrics => return None,
        })
    }
}

/// Master → manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToManager {
    /// Somebody asks.
    Verb {
        /// Who is answered; None: nobody.
        ticket: Option<Ticket>,
        /// What is asked.
        verb: Verb,
        /// By whom, as far as the history is to know.
        #[serde(default)]
        asked: Option<Asked>,
    },
    /// A duplicate of a socket that the vault holds. Descriptor: the socket.
    Listener {
        /// For which generation.
        generation: Generation,
        /// The listener's name.
        name: String,
        /// The address it is bound to, with the real port.
        address: String,
        /// Its slot.
        slot: u32,
    },
    /// All listeners of a generation have been sent.
    Bound {
        /// Whose.
        generation: Generation,
    },
    /// An address could not be bound; the generation holds nothing new.
    NotBound {
        /// Whose.
        generation: Generation,
        /// For the operator.
        reason: String,
    },
    /// The log was reopened. Descriptor: the log.
    Log,
    /// Left by a manager that is gone. Descriptors: as they were given to be kept.
    Kept {
        /// What it is.
        what: Keepsake,
    },
    /// All that was kept is given: go on.
    TakeUp {
        /// Managers that have died before.
        deaths: u64,
        /// Whether the manager is another program in the old one's place, as was asked.
        #[serde(default)]
        planned: bool,
    },
    /// Answer to [`FromManager::Describe`]. Descriptor: the master's state, a memfd.
    Described,
    /// Answer to [`FromManager::Resume`]. Descriptors: slab, log. All keepsakes follow.
    Seed(Box<Seed>),
    /// The master is the new program now, or could not become it.
    MasterReplaced {
        /// Why not.
        refusal: Option<String>,
    },
    /// Say something, to show that you do.
    Ping,
    /// A child of an earlier manager, which has become the master's, has ended.
    Reaped {
        /// Its pid.
        pid: i32,
        /// How.
        ended: Ended,
    },
}

/// Manager → master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromManager {
    /// Keep duplicates of these descriptors, for when this manager dies.
    Keep {
        /// What they are.
        what: Keepsake,
    },
    /// This is not needed any more.
    LetGo {
        /// What.
        what: Keepsake,
    },
    /// Tell what a new program would have to go on from.
    Describe,
    /// Another program is the manager now, in the same process.
    Resume,
    /// Become the program that was kept, too.
    ReplaceMaster,
    /// This manager goes on where the one before has stopped.
    TakenUp {
        /// Those who wait for an answer, as far as the one before had written it down. Whatever
        /// else has been asked has to be asked again.
        waiting: Vec<Ticket>,
    },
    /// Bind these addresses for a generation.
    Bind {
        /// Whose.
        generation: Generation,
        /// The addresses.
        listeners: Vec<ListenerSpec>,
        /// Sockets per address.
        slots: u32,
        /// Where the server's own files are to be once it is committed; None: where they are.
        #[serde(default)]
        places: Option<Places>,
        /// Whether it was in force before and comes back: what of it cannot be bound is named in the
        /// log, and the rest is enough.
        #[serde(default)]
        again: bool,
        /// File mode mask for Unix sockets that are made for it, octal; None: the master's own.
        #[serde(default)]
        umask: Option<String>,
    },
    /// This generation is in force.
    Commit {
        /// Which.
        generation: Generation,
        /// For what; listeners are let go only with [`Scope::All`].
        scope: Scope,
        /// Whether a stop that is asked for does not begin at once.
        #[serde(default)]
        delays_stop: bool,
        /// What the master logs from now on; None: what it logs.
        #[serde(default)]
        log_level: Option<LogLevel>,
        /// How long the manager may be silent when it is asked, in milliseconds; 0: for ever.
        #[serde(default)]
        heartbeat: Millis,
    },
    /// Nothing of this generation lives.
    Forget {
        /// Which.
        generation: Generation,
    },
    /// How far a reload is.
    Progress {
        /// Who asked.
        ticket: Ticket,
        /// How far.
        progress: Progress,
    },
    /// What a reload, or the start, came to.
    Finish {
        /// Who asked.
        ticket: Ticket,
        /// What it came to.
        outcome: Outcome,
    },
    /// The status, the history or the metrics. Descriptor: a line of the control protocol, in a
    /// memfd.
    Status {
        /// Who asked.
        ticket: Ticket,
    },
    /// The stop begins: what was asked for has waited for `pre_stop_delay`, or a worker's
    /// application has asked.
    Stopping,
    /// The manager's own pid was sent a signal: a request to its parent.
    Signal {
        /// Which.
        signo: i32,
        /// Who has sent it.
        #[serde(default)]
        pid: i32,
        /// As which user.
        #[serde(default)]
        uid: u32,
    },
    /// This manager turns, as it was asked.
    Pong,
    /// All processes are gone; the manager exits next.
    Stopped {
        /// Exit status for the master.
        code: i32,
    },
}
