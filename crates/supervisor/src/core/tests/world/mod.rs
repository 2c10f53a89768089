//! A world without processes: it answers the core's actions with what processes would say.

mod managers;
mod perform;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::child::{Child, Purpose};
use crate::core::event::{ChildId, Ended, Event, Generation, Millis, Scope, Ticket, Until};
use crate::core::outcome::{Outcome, Verdict};
use crate::core::sample::Sample;
use crate::core::scale::Wish;
use crate::core::{Core, Pids};
use crate::protocol::template::{HookName, Kind};
use crate::protocol::worker::RetireCause;
use crate::settings::ServerSettings;

/// What goes wrong in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    TemplateExits,
    TemplateHangs,
    NotBound,
    PreloadFails,
    ForkRefused,
    StartFails,
    StartHangs,
    /// Workers from this id on fail in on_worker_start.
    StartFailsFrom(u32),
    /// Its workers say that they are not healthy.
    Unhealthy,
    /// Its workers do not answer when they are asked.
    Mute,
    /// Half of what its workers are asked fails.
    Errors,
    /// Its workers die as soon as they serve.
    Crashes,
    /// Its workers die when they have served a while.
    CrashesLater,
    /// The next three are of upgrades.
    ProbeRefuses,
    ManagerStays,
    MasterStays,
}

/// What a generation is like.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    pub(super) settings: ServerSettings,
    pub(super) hooks: Vec<HookName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) generation: Generation,
    pub(super) kind: Kind,
    pub(super) worker_id: u32,
    pub(super) serving: bool,
    pub(super) draining: bool,
    /// What it has counted.
    pub(super) counted: Sample,
    /// Since when its loop does not turn.
    pub(super) stuck: Option<Millis>,
    /// The slots whose queues it accepts on while it serves.
    pub(super) doors: BTreeSet<u32>,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Millis,
    pub(super) plan: Plan,
    plans: BTreeMap<Generation, Rc<Plan>>,
    pub(super) templates: BTreeSet<Generation>,
    pub(super) processes: BTreeMap<ChildId, Process>,
    pub(super) hooks: BTreeSet<ChildId>,
    pub(super) events: VecDeque<Event>,
    pub(super) log: Vec<Action>,
    pub(super) finished: BTreeMap<Ticket, Outcome>,
    pub(super) exit: Option<i32>,
    /// Draining processes stay until the test lets them go.
    pub(super) slow_drain: bool,
    /// And all the more so: whatever they were told.
    pub(super) drains_by_hand: bool,
    /// Whether anybody asks anything of the workers.
    pub(super) traffic: bool,
    next_ticket: Ticket,
    /// Slots whose sockets the master gives to everybody: it has been told that they were in use.
    pub(super) used: u32,
    /// Slots that somebody has accepted on: connections can stand in their queues.
    pub(super) opened: BTreeSet<u32>,
    /// Another manager is to take up: as planned, or not.
    manager: Option<bool>,
}

/// Whether an event is about a child.
pub(super) fn concerns(event: &Event, id: ChildId) -> bool {
    matches!(event,
        Event::Forked { child, .. }
        | Event::NotForked { child, .. }
        | Event::Ready { child }
        | Event::Failed { child, .. }
        | Event::Health { child, .. }
        | Event::Serving { child }
        | Event::Gone { child, .. } if *child == id)
}

pub(super) fn settings(workers: u32, tasks: u32) -> ServerSettings {
    ServerSettings { worker_num: workers, task_worker_num: tasks, ..ServerSettings::default() }
}

