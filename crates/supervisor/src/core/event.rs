//! What the core is told.

use crate::protocol::template::Hello;
use crate::protocol::worker::RetireCause;

use super::history::Asked;
use super::sample::Sample;
use super::scale::Wish;

/// Number of a generation, from 1.
pub type Generation = u64;
/// Number of a child process, never used twice.
pub type ChildId = u64;
/// Number of somebody who waits for an answer.
pub type Ticket = u64;
/// Milliseconds of the monotonic clock.
pub type Millis = u64;

/// Which processes a reload replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Workers and task workers (USR1).
    All,
    /// Task workers alone (USR2).
    Tasks,
}

/// When whoever asked for a reload gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Every new worker accepts, every old one is marked.
    Replaced,
    /// And the new generation is the one to respawn from.
    #[default]
    Committed,
    /// And the old generations are gone.
    Drained,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ended {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody was there to see it.
    Unseen,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unseen => write!(f, "has ended, unseen"),
        }
    }
}

/// Something has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Who asks, and when: said before what is asked, for the history alone.
    Asked {
        /// The request's.
        ticket: Ticket,
        /// Who, and what.
        asked: Asked,
    },
    /// Somebody wants a reload.
    Reload {
        /// Who is answered; signals have no ticket.
        ticket: Option<Ticket>,
        /// What is replaced.
        scope: Scope,
        /// `KEY=VALUE`s that hold from now on.
        overrides: Vec<String>,
        /// When the ticket is answered.
        until: Until,
    },
    /// Somebody wants manager and master replaced by the new program, and then a reload.
    Upgrade {
        /// Who is answered.
        ticket: Option<Ticket>,
        /// `KEY=VALUE`s that hold from now on.
        overrides: Vec<String>,
        /// When the ticket is answered.
        until: Until,
    },
    /// Somebody wants more or fewer processes.
    Scale {
        /// Who is answered; signals have no ticket.
        ticket: Option<Ticket>,
        /// How many.
        wish: Wish,
    },
    /// Somebody wants the release before.
    Rollback {
        /// Who is answered.
        ticket: Option<Ticket>,
        /// When.
        until: Until,
    },
    /// The probe has answered whether the new program can go on, or will not.
    Probed {
        /// Why not.
        result: Result<(), String>,
    },
    /// The manager could not become the new program.
    NotReplaced {
        /// Why.
        reason: String,
    },
    /// The master has become the new program, or could not.
    MasterReplaced {
        /// Why not.
        result: Result<(), String>,
    },
    /// Somebody wants a graceful stop.
    Stop,
    /// Somebody wants the stop that was asked for to begin now, and, if it has, to end at once.
    Hurry,
    /// Somebody wants a stop at once.
    Quit,
    /// The master is gone: drain and leave.
    MasterGone,
    /// A worker asks to be replaced.
    Retire {
        /// Which.
        child: ChildId,
        /// Why; to be counted.
        cause: RetireCause,
        /// The same for the log.
        reason: String,
    },
    /// A template has said what its release is.
    Hello {
        /// Its generation.
        generation: Generation,
        /// What it said.
        hello: Box<Hello>,
    },
    /// The master has bound the addresses of a generation.
    Bound {
        /// Whose.
        generation: Generation,
    },
    /// The master could not.
    NotBound {
        /// Whose.
        generation: Generation,
        /// For the operator.
        reason: String,
    },
    /// `preload` has returned.
    Loaded {
        /// Whose.
        generation: Generation,
    },
    /// A template gives up, or could not even be executed.
    TemplateFailed {
        /// Its generation.
        generation: Generation,
        /// For the operator.
        reason: String,
    },
    /// A template process is gone.
    TemplateGone {
        /// Its generation.
        generation: Generation,
        /// How.
        ended: Ended,
    },
    /// A child has a pid now.
    Forked {
        /// Which.
        child: ChildId,
        /// Its pid.
        pid: i32,
    },
    /// A child could not be forked.
    NotForked {
        /// Which.
        child: ChildId,
        /// For the operator.
        reason: String,
    },
    /// `on_worker_start` has returned.
    Ready {
        /// Which.
        child: ChildId,
    },
    /// `on_worker_start` has failed; the process exits next.
    Failed {
        /// Which.
        child: ChildId,
        /// For the operator.
        reason: String,
    },
    /// The answer to [`Action::Look`](super::action::Action::Look).
    Looked {
        /// What the children that were asked about show: a number that changes while they turn.
        beats: Vec<(ChildId, u64)>,
    },
    /// The answer to [`Action::CheckHealth`](super::action::Action::CheckHealth).
    Health {
        /// Which.
        child: ChildId,
        /// As asked.
        attempt: u32,
        /// What is wrong; None: it is healthy.
        failure: Option<String>,
    },
    /// The answer to [`Action::Measure`](super::action::Action::Measure).
    Measured {
        /// What the children that were asked about have counted.
        samples: Vec<(ChildId, Sample)>,
    },
    /// A worker accepts.
    Serving {
        /// Which.
        child: ChildId,
    },
    /// A child or hook process is gone.
    Gone {
        /// Which.
        child: ChildId,
        /// How.
        ended: Ended,
        /// Whether tasks wait in the queue that it took tasks from.
        tasks_wait: bool,
    },
    /// A new manager goes on where one that is gone has stopped writing.
    TakenUp {
        /// Its pid.
        manager: i32,
        /// Whether it is the new program in the place of the old one, as was asked.
        planned: bool,
        /// Children and hooks whose birth nobody has written down.
        nameless: Vec<ChildId>,
    },
    /// A deadline may have passed.
    Tick,
}
