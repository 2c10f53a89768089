//! The end of generations that nobody needs any more.

use crate::protocol::template::Kind;
use crate::protocol::worker::DrainMode;

use super::action::{Action, Grace};
use super::child::{DrainOrder, State};
use super::event::{ChildId, Generation, Millis};
use super::generation::Template;
use super::outcome::{Outcome, Verdict};
use super::stop::LAST_WORDS;
use super::{Core, Phase};

/// A template has this long to exit.
const TEMPLATE_EXIT: Millis = 5_000;
/// And the processes of a generation whose place is needed, instead of `max_wait_time`: enough for
/// almost every request, so that reloads in a row cost none.
pub(super) const HURRIED: Millis = 5_000;

impl Core {
    /// Whether a generation is neither in force nor on its way to be.
    fn is_retired(&self, generation: Generation) -> bool {
        let running = match &self.phase {
            // At a stop the order is the stop's own.
            Phase::Stopping(_) => return false,
            Phase::RollingBack(back) => {
                back.run.generation == generation || back.to.has(generation)
            }
            other => other.run().is_some_and(|run| run.generation == generation),
        };
        self.workers != Some(generation) && self.tasks != Some(generation) && !running
    }

    /// Task workers without senders drain, templates without work exit, and what is empty is
    /// forgotten.
    pub(super) fn retire_generations(&mut self) {
        let idle: Vec<ChildId> = self
            .children
            .values()
            .filter(|it| it.kind == Kind::TaskWorker && it.is_staying())
            .filter(|it| self.is_retired(it.queue) && !self.has_senders(it.queue))
            .map(|it| it.id)
            .collect();
        for id in idle {
            // One that has just been forked for what waits in the queue must get to serve first.
            if self.children.get(&id).is_some_and(|it| it.state == State::Serving) {
                self.drain_or_kill(id, DrainMode::HandOver, true);
            }
        }
        let retired: Vec<Generation> =
            self.generations.keys().copied().filter(|number| self.is_retired(*number)).collect();
        for generation in retired {
            self.retire(generation);
        }
        self.answer_drained();
    }

    fn retire(&mut self, generation: Generation) {
        if self.is_parked(generation) {
            return;
        }
        let forks = self.children.values().any(|it| it.generation == generation && it.is_staying())
            || self.respawns.iter().any(|it| it.generation == generation)
            || self.children.values().any(|it| {
                it.generation == generation
                    && it.kind == Kind::TaskWorker
                    && it.state != State::Killed
            });
        let lives =
            self.children.values().any(|it| it.generation == generation || it.queue == generation);
        let now = self.now;
        let Some(state) = self.generations.get_mut(&generation) else { return };
        match state.template {
            Template::Gone { .. } if !lives && !forks => {
                self.generations.remove(&generation);
                self.out.push(Action::Forget { generation });
            }
            Template::Gone { .. } | Template::Leaving { .. } => {}
            _ if !forks => {
                state.template = Template::Leaving { kill_at: now + TEMPLATE_EXIT };
                self.out.push(Action::ExitTemplate { generation });
            }
            _ => {}
        }
    }

    /// Makes sure that one more generation may live; if not, brings the oldest one's deadline
    /// forward and says no.
    pub(super) fn make_room(&mut self) -> bool {
        let limit = self.settings().map_or(usize::MAX, |it| it.max_generations.max(2) as usize);
        let living = |number: &Generation| {
            self.children.values().any(|it| it.generation == *number)
                || Some(*number) == self.workers
                || Some(*number) == self.tasks
        };
        let alive: Vec<Generation> = self.generations.keys().copied().filter(living).collect();
        if alive.len() < limit {
            return true;
        }
        let oldest = alive.into_iter().find(|number| self.is_retired(*number));
        let Some(oldest) = oldest else { return true };
        if self
            .generations
            .get_mut(&oldest)
            .is_some_and(|it| !std::mem::replace(&mut it.hurried, true))
        {
            self.warn(format!(
                "generation {oldest} has to go: {limit} generations live (max_generations)"
            ));
            if let Some(waiting) = &mut self.waiting {
                waiting.hurried = Some(oldest);
            }
            self.hurry(oldest);
        }
        false
    }

    /// Whoever drains gets little more time, if it would have more. Task workers stay for as long as
    /// workers may send to them, and get that time then.
    fn hurry(&mut self, generation: Generation) {
        let Grace { max_wait: most, guard } = self.grace_of(generation);
        let now = self.now;
        for child in self.children.values_mut().filter(|it| it.generation == generation) {
            if let State::Draining { kill_at } = child.state {
                let left = kill_at.saturating_sub(now + guard + LAST_WORDS);
                let grace = Grace { max_wait: left.min(most), guard };
                let kill_at = kill_at.min(now + grace.max_wait + guard + LAST_WORDS);
                let (mode, finish_queue) = (DrainMode::HandOver, child.kind == Kind::TaskWorker);
                child.drain(kill_at, DrainOrder { mode, finish_queue, guard });
                self.out.push(Action::Drain { child: child.id, mode, finish_queue, grace });
            }
        }
    }

    /// Answers those who wait until the old generations are gone.
    fn answer_drained(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let stopping = matches!(self.phase, Phase::Stopping(_));
        // After USR2 the workers of an older generation stay; all else that is older has to go. After a
        // way back, what goes is newer.
        let drains = |outcome: &Outcome| {
            self.children.values().any(|it| match outcome.outcome {
                Verdict::RolledBack => it.generation > outcome.generation && !it.is_staying(),
                _ => {
                    it.generation < outcome.generation
                        && !(it.kind == Kind::Worker && self.workers == Some(it.generation))
                }
            })
        };
        let (done, rest): (Vec<_>, Vec<_>) =
            self.draining.iter().cloned().partition(|(_, outcome)| stopping || !drains(outcome));
        self.draining = rest;
        for (waiter, outcome) in done {
            // Those who still wait when a stop begins are let go, and nothing is gone yet.
            if !stopping {
                let generation = outcome.task_generation.unwrap_or(outcome.generation);
                self.log(format!("what generation {generation} has replaced is gone"));
            }
            self.out.push(Action::Answer { tickets: vec![waiter.ticket], outcome });
        }
    }
}
