//! What holds whatever happens.

use crate::core::action::Action;
use crate::core::child::{Child, State};
use crate::core::event::{Event, Generation, Ticket, Until};
use crate::core::history::What;
use crate::core::outcome::{Outcome, Verdict};
use crate::protocol::template::Kind;

use super::Walk;
use super::step::Ask;

impl Walk {
    /// Notes for what the answer is that will be due, and what was in force when it was asked.
    pub(super) fn note_ask(&mut self, ask: Ask) {
        if !matches!(ask, Ask::Stop | Ask::Hurry | Ask::MasterGone) {
            self.asked.insert(self.world.asked(), (ask, self.world.core.generation()));
        }
    }

    /// The promises that hold at every moment; `before` was in force a step ago.
    pub(super) fn assert_promises(&self, before: Generation) {
        self.assert_capacity();
        self.assert_answers();
        self.assert_nobody_is_forgotten();
        self.assert_drains_end();
        self.assert_outcomes(before);
    }

    /// Every slot is served, unless its worker has died by itself.
    fn assert_capacity(&self) {
        let world = &self.world;
        if world.core.is_stopping() {
            return;
        }
        let served = world.slots_served();
        let enough = served.len() as u32 + self.died >= self.floor;
        assert!(enough, "only {served:?} are served, and {} died by themselves", self.died);
        if self.died == 0 {
            let queues = world.queues_served();
            assert!(queues.is_superset(&world.opened), "{queues:?} of {:?}", world.opened);
        }
    }

    /// Whoever asked was answered once, or is known to wait. (Nobody is answered twice: the world
    /// minds that.)
    fn assert_answers(&self) {
        let waiting = self.world.core.tickets();
        for ticket in self.asked.keys() {
            let answered = self.world.finished.contains_key(ticket);
            let waits = waiting.iter().filter(|it| *it == ticket).count();
            assert_eq!(usize::from(answered) + waits, 1, "request {ticket}: answered {answered}");
        }
    }

    /// What lives is known, and whoever is thought to live does, or the news of the end is under way.
    fn assert_nobody_is_forgotten(&self) {
        let world = &self.world;
        for (id, process) in &world.processes {
            assert!(world.core.child(*id).is_some(), "child {id} is forgotten: {process:?}");
        }
        for generation in &world.templates {
            let known = world.core.generations.get(generation);
            assert!(
                known.is_some_and(|it| it.has_template()),
                "template {generation} is forgotten"
            );
        }
        for child in world.core.children() {
            let told = |it: &Event| match it {
                Event::Gone { child: id, .. } | Event::NotForked { child: id, .. } => {
                    *id == child.id
                }
                Event::TemplateGone { generation, .. } => {
                    child.pid.is_none() && *generation == child.generation
                }
                _ => false,
            };
            let lives = world.processes.contains_key(&child.id) || world.events.iter().any(told);
            assert!(lives, "{} is waited for and does not live", child.name());
        }
    }

    /// Whoever drains has a deadline, or was killed.
    fn assert_drains_end(&self) {
        let world = &self.world;
        for id in world.processes.iter().filter(|(_, it)| it.draining).map(|it| it.0) {
            let state = world.core.child(*id).map(|it| it.state);
            let due = world.core.next_deadline();
            let ends = matches!(state, Some(State::Draining { kill_at })
                if due.is_some_and(|due| due <= kill_at));
            assert!(ends, "child {id} drains without an end: {state:?}");
        }
    }

    /// What was said to be in force is, and serves.
    fn assert_outcomes(&self, before: Generation) {
        let mut before = before;
        for action in &self.world.log {
            if let Action::Finish { tickets, outcome } = action {
                for ticket in tickets {
                    self.assert_outcome(*ticket, outcome, before);
                }
                before = outcome.generation;
            }
        }
    }

    fn assert_outcome(&self, ticket: Ticket, outcome: &Outcome, before: Generation) {
        let world = &self.world;
        let Some((ask, then)) = self.asked.get(&ticket).copied() else { return };
        let is_reload = matches!(outcome.what, What::Reload | What::Upgrade);
        if is_reload && outcome.outcome == Verdict::Committed {
            assert!(outcome.generation > then, "{ask:?} in generation {then}: {outcome:?}");
        }
        // Others may have followed while it drained.
        if ask == Ask::Reload(Until::Drained) && outcome.outcome == Verdict::Committed {
            return;
        }
        match outcome.outcome {
            Verdict::Aborted => assert_eq!(outcome.generation, before, "{ask:?}: {outcome:?}"),
            Verdict::RolledBack => assert!(outcome.generation <= before, "{ask:?}: {outcome:?}"),
            Verdict::Committed | Verdict::Replaced => {
                assert!(outcome.generation >= before, "{ask:?}: {outcome:?}");
            }
        }
        let generation = world.core.generation();
        assert_eq!(outcome.generation, generation, "{ask:?}: {outcome:?}");
        if self.died == 0 && !world.core.is_stopping() {
            let serving = world.serving_in(generation, Kind::Worker).len() as u32;
            assert!(serving >= self.floor, "{ask:?}: {outcome:?}, and {serving} of it serve");
        }
    }

    /// What holds when nothing happens any more.
    pub(super) fn assert_rest(&self) {
        let world = &self.world;
        let unanswered: Vec<_> =
            self.asked.keys().filter(|it| !world.finished.contains_key(it)).collect();
        assert!(unanswered.is_empty(), "{unanswered:?} are not answered");
        if let Some(code) = world.exit {
            assert_eq!(code, 0);
            assert!(world.processes.is_empty(), "{:#?} are left", world.processes);
            assert!(world.templates.is_empty(), "templates {:?} are left", world.templates);
            assert!(world.hooks.is_empty(), "hooks {:?} are left", world.hooks);
            return;
        }
        assert_eq!(world.core.state(), "serving");
        assert!(world.core.children().all(Child::is_serving), "{:#?}", world.processes);
        let (workers, tasks) = world.core.in_force().unwrap();
        let slots: Vec<u32> = (0..world.core.worker_num(workers)).collect();
        assert_eq!(world.serving_in(workers, Kind::Worker), slots);
        assert_eq!(world.serving_in(tasks, Kind::TaskWorker), world.task_worker_ids());
        let number = slots.len() + world.task_worker_ids().len();
        assert_eq!(world.processes.len(), number, "{:#?}", world.processes);
        assert!(world.busy_templates().iter().all(|it| [workers, tasks].contains(it)));
        assert!(world.templates.contains(&workers) && world.templates.contains(&tasks));
    }
}
