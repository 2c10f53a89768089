//! What can happen next, and how it does.

use crate::core::action::Action;
use crate::core::child::State;
use crate::core::event::{ChildId, Ended, Event, Generation, Scope, Until};
use crate::core::sample::Sample;
use crate::core::scale::{Count, Wish};

use super::super::world::{Fault, World, concerns};
use super::Walk;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The news at this place in the queue comes in.
    News(usize),
    /// It would have, and something else comes in in its place.
    Mishap(usize, Mishap),
    /// The next deadline passes.
    Wait,
    Ask(Ask),
    /// A process that drains has finished.
    Drained(ChildId),
    /// A process dies.
    Dies(ChildId),
    TemplateDies(Generation),
    /// The manager writes down what follows from something, does only so much of it, and dies.
    ManagerDies(Moment, usize),
    /// It dies and has not written down what the news at this place was.
    ManagerForgets(usize),
}

/// In the middle of what the manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    News(usize),
    Wait,
    Ask(Ask),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// Not loaded, not bound, not forked, not ready, not healthy, no new program.
    Fails,
    /// The probe has said yes, and the manager cannot become the new program all the same.
    Stays,
    /// The workers of new generations have served something, well.
    ServesWell,
    /// The same, and half of it has failed.
    ServesBadly,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Reload(Until),
    ReloadTasks,
    Rollback,
    Upgrade,
    /// One worker more.
    More,
    /// One worker less.
    Fewer,
    Stop,
    Hurry,
    /// Nobody wants it: the master has died.
    MasterGone,
}

impl Ask {
    /// How it is said. A stop is not answered.
    fn event(self, world: &mut World) -> Event {
        let wish = |more| Wish { workers: Some(Count::By(more)), task_workers: None };
        let until = if let Self::Reload(until) = self { until } else { Until::Committed };
        let scope = if self == Self::ReloadTasks { Scope::Tasks } else { Scope::All };
        let overrides = Vec::new();
        match self {
            Self::Stop => return Event::Stop,
            Self::Hurry => return Event::Hurry,
            Self::MasterGone => return Event::MasterGone,
            _ => {}
        }
        let ticket = Some(world.ticket());
        match self {
            Self::Rollback => Event::Rollback { ticket, until },
            Self::Upgrade => Event::Upgrade { ticket, overrides, until },
            Self::More => Event::Scale { ticket, wish: wish(1) },
            Self::Fewer => Event::Scale { ticket, wish: wish(-1) },
            _ => Event::Reload { ticket, scope, overrides, until },
        }
    }
}

/// Who says it.
#[derive(PartialEq)]
enum Source {
    Template(Generation),
    Child(ChildId),
    Master,
}

fn source(world: &World, event: &Event) -> Option<Source> {
    match event {
        Event::Hello { generation, .. }
        | Event::Loaded { generation }
        | Event::TemplateFailed { generation, .. }
        | Event::TemplateGone { generation, .. } => Some(Source::Template(*generation)),
        Event::Forked { child, .. } | Event::NotForked { child, .. } => {
            Some(Source::Template(world.core.child(*child)?.generation))
        }
        Event::Ready { child }
        | Event::Failed { child, .. }
        | Event::Serving { child }
        | Event::Health { child, .. }
        | Event::Gone { child, .. } => Some(Source::Child(*child)),
        Event::Bound { .. } | Event::NotBound { .. } | Event::MasterReplaced { .. } => {
            Some(Source::Master)
        }
        _ => None,
    }
}