/// A child wants to be replaced.
pub(super) fn retire(child: ChildId, reason: &str) -> Event {
    Event::Retire { child, cause: RetireCause::Signal, reason: reason.into() }
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            core: Core::new(Pids { master: 1, manager: 2 }, Duration::from_secs(30)),
            now: 1_000,
            plan,
            plans: BTreeMap::new(),
            templates: BTreeSet::new(),
            processes: BTreeMap::new(),
            hooks: BTreeSet::new(),
            events: VecDeque::new(),
            log: Vec::new(),
            finished: BTreeMap::new(),
            exit: None,
            slow_drain: false,
            drains_by_hand: false,
            traffic: true,
            next_ticket: 0,
            used: 0,
            opened: BTreeSet::new(),
            manager: None,
        }
    }

    /// A server that serves, with its log empty.
    pub(super) fn serving(workers: u32, tasks: u32) -> Self {
        let mut world = Self::new(Plan { settings: settings(workers, tasks), ..Plan::default() });
        let outcome = world.reload(Scope::All);
        assert_eq!(outcome.outcome, Verdict::Committed);
        world.log.clear();
        world
    }

    /// The ticket of whoever asks next.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn ask(&mut self, scope: Scope, until: Until) -> Ticket {
        self.next_ticket += 1;
        let ticket = Some(self.next_ticket);
        self.tell(Event::Reload { ticket, scope, overrides: Vec::new(), until });
        self.next_ticket
    }

    pub(super) fn ask_upgrade(&mut self) -> Ticket {
        self.next_ticket += 1;
        let (ticket, until) = (Some(self.next_ticket), Until::Committed);
        self.tell(Event::Upgrade { ticket, overrides: Vec::new(), until });
        self.next_ticket
    }

    pub(super) fn ask_back(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.tell(Event::Rollback { ticket: Some(self.next_ticket), until: Until::Committed });
        self.next_ticket
    }

    /// Asks for the release before and runs until it is answered.
    pub(super) fn back(&mut self) -> Outcome {
        let ticket = self.ask_back();
        self.wait_for(ticket)
    }

    /// Runs until somebody is answered.
    pub(super) fn wait_for(&mut self, ticket: Ticket) -> Outcome {
        self.run();
        while !self.finished.contains_key(&ticket) && self.let_time_pass() {}
        self.finished.get(&ticket).cloned().unwrap()
    }

    /// How many answers there have to be.
    pub(super) fn asked(&self) -> u64 {
        self.next_ticket
    }

    /// The ids that task workers are to have.
    pub(super) fn task_worker_ids(&self) -> Vec<u32> {
        let Some((workers, tasks)) = self.core.in_force() else { return Vec::new() };
        let first = self.core.worker_num(workers);
        (first..first + self.core.task_worker_num(tasks)).collect()
    }

    pub(super) fn ask_scale(&mut self, wish: Wish) -> Ticket {
        self.next_ticket += 1;
        self.tell(Event::Scale { ticket: Some(self.next_ticket), wish });
        self.next_ticket
    }

    /// Asks for other numbers and runs until it is answered.
    pub(super) fn scale(&mut self, wish: Wish) -> Outcome {
        let ticket = self.ask_scale(wish);
        self.wait_for(ticket)
    }

    /// Asks for a reload and runs until it is answered.
    pub(super) fn reload(&mut self, scope: Scope) -> Outcome {
        let ticket = self.ask(scope, Until::Committed);
        self.wait_for(ticket)
    }

    pub(super) fn tell(&mut self, event: Event) {
        for action in self.core.on(event, self.now) {
            self.perform(&action);
            self.log.push(action);
        }
        if let Some(planned) = self.manager.take() {
            self.take_up(planned);
        }
    }

    /// Until nothing more happens by itself.
    pub(super) fn run(&mut self) {
        while let Some(event) = self.events.pop_front() {
            self.now += 1;
            self.tell(event);
        }
        // Told the time again, the core has nothing more to say.
        let before = self.log.len();
        self.tell(Event::Tick);
        self.tell(Event::Tick);
        assert!(self.events.is_empty() || self.log.len() > before);
    }

    /// On to the next deadline. False: there is none.
    pub(super) fn let_time_pass(&mut self) -> bool {
        let Some(due) = self.core.next_deadline() else { return false };
        self.now = self.now.max(due);
        self.tell(Event::Tick);
        self.run();
        true
    }

    pub(super) fn kill(&mut self, child: ChildId) {
        self.gone(child, Ended::Signal(9));
    }

    pub(super) fn gone(&mut self, child: ChildId, ended: Ended) {
        if self.processes.remove(&child).is_some() || self.hooks.remove(&child) {
            self.events.push_back(Event::Gone { child, ended, tasks_wait: false });
        }
    }

    /// Processes that start in the place of one that retires.
    pub(super) fn successors(&self, kind: Kind) -> usize {
        let successor = |it: &&Child| {
            it.kind == kind && it.is_staying() && matches!(it.purpose, Purpose::Successor { .. })
        };
        self.core.children().filter(successor).count()
    }

    /// Its loop turns no more.
    pub(super) fn stick(&mut self, child: ChildId) {
        let now = self.now;
        if let Some(process) = self.processes.get_mut(&child) {
            process.stuck.get_or_insert(now);
        }
    }

    pub(super) fn kill_template(&mut self, generation: Generation) {
        if self.templates.remove(&generation) {
            let ended = Ended::Signal(9);
            self.events.push_back(Event::TemplateGone { generation, ended });
        }
    }

    pub(super) fn serving_in(&self, generation: Generation, kind: Kind) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .processes
            .values()
            .filter(|it| it.generation == generation && it.kind == kind)
            .filter(|it| it.serving && !it.draining)
            .map(|it| it.worker_id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Slots that somebody serves, of whatever generation.
    pub(super) fn slots_served(&self) -> BTreeSet<u32> {
        let serves = |it: &&Process| it.kind == Kind::Worker && it.serving && !it.draining;
        self.processes.values().filter(serves).map(|it| it.worker_id).collect()
    }

    /// The slots whose queues somebody empties.
    pub(super) fn queues_served(&self) -> BTreeSet<u32> {
        let serves = |it: &&Process| it.kind == Kind::Worker && it.serving && !it.draining;
        self.processes.values().filter(serves).flat_map(|it| it.doors.iter().copied()).collect()
    }

    /// What the manager gives a worker: its own slot, and those of workers that are no more.
    fn doors(&self, number: u32, worker_id: u32) -> BTreeSet<u32> {
        (0..number.max(self.used)).filter(|it| *it == worker_id || *it >= number).collect()
    }

    pub(super) fn child(&self, generation: Generation, kind: Kind, id: u32) -> ChildId {
        let found = self
            .processes
            .iter()
            .find(|(_, it)| it.generation == generation && it.kind == kind && it.worker_id == id);
        *found.unwrap().0
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal_all(&mut self) {
        self.plan.fault = Fault::None;
        self.plans.values_mut().for_each(|plan| Rc::make_mut(plan).fault = Fault::None);
    }

    /// Generations whose template stays for more than a rollback.
    pub(super) fn busy_templates(&self) -> Vec<Generation> {
        let busy = |it: &Generation| !self.core.is_parked(*it);
        self.templates.iter().copied().filter(busy).collect()
    }

    /// From here on this goes wrong in a generation.
    pub(super) fn set_fault(&mut self, generation: Generation, fault: Fault) {
        if let Some(plan) = self.plans.get_mut(&generation) {
            Rc::make_mut(plan).fault = fault;
        }
    }

    fn fault(&self, generation: Generation) -> Fault {
        self.plans.get(&generation).map_or(Fault::None, |plan| plan.fault)
    }
}
