//! A world without processes: it answers the core's actions with what processes would say.

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
use crate::protocol::template::{Formats, Hello, HookName, Kind};
use crate::protocol::worker::{DrainMode, RetireCause};
use crate::settings::ServerSettings;
use crate::slab_format;

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

    /// The manager dies after it has written down what follows from the next event and has done
    /// only the first few things of it; another one goes on.
    pub(super) fn kill_manager(&mut self, performed: usize) {
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
    pub(super) fn kill_manager_before_it_writes(&mut self) {
        self.events.pop_front();
        self.take_up(false);
    }

    fn take_up(&mut self, planned: bool) {
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

    fn perform(&mut self, action: &Action) {
        match action {
            Action::SpawnTemplate { generation, .. } => self.execute(*generation),
            Action::Bind { generation } => {
                let generation = *generation;
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "in use".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Rebind { generation } => {
                let generation = *generation;
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "in use by now".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Widen { generation } => {
                let generation = *generation;
                self.used = self.used.max(self.core.worker_num(generation));
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "no descriptors".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Doors { child, workers } => {
                let process = self.processes.get(child).cloned();
                if let Some(process) = process {
                    let doors = self.doors(*workers, process.worker_id);
                    if process.serving && !process.draining {
                        self.opened.extend(&doors);
                    }
                    self.processes.insert(*child, Process { doors, ..process });
                }
            }
            Action::Load { generation } => self.load(*generation),
            Action::Fork { child, generation, kind, worker_id, .. } => {
                self.fork(*child, *generation, *kind, *worker_id);
            }
            Action::Hook { child, .. } => {
                self.hooks.insert(*child);
                self.events.push_back(Event::Forked { child: *child, pid: 7 });
                self.gone(*child, Ended::Code(0));
            }
            Action::Serve { child } => {
                if let Some(process) = self.processes.get_mut(child) {
                    process.serving = true;
                    if process.kind == Kind::Worker {
                        self.opened.extend(&process.doors);
                    }
                    self.events.push_back(Event::Serving { child: *child });
                    let generation = process.generation;
                    if process.kind == Kind::Worker && self.fault(generation) == Fault::Crashes {
                        self.kill(*child);
                    }
                }
            }
            Action::Drain { child, grace, mode, .. } => {
                if let Some(process) = self.processes.get_mut(child) {
                    process.draining = true;
                    let slow =
                        self.slow_drain && grace.max_wait > 0 && *mode == DrainMode::HandOver;
                    let stays = slow || self.drains_by_hand;
                    if !stays && process.stuck.is_none() {
                        self.gone(*child, Ended::Code(0));
                    }
                }
            }
            Action::Kill { child, .. } => self.gone(*child, Ended::Signal(9)),
            Action::Look { children } => {
                let beat = |child: &ChildId| {
                    let process = self.processes.get(child)?;
                    Some((*child, process.stuck.unwrap_or(self.now)))
                };
                let beats = children.iter().filter_map(beat).collect();
                self.events.push_back(Event::Looked { beats });
            }
            Action::CheckHealth { child, attempt } => {
                let generation = self.processes.get(child).map_or(0, |it| it.generation);
                let failure = match self.fault(generation) {
                    Fault::Mute => return,
                    Fault::Unhealthy => Some("503".to_owned()),
                    _ => None,
                };
                let (child, attempt) = (*child, *attempt);
                self.events.push_back(Event::Health { child, attempt, failure });
            }
            Action::Measure { children } => {
                let samples = children.iter().filter_map(|child| self.count(*child)).collect();
                self.events.push_back(Event::Measured { samples });
            }
            Action::ExitTemplate { generation } => {
                let generation = *generation;
                if self.templates.remove(&generation) {
                    let ended = Ended::Code(0);
                    self.events.push_back(Event::TemplateGone { generation, ended });
                }
            }
            Action::KillTemplate { generation } => self.kill_template(*generation),
            Action::Finish { tickets, outcome } | Action::Answer { tickets, outcome } => {
                for ticket in tickets {
                    let twice = self.finished.insert(*ticket, outcome.clone());
                    assert!(twice.is_none(), "ticket {ticket} was answered twice");
                }
            }
            Action::Exit { code } => {
                assert_eq!(self.exit, None, "two exits");
                self.exit = Some(*code);
            }
            Action::Probe => {
                let refused = self.plan.fault == Fault::ProbeRefuses;
                let result = if refused { Err("too new".into()) } else { Ok(()) };
                self.events.push_back(Event::Probed { result });
            }
            Action::ReplaceManager if self.plan.fault == Fault::ManagerStays => {
                self.events.push_back(Event::NotReplaced { reason: "no program".into() });
            }
            Action::ReplaceManager => self.manager = Some(true),
            Action::ReplaceMaster => {
                let stays = self.plan.fault == Fault::MasterStays;
                let result = if stays { Err("no program".into()) } else { Ok(()) };
                self.events.push_back(Event::MasterReplaced { result });
            }
            Action::StepDown => self.manager = Some(false),
            Action::EndProbe => self.events.retain(|it| !matches!(it, Event::Probed { .. })),
            Action::Commit { generation, .. } => {
                self.used = self.used.max(self.core.worker_num(*generation));
            }
            Action::Inspect { .. }
            | Action::Trial { .. }
            | Action::Stopping
            | Action::Forget { .. }
            | Action::Progress { .. }
            | Action::Log { .. } => {}
        }
    }

    /// Whoever is measured has served something since the last time.
    fn count(&mut self, child: ChildId) -> Option<(ChildId, Sample)> {
        let generation = self.processes.get(&child)?.generation;
        if self.fault(generation) == Fault::CrashesLater {
            self.kill(child);
            return None;
        }
        let failures = if self.fault(generation) == Fault::Errors { 5 } else { 0 };
        let traffic = self.traffic;
        let process = self.processes.get_mut(&child)?;
        if traffic {
            let more = Sample { requests: 10, failures, timed: 10, spent_us: 1_000 };
            process.counted = process.counted + more;
        }
        Some((child, process.counted))
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

    fn execute(&mut self, generation: Generation) {
        let plan =
            self.plans.entry(generation).or_insert_with(|| Rc::new(self.plan.clone())).clone();
        self.templates.insert(generation);
        match plan.fault {
            Fault::TemplateExits => {
                self.templates.remove(&generation);
                let ended = Ended::Code(3);
                self.events.push_back(Event::TemplateGone { generation, ended });
            }
            Fault::TemplateHangs => {}
            _ => {
                let formats = Formats { oldest: 1, newest: 1 };
                let hello = Box::new(Hello {
                    hand_over: formats,
                    slab: Formats { oldest: slab_format(), newest: slab_format() },
                    task: formats,
                    release: "r".into(),
                    settings: plan.settings.clone(),
                    listeners: Vec::new(),
                    hooks: plan.hooks.clone(),
                    health: plan.settings.health.is_some(),
                    places: None,
                });
                self.events.push_back(Event::Hello { generation, hello });
            }
        }
    }

    fn load(&mut self, generation: Generation) {
        // It has died, and the news is under way.
        if !self.templates.contains(&generation) {
            return;
        }
        if self.fault(generation) == Fault::PreloadFails {
            let reason = "preload has panicked".into();
            self.events.push_back(Event::TemplateFailed { generation, reason });
            self.templates.remove(&generation);
            let ended = Ended::Code(1);
            self.events.push_back(Event::TemplateGone { generation, ended });
        } else {
            self.events.push_back(Event::Loaded { generation });
        }
    }

    fn fork(&mut self, child: ChildId, generation: Generation, kind: Kind, worker_id: u32) {
        // It has died, and the news is under way: nothing comes of this.
        if !self.templates.contains(&generation) {
            return;
        }
        let fault = self.fault(generation);
        if fault == Fault::ForkRefused {
            let reason = "two threads".into();
            self.events.push_back(Event::NotForked { child, reason });
            return;
        }
        let doors = match kind {
            Kind::Worker => self.doors(self.core.worker_num(generation), worker_id),
            Kind::TaskWorker => BTreeSet::new(),
        };
        let (serving, draining) = (false, false);
        let (stuck, counted) = (None, Sample::default());
        let process =
            Process { generation, kind, worker_id, serving, draining, counted, stuck, doors };
        self.processes.insert(child, process);
        self.events.push_back(Event::Forked { child, pid: i32::try_from(child).unwrap() + 100 });
        let fails = match fault {
            Fault::StartFails => true,
            Fault::StartFailsFrom(first) => kind == Kind::Worker && worker_id >= first,
            _ => false,
        };
        if fails {
            self.events.push_back(Event::Failed { child, reason: "it panicked".into() });
            self.gone(child, Ended::Code(1));
        } else if fault != Fault::StartHangs {
            self.events.push_back(Event::Ready { child });
        }
    }
}
