//! The stop: workers, then task workers, then `on_shutdown`, then templates, then the exit.

use crate::protocol::template::{HookName, Kind};
use crate::protocol::worker::DrainMode;
use serde::{Deserialize, Serialize};

use super::action::{Action, Grace};
use super::child::{DrainOrder, State};
use super::event::{ChildId, Millis};
use super::generation::Template;
use super::outcome::Verdict;
use super::{Core, Phase, millis};

/// Beyond its deadlines a process has this long to log what it cut and to exit.
pub(super) const LAST_WORDS: Millis = 2_000;

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Workers,
    TaskWorkers,
    Hook { child: Option<ChildId> },
    Templates,
    Left,
}

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stop {
    stage: Stage,
    code: i32,
    /// When unguarded work is cut.
    deadline: Millis,
    guard: Millis,
}

impl Stop {
    /// A start that has failed ends without anything to wait for.
    pub(super) fn failed_start() -> Self {
        Self { stage: Stage::Workers, code: 1, deadline: 0, guard: 0 }
    }

    pub(super) fn is_over_for_tasks(&self) -> bool {
        !matches!(self.stage, Stage::Workers | Stage::TaskWorkers)
    }
}

impl Core {
    /// Finish what is in hand, then leave; but first go on as before for `pre_stop_delay`, so that
    /// balancers learn of it.
    pub(super) fn stop_asked(&mut self) {
        if self.is_stopping() || self.stop_at.is_some() {
            return;
        }
        let delay = self.settings().map_or(0, |it| millis(it.pre_stop_delay));
        if delay == 0 {
            self.stop_now();
        } else {
            self.log(format!("stopping in {delay} ms (pre_stop_delay), serving until then"));
            self.stop_at = Some(self.now + delay);
        }
    }

    /// The delay is over.
    pub(super) fn stop_now(&mut self) {
        if !self.is_stopping() {
            let grace = self.grace_of(self.generation());
            self.begin_stop(grace);
        }
    }

    /// Asked once more: no more delay, or no more grace.
    pub(super) fn hurry_asked(&mut self) {
        if self.stop_at.is_some() {
            self.stop_now();
        } else {
            self.quit_asked();
        }
    }

    pub(super) fn pass_stop_delay(&mut self) {
        if self.stop_at.is_some_and(|at| at <= self.now) {
            self.stop_now();
        }
    }

    /// Leave now: what is in hand is cut and logged.
    pub(super) fn quit_asked(&mut self) {
        self.begin_stop(Grace { max_wait: 0, guard: 0 });
        let templates: Vec<_> =
            self.generations.iter().filter(|(_, it)| it.has_template()).map(|(n, _)| *n).collect();
        for generation in templates {
            self.out.push(Action::KillTemplate { generation });
        }
    }

    fn begin_stop(&mut self, grace: Grace) {
        self.stop_at = None;
        self.out.push(Action::Stopping);
        self.log(if grace.max_wait == 0 { "stopping at once" } else { "stopping" });
        self.abandon_reloads();
        self.respawns.clear();
        let code = if let Phase::Stopping(stop) = &self.phase { stop.code } else { 0 };
        self.phase = Phase::Stopping(Stop {
            stage: Stage::Workers,
            code,
            deadline: self.now + grace.max_wait,
            guard: grace.guard,
        });
        let at_once = grace.max_wait == 0;
        let kill_at = self.now + grace.max_wait + grace.guard + LAST_WORDS;
        for child in self.children.values_mut() {
            match child.state {
                State::Forking | State::Starting | State::Ready => {
                    child.kill();
                    self.out.push(Action::Kill { child: child.id, reason: None });
                }
                // Said again to those who drain already: nobody is left to hand over to.
                State::Opening | State::Serving | State::Draining { .. }
                    if child.kind == Kind::Worker || at_once =>
                {
                    let earlier = match child.state {
                        State::Draining { kill_at: earlier } => earlier.min(kill_at),
                        _ => kill_at,
                    };
                    let (mode, finish_queue) = (DrainMode::Close, !at_once);
                    child.drain(earlier, DrainOrder { mode, finish_queue, guard: grace.guard });
                    self.out.push(Action::Drain { child: child.id, mode, finish_queue, grace });
                }
                _ => {}
            }
        }
    }

