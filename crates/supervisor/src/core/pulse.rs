//! Whether processes that live do anything: loops that do not turn, starts that do not end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::template::Kind;

use super::action::Action;
use super::child::{Child, State};
use super::event::{ChildId, Generation, Millis};
use super::{Core, millis};

/// A stuck process writes down where it stands and ends itself; so long it has for that.
const LAST_LOOK: Millis = 5_000;
/// Pulses are felt at most and at least so often.
const SHORTEST: Millis = 100;
const LONGEST: Millis = 1_000;

/// What was seen of the pulses so far. A new manager begins anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    looked: Millis,
    due: Option<Millis>,
    pulses: BTreeMap<ChildId, Pulse>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pulse {
    beat: u64,
    silent: Millis,
}

impl Pulse {
    /// Takes in what is shown after `elapsed` milliseconds in which somebody was looking.
    fn feel(&mut self, beat: u64, elapsed: Millis) {
        self.silent = if beat == self.beat { self.silent.saturating_add(elapsed) } else { 0 };
        self.beat = beat;
    }
}

impl Core {
    /// When the next pulse is felt, or somebody who does not live on is killed.
    pub(super) fn next_pulse(&self) -> Option<Millis> {
        let starts = self.children.values().filter_map(|it| it.ready_by);
        let stuck = self.children.values().filter_map(|it| it.stuck);
        let templates = self.generations.values().filter_map(|it| it.loaded_by);
        starts.chain(templates).chain(stuck).chain(self.watch.due).min()
    }

    /// Asks for the pulses if it is time.
    pub(super) fn feel_pulses(&mut self) {
        self.kill_the_stuck();
        self.pass_starts();
        let watched: Vec<ChildId> =
            self.children.values().filter(|it| self.limit(it).is_some()).map(|it| it.id).collect();
        if watched.is_empty() {
            self.watch = Watch::default();
            return;
        }
        let period = self.period();
        match self.watch.due {
            Some(due) if due <= self.now => {
                self.watch.due = Some(self.now + period);
                self.out.push(Action::Look { children: watched });
            }
            Some(_) => {}
            None => {
                self.watch.due = Some(self.now + period);
                self.watch.looked = self.now;
            }
        }
    }

    /// The pulses are known. Time in which nobody looked does not count: what stopped this process
    /// has probably stopped the others as well.
    pub(super) fn looked(&mut self, beats: Vec<(ChildId, u64)>) {
        let elapsed = self.now.saturating_sub(self.watch.looked).min(2 * self.period());
        self.watch.looked = self.now;
        let mut before = std::mem::take(&mut self.watch.pulses);
        for (id, beat) in beats {
            let Some(child) = self.children.get(&id) else { continue };
            let Some(limit) = self.limit(child) else { continue };
            let mut pulse = before.remove(&id).unwrap_or_default();
            pulse.feel(beat, elapsed);
            self.watch.pulses.insert(id, pulse);
            if pulse.silent >= limit {
                self.found_stuck(id, pulse.silent);
            }
        }
    }

    fn found_stuck(&mut self, id: ChildId, silent: Millis) {
        let now = self.now;
        let Some(child) = self.children.get_mut(&id) else { return };
        child.stuck = Some(now + LAST_LOOK);
        let line = format!("{} is stuck: its loop has not turned for {silent} ms", child.name());
        self.warn(line);
        self.out.push(Action::Inspect { child: id });
    }

    /// Their deaths are taken in like any other's: the slot is filled again at once.
    fn kill_the_stuck(&mut self) {
        for child in self.children.values_mut() {
            if child.stuck.is_some_and(|at| at <= self.now) {
                child.stuck = Some(Millis::MAX);
                let reason = Some(format!("{} is stuck", child.name()));
                self.out.push(Action::Kill { child: child.id, reason });
            }
        }
    }

    /// A respawn has as long as a reload. A template that does not even fork is of no use.
    fn pass_starts(&mut self) {
        for (number, state) in &mut self.generations {
            if state.loaded_by.is_some_and(|by| by <= self.now) {
                state.loaded_by = None;
                state.failure = Some("the template was not loaded in time".into());
                self.out.push(Action::KillTemplate { generation: *number });
            }
        }
        for child in self.children.values_mut() {
            if child.ready_by.is_none_or(|by| by > self.now) {
                continue;
            }
            child.ready_by = None;
            match child.state {
                State::Forking => {
                    self.out.push(Action::KillTemplate { generation: child.generation });
                }
                State::Starting => {
                    let reason = Some(format!("{} was not ready in time", child.name()));
                    self.out.push(Action::Kill { child: child.id, reason });
                }
                _ => {}
            }
        }
    }

    /// What a manager that died may have meant to do and not done.
    pub(super) fn repeat_kills(&mut self) {
        for child in self.children.values() {
            if child.stuck == Some(Millis::MAX) {
                self.out.push(Action::Kill { child: child.id, reason: None });
            }
        }
    }

    /// How long a child may be silent; None: it is not watched.
    fn limit(&self, child: &Child) -> Option<Millis> {
        if !child.is_serving() || child.stuck.is_some() {
            return None;
        }
        let settings = self.settings_of(child.generation)?;
        let limit = match child.kind {
            _ if settings.heartbeat_timeout.is_zero() => return None,
            Kind::Worker => settings.heartbeat_timeout,
            Kind::TaskWorker => settings.heartbeat_timeout.max(settings.task_timeout),
        };
        Some(millis(limit))
    }

    fn period(&self) -> Millis {
        let shortest = self.children.values().filter_map(|it| self.limit(it)).min();
        (shortest.unwrap_or(LONGEST) / 4).clamp(SHORTEST, LONGEST)
    }

    /// How long a start may take.
    pub(super) fn patience(&self, generation: Generation) -> Millis {
        self.settings_of(generation)
            .map_or(self.start_timeout, |it| millis(it.start_timeout.max(Duration::from_millis(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_adds_up_until_the_next_beat() {
        let mut pulse = Pulse::default();
        pulse.feel(7, 500);
        pulse.feel(7, 500);
        pulse.feel(7, 400);
        assert_eq!(pulse.silent, 900);
        pulse.feel(8, 500);
        assert_eq!(pulse.silent, 0);
    }
}