impl Walk {
    /// Everything that can happen next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let world = &self.world;
        if world.exit.is_some() {
            return steps;
        }
        let deliverable: Vec<usize> = (0..world.events.len())
            .filter(|at| {
                let event = &world.events[*at];
                !world.events.iter().take(*at).any(|it| self.holds_back(it, event))
            })
            .collect();
        steps.extend(deliverable.iter().map(|at| Step::News(*at)));
        for at in &deliverable {
            let mishaps = self.mishaps(&world.events[*at]);
            steps.extend(mishaps.into_iter().map(|it| Step::Mishap(*at, it)));
        }
        let idle = world.events.is_empty();
        let waits = world.core.next_deadline().is_some() && (idle || self.budget.late > 0);
        steps.extend(waits.then_some(Step::Wait));
        steps.extend(self.budget.asks.iter().map(|it| Step::Ask(*it)));
        let draining = world.processes.iter().filter(|(_, it)| it.draining);
        if self.budget.drains > 0 {
            steps.extend(draining.map(|(child, _)| Step::Drained(*child)));
        }
        if self.budget.deaths > 0 {
            steps.extend(world.processes.keys().map(|it| Step::Dies(*it)));
        }
        if self.budget.template_deaths > 0 {
            steps.extend(world.templates.iter().map(|it| Step::TemplateDies(*it)));
        }
        if self.budget.manager_deaths > 0 {
            self.manager_deaths(&deliverable, waits, &mut steps);
        }
        steps
    }

    /// Whether news cannot overtake other news: what one process says comes in in this order, its end
    /// last, and its pid first of all.
    fn holds_back(&self, first: &Event, second: &Event) -> bool {
        let second = source(&self.world, second);
        let named = match first {
            Event::Forked { child, .. } => second == Some(Source::Child(*child)),
            _ => false,
        };
        named || second.is_some() && source(&self.world, first) == second
    }

    fn mishaps(&self, event: &Event) -> Vec<Mishap> {
        match event {
            Event::Measured { samples } => {
                let fresh = samples.iter().any(|(_, it)| it.requests == 0);
                let all = [Mishap::ServesWell, Mishap::ServesBadly];
                if fresh && self.budget.traffic { all.to_vec() } else { Vec::new() }
            }
            _ if self.budget.mishaps == 0 => Vec::new(),
            Event::Probed { result: Ok(()) } => vec![Mishap::Fails, Mishap::Stays],
            Event::Hello { .. }
            | Event::Loaded { .. }
            | Event::Bound { .. }
            | Event::Forked { .. }
            | Event::Health { failure: None, .. }
            | Event::MasterReplaced { result: Ok(()) } => vec![Mishap::Fails],
            Event::Ready { child }
                if self.world.processes.get(child).is_some_and(|it| !it.serving) =>
            {
                vec![Mishap::Fails]
            }
            _ => Vec::new(),
        }
    }

    /// Between any two things that it does the manager can die.
    fn manager_deaths(&self, deliverable: &[usize], waits: bool, steps: &mut Vec<Step>) {
        let mut moments: Vec<Moment> = deliverable.iter().map(|at| Moment::News(*at)).collect();
        steps.extend(deliverable.iter().map(|at| Step::ManagerForgets(*at)));
        moments.extend(waits.then_some(Moment::Wait));
        moments.extend(self.budget.asks.iter().map(|it| Moment::Ask(*it)));
        for moment in moments {
            let mut world = self.world.clone();
            let event = moment.event(&mut world);
            let actions = world.core.on(event, world.now);
            let felt = |it: &Action| {
                !matches!(it, Action::Log { .. } | Action::Progress { .. } | Action::Finish { .. })
            };
            steps.push(Step::ManagerDies(moment, 0));
            let done = actions.iter().enumerate().filter(|(_, it)| felt(it));
            steps.extend(done.map(|(at, _)| Step::ManagerDies(moment, at + 1)));
        }
    }

    /// A child that says to a new manager what is known already says nothing.
    pub(super) fn drop_old_news(&mut self) {
        let core = &self.world.core;
        self.world.events.retain(|event| match event {
            Event::Ready { child } => core
                .child(*child)
                .is_some_and(|it| matches!(it.state, State::Forking | State::Starting)),
            Event::Serving { child } => {
                core.child(*child).is_some_and(|it| it.is_staying() && !it.is_serving())
            }
            _ => true,
        });
    }

    /// Has it happen.
    pub(super) fn take(&mut self, step: Step) {
        let world = &mut self.world;
        match step {
            Step::News(at) => {
                let event = Moment::News(at).event(world);
                world.tell(event);
            }
            Step::Mishap(at, mishap) => {
                if !matches!(mishap, Mishap::ServesWell | Mishap::ServesBadly) {
                    self.budget.mishaps -= 1;
                }
                let event = Moment::News(at).event(world);
                go_wrong(world, event, mishap);
            }
            Step::Wait => {
                if !world.events.is_empty() {
                    self.budget.late -= 1;
                }
                let event = Moment::Wait.event(world);
                world.tell(event);
            }
            Step::Ask(ask) => {
                self.budget.asks.retain(|it| *it != ask);
                let event = Moment::Ask(ask).event(world);
                self.note_ask(ask);
                self.world.tell(event);
                // At rest nothing is left then.
                let ends = matches!(ask, Ask::Stop | Ask::MasterGone);
                assert!(!ends || self.world.core.is_stopping(), "{ask:?} does not end it");
            }
            Step::Drained(child) => {
                self.budget.drains -= 1;
                world.gone(child, Ended::Code(0));
            }
            Step::Dies(child) => {
                self.budget.deaths -= 1;
                let process = &world.processes[&child];
                self.died += u32::from(process.serving && !process.draining);
                world.kill(child);
            }
            Step::TemplateDies(generation) => {
                self.budget.template_deaths -= 1;
                world.kill_template(generation);
            }
            Step::ManagerDies(moment, done) => {
                self.budget.manager_deaths -= 1;
                if let Moment::Ask(ask) = moment {
                    self.budget.asks.retain(|it| *it != ask);
                }
                if moment == Moment::Wait && !world.events.is_empty() {
                    self.budget.late -= 1;
                }
                let event = moment.event(world);
                world.events.push_front(event);
                if let Moment::Ask(ask) = moment {
                    self.note_ask(ask);
                }
                self.world.kill_manager(done);
            }
            Step::ManagerForgets(at) => {
                self.budget.manager_deaths -= 1;
                let event = Moment::News(at).event(world);
                world.events.push_front(event);
                world.kill_manager_before_it_writes();
            }
        }
    }
}

