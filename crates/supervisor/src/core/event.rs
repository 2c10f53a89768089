//! What the core is told, and what it answers with.

use crate::protocol::template::{Hello, HookCall, Kind};
use crate::protocol::worker::{DrainMode, RetireCause};

use super::history::Asked;
use super::outcome::{Outcome, Progress};
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
    /// The answer to [`Action::Look`].
    Looked {
        /// What the children that were asked about show: a number that changes while they turn.
        beats: Vec<(ChildId, u64)>,
    },
    /// The answer to [`Action::CheckHealth`].
    Health {
        /// Which.
        child: ChildId,
        /// As asked.
        attempt: u32,
        /// What is wrong; None: it is healthy.
        failure: Option<String>,
    },
    /// The answer to [`Action::Measure`].
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

/// From where a template is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Executable and settings are opened anew; these overrides come on top of the ones in force.
    Disk {
        /// `KEY=VALUE`s.
        overrides: Vec<String>,
    },
    /// The executable and the snapshot that the generation holds already.
    Held,
}

/// How long a draining process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Until unguarded work is cut.
    pub max_wait: Millis,
    /// After that, until guarded work is cut.
    pub guard: Millis,
}

/// What the manager has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Execute a release. A failure comes back as [`Event::TemplateFailed`].
    SpawnTemplate {
        /// Its generation.
        generation: Generation,
        /// From where.
        source: Source,
    },
    /// Have the master bind what the generation's hello names.
    Bind {
        /// Whose.
        generation: Generation,
    },
    /// Have the master bind again what it may have let go of since the generation was in force, as far
    /// as that is possible; the server's own files stay where they are.
    Rebind {
        /// Whose.
        generation: Generation,
    },
    /// Have the master make sockets for as many slots as [`Core::worker_num`](super::Core::worker_num)
    /// tells, and whatever else so many workers need.
    Widen {
        /// The generation in force.
        generation: Generation,
    },
    /// Tell a worker which sockets it accepts on: the number of workers has changed.
    Doors {
        /// Which.
        child: ChildId,
    },
    /// Let the template run `preload`.
    Load {
        /// Whose.
        generation: Generation,
    },
    /// Have a worker or task worker forked.
    Fork {
        /// Its number.
        child: ChildId,
        /// From whose template.
        generation: Generation,
        /// What it is.
        kind: Kind,
        /// Its worker id.
        worker_id: u32,
        /// The generation whose task queue it uses.
        queue: Generation,
    },
    /// Have a hook run.
    Hook {
        /// Its number.
        child: ChildId,
        /// From whose template.
        generation: Generation,
        /// Which, and what it is told.
        call: HookCall,
    },
    /// Tell a ready child to serve.
    Serve {
        /// Which.
        child: ChildId,
    },
    /// Show to the other workers whether this one is being judged: it adopts only what nobody else
    /// does.
    Trial {
        /// Which.
        child: ChildId,
        /// Whether it is.
        judged: bool,
    },
    /// Tell a child to drain.
    Drain {
        /// Which.
        child: ChildId,
        /// What becomes of connections.
        mode: DrainMode,
        /// Task workers: run what waits too.
        finish_queue: bool,
        /// How long it may take.
        grace: Grace,
    },
    /// Kill a child or hook.
    Kill {
        /// Which.
        child: ChildId,
        /// For the log; None when it is of no interest.
        reason: Option<String>,
    },
    /// Say what these children show of themselves: [`Event::Looked`].
    Look {
        /// Which.
        children: Vec<ChildId>,
    },
    /// Ask a ready worker whether it is healthy: [`Event::Health`].
    CheckHealth {
        /// Which.
        child: ChildId,
        /// The how many-th time.
        attempt: u32,
    },
    /// Say what these children have counted: [`Event::Measured`].
    Measure {
        /// Which.
        children: Vec<ChildId>,
    },
    /// A child is stuck and will be killed: write down where it stands.
    Inspect {
        /// Which.
        child: ChildId,
    },
    /// Tell a template that nothing more is asked.
    ExitTemplate {
        /// Which.
        generation: Generation,
    },
    /// Kill a template.
    KillTemplate {
        /// Which.
        generation: Generation,
    },
    /// This generation is the one to respawn from; listeners that it lacks are let go.
    Commit {
        /// Which.
        generation: Generation,
        /// For what.
        scope: Scope,
    },
    /// Nothing of this generation lives: let go of what is held for it.
    Forget {
        /// Which.
        generation: Generation,
    },
    /// Tell those who wait how far it is.
    Progress {
        /// Who.
        tickets: Vec<Ticket>,
        /// How far.
        progress: Progress,
    },
    /// Tell those who waited what came of it, and the log.
    Finish {
        /// Who.
        tickets: Vec<Ticket>,
        /// What.
        outcome: Outcome,
    },
    /// The stop begins: no new connections are wanted from here on.
    Stopping,
    /// Write a line to the log.
    Log {
        /// Whether it is a warning.
        warning: bool,
        /// The line.
        text: String,
    },
    /// Everything is gone, or the start has failed: leave.
    Exit {
        /// 0 after a stop.
        code: i32,
    },
    /// Have a child of the new program say whether it can go on from here. The answer is
    /// [`Event::Probed`].
    Probe,
    /// The upgrade is over: the new program is not needed any more.
    EndProbe,
    /// Become the new program. A failure comes back as [`Event::NotReplaced`].
    ReplaceManager,
    /// Have the master become it.
    ReplaceMaster,
    /// Give way to a manager of the old program, for the master is still that.
    StepDown,
}