    fn abandon_reloads(&mut self) {
        self.fail_upgrade("the server is stopping");
        self.abandon_scaling();
        let under_way = self.phase.run().cloned().map(|run| {
            let verdict = if run.opened { Verdict::RolledBack } else { Verdict::Aborted };
            (run, verdict, "the server is stopping")
        });
        // Nobody goes back from what is observed: it serves to the end.
        let observed = self.observation.take().map(|it| {
            let reason = "the server is stopping before what is observed was committed";
            (it.run, Verdict::Aborted, reason)
        });
        for (mut run, verdict, reason) in under_way.into_iter().chain(observed) {
            run.failure = reason.into();
            // There is nothing more to wait for.
            run.asked_back = false;
            self.finish(run, verdict);
        }
        if let Some(request) = self.waiting.take() {
            let reason = "the server is stopping";
            let outcome = self.outcome(request.what(), Verdict::Aborted, reason, self.now);
            let tickets = request.waiters.iter().map(|waiter| waiter.ticket).collect();
            self.out.push(Action::Finish { tickets, outcome });
        }
    }

    pub(super) fn advance_stopping(&mut self) {
        loop {
            let Phase::Stopping(stop) = &self.phase else { return };
            let stop = stop.clone();
            let next = match stop.stage {
                Stage::Workers if !self.lives(Kind::Worker) => Stage::TaskWorkers,
                Stage::TaskWorkers => {
                    self.drain_task_workers(&stop);
                    if self.lives(Kind::TaskWorker) || !self.respawns.is_empty() {
                        return;
                    }
                    Stage::Hook { child: self.shutdown_hook() }
                }
                Stage::Hook { child } if child.is_none_or(|it| !self.hooks.contains_key(&it)) => {
                    self.exit_templates();
                    Stage::Templates
                }
                Stage::Templates
                    if self.generations.values().all(|it| !it.has_template())
                        && self.hooks.is_empty() =>
                {
                    self.out.push(Action::Exit { code: stop.code });
                    Stage::Left
                }
                _ => return,
            };
            if let Phase::Stopping(stop) = &mut self.phase {
                stop.stage = next;
            }
        }
    }

    /// Says once more that all is done, if it is.
    pub(super) fn repeat_exit(&mut self) {
        if let Phase::Stopping(Stop { stage: Stage::Left, code, .. }) = &self.phase {
            self.out.push(Action::Exit { code: *code });
        }
    }

    fn lives(&self, kind: Kind) -> bool {
        self.children.values().any(|it| it.kind == kind)
    }

    /// Those that serve run what waits, within what is left of the time.
    fn drain_task_workers(&mut self, stop: &Stop) {
        let grace = Grace { max_wait: stop.deadline.saturating_sub(self.now), guard: stop.guard };
        let kill_at = self.now + grace.max_wait + grace.guard + LAST_WORDS;
        for child in self.children.values_mut() {
            if child.kind == Kind::TaskWorker && child.is_serving() {
                let (mode, finish_queue) = (DrainMode::Close, true);
                child.drain(kill_at, DrainOrder { mode, finish_queue, guard: grace.guard });
                self.out.push(Action::Drain { child: child.id, mode, finish_queue, grace });
            }
        }
    }

    fn shutdown_hook(&mut self) -> Option<ChildId> {
        let generation = self.workers?;
        self.run_hook(generation, HookName::OnShutdown, None)
    }

    fn exit_templates(&mut self) {
        let kill_at = self.now + LAST_WORDS;
        for (number, state) in &mut self.generations {
            match state.template {
                Template::Gone { .. } | Template::Leaving { .. } => {}
                _ => {
                    state.template = Template::Leaving { kill_at };
                    self.out.push(Action::ExitTemplate { generation: *number });
                }
            }
        }
    }
}
