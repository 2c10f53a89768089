//! What the core wants done.

use crate::protocol::template::{HookCall, Kind};
use crate::protocol::worker::DrainMode;

use super::event::{ChildId, Generation, Millis, Scope, Ticket};
use super::outcome::{Outcome, Progress};

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
    /// Execute a release. A failure comes back as [`Event::TemplateFailed`](super::event::Event::TemplateFailed).
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
        /// How many workers there are: by now another number may be on its way.
        workers: u32,
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
    /// Say what these children show of themselves: [`Event::Looked`](super::event::Event::Looked).
    Look {
        /// Which.
        children: Vec<ChildId>,
    },
    /// Ask a ready worker whether it is healthy: [`Event::Health`](super::event::Event::Health).
    CheckHealth {
        /// Which.
        child: ChildId,
        /// The how many-th time.
        attempt: u32,
    },
    /// Say what these children have counted: [`Event::Measured`](super::event::Event::Measured).
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
    /// Tell those who have waited longer, for the end of what was left; the log has it already.
    Answer {
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
    /// [`Event::Probed`](super::event::Event::Probed).
    Probe,
    /// The upgrade is over: the new program is not needed any more.
    EndProbe,
    /// Become the new program. A failure comes back as [`Event::NotReplaced`](super::event::Event::NotReplaced).
    ReplaceManager,
    /// Have the master become it.
    ReplaceMaster,
    /// Give way to a manager of the old program, for the master is still that.
    StepDown,
}
