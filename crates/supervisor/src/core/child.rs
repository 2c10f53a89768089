//! One worker or task worker, seen from above.

use crate::protocol::template::Kind;
use serde::{Deserialize, Serialize};

use crate::protocol::worker::DrainMode;

use super::event::{ChildId, Generation, Millis};

/// Where a child is in its life. Each state is entered by exactly one method of [`Child`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Asked of the template; it has no pid yet.
    Forking,
    /// Runs `on_worker_start`.
    Starting,
    /// Could serve, and has not been told to.
    Ready,
    /// Told to serve, not yet accepting.
    Opening,
    /// Accepts.
    Serving,
    /// Finishes what it has; killed when the time is over.
    Draining {
        /// When it is killed.
        kill_at: Millis,
    },
    /// Killed, not yet reaped.
    Killed,
}

/// Why a child was forked, which decides what follows its readiness and its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// For a reload: waits until the reload lets it serve; its failure fails the reload.
    Reload,
    /// Because there are to be more: serves as soon as it can; its failure is that of the change.
    Scale,
    /// In the place of one that died: serves as soon as it can.
    Respawn,
    /// In the place of one that goes on until then.
    Successor {
        /// Drained once this one serves.
        of: ChildId,
    },
}

/// What a draining child was told beside its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// What becomes of open connections.
    pub mode: DrainMode,
    /// Whether a task worker runs what waits, too.
    pub finish_queue: bool,
    /// The guard_time in it, in milliseconds.
    pub guard: Millis,
}

/// A worker or task worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its number.
    pub id: ChildId,
    /// From whose template it was forked.
    pub generation: Generation,
    /// Whose task queue it uses.
    pub queue: Generation,
    /// Worker or task worker.
    pub kind: Kind,
    /// Its worker id.
    pub worker_id: u32,
    /// Why it was forked.
    pub purpose: Purpose,
    /// Where it is.
    pub state: State,
    /// Its pid, once known.
    pub pid: Option<i32>,
    /// When it began to serve.
    pub serving_since: Option<Millis>,
    /// What it said before it failed.
    pub failure: Option<String>,
    /// How it was told to drain, for the case that it has to be told again.
    #[serde(default)]
    pub order: Option<DrainOrder>,
    /// When it is killed unless it is ready by then; None: somebody else minds that.
    #[serde(default)]
    pub ready_by: Option<Millis>,
    /// It is stuck, and is killed at this time ([`Millis::MAX`]: it has been).
    #[serde(default)]
    pub stuck: Option<Millis>,
}

impl Child {
    /// Whether it stands for its slot: forked and not on its way out.
    pub fn is_staying(&self) -> bool {
        !matches!(self.state, State::Draining { .. } | State::Killed)
    }

    /// Whether it accepts.
    pub fn is_serving(&self) -> bool {
        self.state == State::Serving
    }

    /// The template has forked it.
    pub fn forked(&mut self, pid: i32) {
        self.pid = Some(pid);
        if self.state == State::Forking {
            self.state = State::Starting;
        }
    }

    /// It has said that it is ready. Tells whether that was news.
    pub fn ready(&mut self) -> bool {
        let news = matches!(self.state, State::Forking | State::Starting);
        if news {
            self.state = State::Ready;
            self.ready_by = None;
        }
        news
    }

    /// It is told to serve. Tells whether that makes sense now.
    pub fn open(&mut self) -> bool {
        let sense = self.state == State::Ready;
        if sense {
            self.state = State::Opening;
        }
        sense
    }

    /// It has said that it accepts. Tells whether that was news.
    pub fn serving(&mut self, now: Millis) -> bool {
        let news = self.state == State::Opening;
        if news {
            self.state = State::Serving;
            self.serving_since = Some(now);
        }
        news
    }

    /// It is told to drain.
    pub fn drain(&mut self, kill_at: Millis, order: DrainOrder) {
        if self.state != State::Killed {
            self.state = State::Draining { kill_at };
            self.order = Some(order);
        }
    }

    /// It is killed.
    pub fn kill(&mut self) {
        self.state = State::Killed;
    }

    /// How the log names it.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Worker => "worker",
            Kind::TaskWorker => "task worker",
        };
        match self.pid {
            Some(pid) => format!("{kind} {} (gen {}, pid {pid})", self.worker_id, self.generation),
            None => format!("{kind} {} (gen {})", self.worker_id, self.generation),
        }
    }
}
