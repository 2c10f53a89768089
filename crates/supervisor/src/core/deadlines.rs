//! When the core has to be woken, and the end of what has had its time.

use super::action::Action;
use super::child::State;
use super::event::Millis;
use super::generation::Template;
use super::{Core, Phase};

impl Core {
    /// The moment at which [`Event::Tick`](super::event::Event::Tick) is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let run = match &self.phase {
            Phase::Starting(run) | Phase::Replacing(run) => run.deadline,
            Phase::Proving(proving) => proving.next(),
            Phase::RollingBack(back) => back.deadline,
            Phase::Upgrading(upgrade) => Some(upgrade.deadline),
            Phase::Scaling(scaling) => Some(scaling.deadline),
            Phase::Idle | Phase::Stopping(_) => None,
        };
        let kills = self.children.values().filter_map(|child| match child.state {
            State::Draining { kill_at } => Some(kill_at),
            _ => None,
        });
        let templates = self.generations.values().filter_map(|it| match it.template {
            Template::Leaving { kill_at } => Some(kill_at),
            Template::Gone { .. }
            | Template::Starting
            | Template::Binding
            | Template::Loading
            | Template::Loaded => None,
        });
        let respawns = self.respawns.iter().filter_map(|it| self.respawn_due(it));
        let hooks = self.hooks.values().map(|hook| hook.deadline);
        let all = run.into_iter().chain(kills).chain(templates).chain(respawns).chain(hooks);
        let all = all
            .chain(self.stop_at)
            .chain(self.observation_due())
            .chain(self.next_pulse())
            .chain(self.templates_due().map(|(_, at)| at));
        // What was killed already has no deadline any more.
        all.filter(|due| *due < Millis::MAX).min()
    }

    /// Kills what has had its time.
    pub(super) fn pass_deadlines(&mut self) {
        let now = self.now;
        for child in self.children.values_mut() {
            if matches!(child.state, State::Draining { kill_at } if kill_at <= now) {
                child.kill();
                self.out.push(Action::Kill {
                    child: child.id,
                    reason: Some(format!("{} has not drained in time", child.name())),
                });
            }
        }
        for (number, generation) in &mut self.generations {
            if matches!(generation.template, Template::Leaving { kill_at } if kill_at <= now) {
                generation.template = Template::Leaving { kill_at: Millis::MAX };
                self.out.push(Action::KillTemplate { generation: *number });
            }
        }
        self.pass_hook_deadlines();
    }
}