impl Moment {
    /// What the core is told then.
    fn event(self, world: &mut World) -> Event {
        match self {
            Self::News(at) => world.events.remove(at).unwrap(),
            Self::Wait => {
                world.now = world.core.next_deadline().unwrap_or(0).max(world.now);
                Event::Tick
            }
            Self::Ask(ask) => ask.event(world),
        }
    }
}

/// Something else comes in than was about to.
fn go_wrong(world: &mut World, event: Event, mishap: Mishap) {
    let reason = "it does not".to_owned();
    let instead = match event {
        Event::Hello { generation, .. } | Event::Loaded { generation } => {
            world.templates.remove(&generation);
            let ended = Ended::Code(1);
            let gone = Event::TemplateGone { generation, ended };
            let already = world.events.iter().any(
                |it| matches!(it, Event::TemplateGone { generation: of, .. } if *of == generation),
            );
            if !already {
                world.events.push_back(gone);
            }
            Event::TemplateFailed { generation, reason }
        }
        Event::Bound { generation } => Event::NotBound { generation, reason },
        Event::Forked { child, .. } => {
            world.processes.remove(&child);
            world.events.retain(|it| !concerns(it, child));
            Event::NotForked { child, reason }
        }
        Event::Ready { child } => {
            world.gone(child, Ended::Code(1));
            Event::Failed { child, reason }
        }
        Event::Health { child, attempt, .. } => {
            Event::Health { child, attempt, failure: Some(reason) }
        }
        Event::Probed { .. } if mishap == Mishap::Stays => {
            world.plan.fault = Fault::ManagerStays;
            world.tell(event);
            world.plan.fault = Fault::None;
            return;
        }
        Event::Probed { .. } => Event::Probed { result: Err(reason) },
        Event::MasterReplaced { .. } => Event::MasterReplaced { result: Err(reason) },
        Event::Measured { samples } => {
            let failures = if mishap == Mishap::ServesBadly { 40 } else { 0 };
            let counted = Sample { requests: 40, failures, timed: 40, spent_us: 4_000 };
            let mut serve = |(child, before): (ChildId, Sample)| {
                let process = world.processes.get_mut(&child).filter(|it| it.generation > 1);
                let Some(process) = process else { return (child, before) };
                process.counted = counted;
                (child, counted)
            };
            Event::Measured { samples: samples.into_iter().map(&mut serve).collect() }
        }
        other => other,
    };
    world.tell(instead);
}
