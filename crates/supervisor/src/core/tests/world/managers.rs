//! The death of a manager, and what another one finds.

use crate::core::action::Action;
use crate::core::child::Child;
use crate::core::event::{ChildId, Ended, Event, Generation};

use super::{Fault, World, concerns};

impl World {
    /// The manager dies after it has written down what follows from the next event and has done
    /// only the first few things of it; another one goes on.
    pub(in crate::core::tests) fn kill_manager(&mut self, performed: usize) {
        let Some(event) = self.events.pop_front() else { return self.take_up(false) };
        let actions = self.core.on(event, self.now);
        for (index, action) in actions.into_iter().enumerate() {
            // Answers are written down as well.
            if index < performed || matches!(action, Action::Finish { .. } | Action::Answer { .. })
            {
                self.perform(&action);
                self.log.push(action);
            }
        }
        self.take_up(false);
    }

    /// It has read what the next event is, and dies before it has written anything down.
    pub(in crate::core::tests) fn kill_manager_before_it_writes(&mut self) {
        self.events.pop_front();
        self.take_up(false);
    }

    pub(super) fn take_up(&mut self, planned: bool) {
        // If that was what it was about to do.
        self.exit = None;
        let written = serde_json::to_string(&self.core).unwrap();
        self.core = serde_json::from_str(&written).unwrap();
        let named = |it: &Child| it.pid.is_some();
        let nameless: Vec<ChildId> = self
            .core
            .numbers()
            .filter(|id| !self.core.child(*id).is_some_and(named) && !self.hooks.contains(id))
            .collect();
        for child in &nameless {
            self.processes.remove(child);
            self.events.retain(|event| !concerns(event, *child));
        }
        // What it was told and had not written down yet is lost, but the ends of processes are seen
        // again.
        let known: Vec<ChildId> = self.core.children().map(|it| it.id).collect();
        self.processes.retain(|child, _| known.contains(child));
        let pending = |world: &Self, generation: Generation| {
            world.events.iter().any(
                |it| matches!(it, Event::TemplateGone { generation: of, .. } if *of == generation),
            )
        };
        let missing: Vec<Generation> = self
            .core
            .generations()
            .filter(|(_, it)| it.has_template())
            .map(|(number, _)| number)
            .filter(|number| !self.templates.contains(number) && !pending(self, *number))
            .collect();
        self.tell(Event::TakenUp { manager: 3, planned, nameless: nameless.clone() });
        for generation in missing {
            self.tell(Event::TemplateGone { generation, ended: Ended::Unseen });
        }
        let gone: Vec<ChildId> = known
            .into_iter()
            .filter(|id| self.core.child(*id).is_some() && !self.processes.contains_key(id))
            // Nobody knows the pid of these, or sees their end.
            .filter(|id| !nameless.contains(id))
            .filter(|id| {
                !self.events.iter().any(|it| matches!(it, Event::Gone { child, .. } if child == id))
            })
            .collect();
        for child in gone {
            self.tell(Event::Gone { child, ended: Ended::Unseen, tasks_wait: false });
        }
        // Each says again where it stands.
        for (child, process) in &self.processes {
            if self.fault(process.generation) != Fault::StartHangs {
                self.events.push_back(Event::Ready { child: *child });
            }
            if process.serving {
                self.events.push_back(Event::Serving { child: *child });
            }
        }
    }
}
