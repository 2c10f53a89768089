//! What follows when a process is gone.

use crate::protocol::template::{HookName, Kind, WorkerDeath};

use super::child::{Child, Purpose, State};
use super::event::{ChildId, Ended, Generation, Scope};
use super::forks::Respawn;
use super::tally::Cause;
use super::{Core, Phase};

impl Core {
    /// A child has said why it cannot start; its end follows.
    pub(super) fn failed(&mut self, id: ChildId, reason: String) {
        if let Some(child) = self.children.get_mut(&id) {
            child.failure = Some(reason);
        }
    }

    /// A child's or a hook's process has been reaped.
    pub(super) fn gone(&mut self, id: ChildId, ended: Ended, tasks_wait: bool) {
        if self.hooks.contains_key(&id) {
            self.hook_gone(id, super::hooks::hook_failure(ended));
            return;
        }
        let Some(child) = self.children.remove(&id) else { return };
        if !child.is_staying() {
            self.left(&child, ended, tasks_wait);
            return;
        }
        let how = child.failure.clone().unwrap_or_else(|| match child.state {
            State::Forking | State::Starting => format!("{ended} before it was ready"),
            _ => ended.to_string(),
        });
        let death = WorkerDeath {
            kind: child.kind,
            worker_id: child.worker_id,
            pid: child.pid.unwrap_or(0),
            exit_code: if let Ended::Code(code) = ended { Some(code) } else { None },
            signal: if let Ended::Signal(signal) = ended { Some(signal) } else { None },
        };
        let generation = child.generation;
        self.count_crash(&child, &how);
        self.died(child, &how, tasks_wait);
        let _ = self.run_hook(generation, HookName::OnWorkerError, Some(death));
    }

    /// A child that was on its way out anyway has left.
    fn left(&mut self, child: &Child, ended: Ended, tasks_wait: bool) {
        if ended != Ended::Code(0) && child.state != State::Killed {
            self.warn(format!("{} {ended} while draining", child.name()));
            // It would have run what waits; nobody else may be there to do it.
            let taken = self.children.values().any(|it| {
                it.kind == Kind::TaskWorker && it.queue == child.queue && it.is_staying()
            });
            if child.kind == Kind::TaskWorker && tasks_wait && !taken {
                self.respawn_now(child.generation, child.queue, child.kind, child.worker_id);
            }
        }
    }

    /// A child that should have stayed is gone.
    pub(super) fn died(&mut self, child: Child, how: &str, tasks_wait: bool) {
        if self.fails_run(child.generation, child.purpose) {
            let opened = child.state == State::Opening || child.serving_since.is_some();
            if matches!(self.phase, Phase::Proving(_)) && opened {
                self.fail_run(format!(
                    "it has crashed while it proved itself: {}: {how}",
                    child.name()
                ));
                return;
            }
            if !opened {
                self.fail_run(format!("{}: {how}", child.name()));
                return;
            }
        }
        if self.fails_scaling(&child) {
            self.fail_scaling(&format!("{}: {how}", child.name()));
            return;
        }
        let needed = self.is_needed(&child) || (child.kind == Kind::TaskWorker && tasks_wait);
        if !needed {
            return;
        }
        let successor = Purpose::Successor { of: child.id };
        let succeeded = self.children.values().any(|it| it.purpose == successor && it.is_staying())
            || self.respawns.iter().any(|it| it.purpose == successor);
        let lived = child.serving_since.map(|since| self.now.saturating_sub(since));
        let slot = (child.generation, child.kind, child.worker_id);
        let backoff = self.backoffs.entry(slot).or_default();
        let wait = backoff.died(lived);
        let deaths = backoff.deaths();
        let line = if wait == 0 {
            format!("{} {how}; it is replaced at once", child.name())
        } else {
            format!("{} {how}; death {deaths} in a row, it is replaced in {wait} ms", child.name())
        };
        self.warn(line);
        let cause = if child.stuck.is_some() { Cause::Stuck } else { Cause::Crash };
        self.tally.respawned(child.kind, cause);
        if succeeded {
            return;
        }
        let purpose = match child.purpose {
            Purpose::Successor { of } if self.children.contains_key(&of) => child.purpose,
            _ => Purpose::Respawn,
        };
        self.respawns.push(Respawn {
            due: self.now + wait,
            generation: child.generation,
            queue: child.queue,
            kind: child.kind,
            worker_id: child.worker_id,
            purpose,
        });
    }

    /// Whether a slot has to be filled from this generation.
    fn is_needed(&self, child: &Child) -> bool {
        if self.returns(child) {
            return true;
        }
        let reloading = match &self.phase {
            Phase::Replacing(run) => Some(run),
            Phase::Stopping(_) if child.kind == Kind::Worker => return false,
            Phase::Stopping(stop) if stop.is_over_for_tasks() => return false,
            _ => None,
        };
        let in_run = reloading.is_some_and(|run| run.generation == child.generation && run.opened);
        match child.kind {
            Kind::Worker => {
                // A slot that the reload has taken already is not given back by a crash.
                let taken = reloading.is_some_and(|run| {
                    run.scope == Scope::All
                        && run.generation != child.generation
                        && child.worker_id < run.batch
                });
                in_run || (self.workers == Some(child.generation) && !taken)
            }
            Kind::TaskWorker => {
                in_run
                    || (self.tasks == Some(child.generation) && self.workers == Some(child.queue))
                    || self.has_senders(child.queue)
            }
        }
    }

    /// Whether workers live that put tasks into this generation's queue.
    pub(super) fn has_senders(&self, queue: Generation) -> bool {
        self.children.values().any(|it| it.kind == Kind::Worker && it.generation == queue)
    }
}
