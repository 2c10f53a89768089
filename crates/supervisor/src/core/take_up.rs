//! A manager has died, and another one goes on: from what was written down, with what still lives.
//!
//! What the dead one was about to do may have been done or not. So everything that is in the middle
//! of something is told once more, which harms nobody who has heard it already; a reload that has not
//! taken over is given up, since half of what it rests on may be missing. Observing goes on, and so does
//! the way back.

use super::action::{Action, Grace};
use super::child::State;
use super::event::{ChildId, Millis, Scope};
use super::generation::Template;
use super::stop::LAST_WORDS;
use super::{Core, Phase};

impl Core {
    /// `nameless`: children and hooks whose birth nobody has written down. They are as good as dead:
    /// their socket closes, and that ends them.
    pub(super) fn taken_up(&mut self, manager: i32, planned: bool, nameless: &[ChildId]) {
        self.pids.manager = manager;
        if matches!(self.phase, Phase::Starting(_) | Phase::Proving(_) | Phase::Replacing(_)) {
            self.fail_run("the manager has died in the middle of it".into());
        }
        self.fail_scaling("the manager has died in the middle of it");
        self.upgrade_taken_up(planned);
        for child in nameless {
            self.unborn(*child, "the manager has died".into());
        }
        self.repeat_to_templates();
        self.repeat_to_children();
        self.repeat_kills();
        self.assign_doors();
        self.repeat_commits();
        self.repeat_return();
        self.repeat_exit();
    }

    /// A template that was loading may have said so to the dead one: executed again, it says it
    /// again.
    fn repeat_to_templates(&mut self) {
        for (generation, state) in &self.generations {
            let generation = *generation;
            match state.template {
                Template::Starting | Template::Binding | Template::Loading => {
                    self.out.push(Action::KillTemplate { generation });
                }
                Template::Leaving { kill_at: Millis::MAX } => {
                    self.out.push(Action::KillTemplate { generation });
                }
                Template::Leaving { .. } => self.out.push(Action::ExitTemplate { generation }),
                Template::Loaded | Template::Gone { .. } => {}
            }
        }
    }

    fn repeat_to_children(&mut self) {
        for child in self.children.values() {
            match (child.state, child.order) {
                (State::Opening, _) => self.out.push(Action::Serve { child: child.id }),
                (State::Draining { kill_at }, Some(order)) => {
                    let left = kill_at.saturating_sub(self.now + LAST_WORDS);
                    let guard = order.guard.min(left);
                    self.out.push(Action::Drain {
                        child: child.id,
                        mode: order.mode,
                        finish_queue: order.finish_queue,
                        grace: Grace { max_wait: left - guard, guard },
                    });
                }
                (State::Killed, _) => {
                    self.out.push(Action::Kill { child: child.id, reason: None });
                }
                _ => {}
            }
        }
    }

    /// What is in force, as the master and the manager have to know it.
    pub(super) fn repeat_commits(&mut self) {
        if let Some(generation) = self.workers {
            self.out.push(Action::Commit { generation, scope: Scope::All });
        }
        if let Some(generation) = self.tasks.filter(|it| Some(*it) != self.workers) {
            self.out.push(Action::Commit { generation, scope: Scope::Tasks });
        }
    }
}
