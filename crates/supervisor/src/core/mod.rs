//! The decisions: `(state, event, now) -> actions`, without a system call.
//!
//! [`Core`] knows which generations and children there are and where each stands. Every event
//! changes that knowledge first; then the core looks at the whole and decides what
//! follows. The manager turns the actions into system calls.

pub mod action;
mod answers;
pub mod child;
pub mod event;
pub mod generation;
pub mod outcome;
pub mod respawn;

mod deadlines;
mod deaths;
mod forks;
mod go_back;
pub mod history;
mod hooks;
pub mod judge;
mod observe;
mod parked;
mod proving;
mod pulse;
mod reload;
mod replace;
mod retire;
mod retirement;
pub mod sample;
pub mod scale;
pub mod slots;
mod standing;
mod stop;
mod take_up;
pub mod tally;
mod templates;
#[cfg(test)]
mod tests;
mod upgrade;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::protocol::template::Kind;
use crate::settings::ServerSettings;

use action::{Action, Grace};
use child::Child;
use event::{ChildId, Event, Generation, Millis};
use generation::GenerationState;
use go_back::Return;
use hooks::HookRun;
use observe::Observation;
use parked::Pair;
use proving::Proving;
use reload::{Request, Run, Waiter};
use respawn::Backoff;
use scale::{Asked, Scale, Scaling};
use stop::Stop;
use tally::Tally;
use upgrade::Upgrade;

/// What goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// Nothing but serving.
    Idle,
    /// A new generation's template starts.
    Starting(Run),
    /// Its first worker shows what it is worth.
    Proving(Proving),
    /// Its processes start, and take over slot by slot.
    Replacing(Run),
    /// The old generation's processes take their slots back.
    RollingBack(Return),
    /// There are to be more or fewer processes.
    Scaling(Scaling),
    /// Manager and master become the new program.
    Upgrading(Upgrade),
    /// On the way to the exit.
    Stopping(Stop),
}

impl Phase {
    /// The run under way, if it is one.
    fn run(&self) -> Option<&Run> {
        match self {
            Self::Starting(run) | Self::Replacing(run) => Some(run),
            Self::Proving(proving) => Some(&proving.run),
            Self::RollingBack(back) => Some(&back.run),
            Self::Idle | Self::Scaling(_) | Self::Upgrading(_) | Self::Stopping(_) => None,
        }
    }
}

/// The pids that hooks are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// Of the master.
    pub master: i32,
    /// Of the manager.
    pub manager: i32,
}

/// Everything the decisions rest on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Core {
    pids: Pids,
    /// What holds until a release has said its own.
    start_timeout: Millis,
    now: Millis,
    generations: BTreeMap<Generation, GenerationState>,
    children: BTreeMap<ChildId, Child>,
    hooks: BTreeMap<ChildId, HookRun>,
    /// The generation whose workers serve, and that they are respawned from.
    workers: Option<Generation>,
    /// The same for task workers; differs after USR2.
    tasks: Option<Generation>,
    phase: Phase,
    /// What was in force before and can be again, the oldest first.
    #[serde(default)]
    parked: Vec<Pair>,
    /// The generation in force, while it is observed.
    #[serde(default)]
    observation: Option<Observation>,
    waiting: Option<Request>,
    respawns: Vec<forks::Respawn>,
    /// Who is to be replaced, in this order.
    #[serde(default)]
    retirements: Vec<retirement::Retirement>,
    #[serde(skip)]
    watch: pulse::Watch,
    #[serde(with = "crate::pairs")]
    backoffs: BTreeMap<(Generation, Kind, u32), Backoff>,
    draining: Vec<(Waiter, outcome::Outcome)>,
    /// Numbers that hold instead of those of the settings.
    #[serde(default)]
    scale: Scale,
    /// What is wished for and has not begun.
    #[serde(default)]
    scales: Vec<Asked>,
    #[serde(default)]
    history: history::History,
    #[serde(default)]
    tally: Tally,
    #[serde(skip)]
    told: slots::Told,
    greeted: bool,
    /// When the stop begins that was asked for.
    #[serde(default)]
    stop_at: Option<Millis>,
    /// The settings of the first generation: master and manager go by these.
    started_with: Option<ServerSettings>,
    next_child: ChildId,
    next_generation: Generation,
    #[serde(skip)]
    out: Vec<Action>,
}

impl Core {
    /// A core that has not started anything. `start_timeout` holds for the first release, until
    /// that has said its own.
    pub fn new(pids: Pids, start_timeout: std::time::Duration) -> Self {
        Self {
            pids,
            start_timeout: millis(start_timeout),
            now: 0,
            generations: BTreeMap::new(),
            children: BTreeMap::new(),
            hooks: BTreeMap::new(),
            workers: None,
            tasks: None,
            phase: Phase::Idle,
            parked: Vec::new(),
            observation: None,
            waiting: None,
            respawns: Vec::new(),
            retirements: Vec::new(),
            watch: pulse::Watch::default(),
            backoffs: BTreeMap::new(),
            draining: Vec::new(),
            scale: Scale::default(),
            scales: Vec::new(),
            history: history::History::default(),
            tally: Tally::default(),
            told: slots::Told::default(),
            greeted: false,
            stop_at: None,
            started_with: None,
            next_child: 1,
            next_generation: 1,
            out: Vec::new(),
        }
    }

    /// Takes in an event and answers with what is to be done, in this order.
    pub fn on(&mut self, event: Event, now: Millis) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Asked { ticket, asked } => self.note(ticket, asked),
            Event::Reload { ticket, scope, overrides, until } => {
                self.reload_asked(ticket, scope, overrides, until);
            }
            Event::Upgrade { ticket, overrides, until } => {
                self.upgrade_asked(ticket, overrides, until);
            }
            Event::Rollback { ticket, until } => self.rollback_asked(ticket, until),
            Event::Probed { result } => self.probed(result),
            Event::NotReplaced { reason } => self.not_replaced(&reason),
            Event::MasterReplaced { result } => self.master_replaced(result),
            Event::Scale { ticket, wish } => self.scale_asked(ticket, wish),
            Event::Stop => self.stop_asked(),
            Event::Hurry => self.hurry_asked(),
            Event::Quit => self.quit_asked(),
            Event::MasterGone => self.stop_now(),
            Event::Retire { child, cause, reason } => self.retire_asked(child, cause, reason),
            Event::Hello { generation, hello } => self.hello(generation, *hello),
            Event::Bound { generation } => self.bound(generation),
            Event::NotBound { generation, reason } => self.not_bound(generation, reason),
            Event::Loaded { generation } => self.loaded(generation),
            Event::TemplateFailed { generation, reason } => {
                self.template_failed(generation, reason);
            }
            Event::TemplateGone { generation, ended } => self.template_gone(generation, ended),
            Event::Forked { child, pid } => self.forked(child, pid),
            Event::NotForked { child, reason } => self.not_forked(child, reason),
            Event::Ready { child } => self.ready(child),
            Event::Failed { child, reason } => self.failed(child, reason),
            Event::Serving { child } => self.serving(child),
            Event::Looked { beats } => self.looked(beats),
            Event::Health { child, attempt, failure } => {
                self.health(child, attempt, failure.as_deref());
            }
            Event::Measured { samples } => {
                self.tried(&samples);
                self.observed(&samples);
            }
            Event::Gone { child, ended, tasks_wait } => self.gone(child, ended, tasks_wait),
            Event::TakenUp { manager, planned, nameless } => {
                self.taken_up(manager, planned, &nameless);
            }
            Event::Tick => {}
        }
        self.advance();
        self.tell_slots();
        std::mem::take(&mut self.out)
    }

    /// Decides what follows from where everything stands.
    fn advance(&mut self) {
        self.pass_deadlines();
        self.pass_stop_delay();
        self.feel_pulses();
        self.advance_observation();
        match self.phase {
            Phase::Idle => self.begin_waiting(),
            Phase::Starting(_) => self.advance_starting(),
            Phase::Proving(_) => self.advance_proving(),
            Phase::Replacing(_) => self.advance_replacing(),
            Phase::RollingBack(_) => self.advance_rolling_back(),
            Phase::Scaling(_) => self.advance_scaling(),
            Phase::Upgrading(_) => self.advance_upgrading(),
            Phase::Stopping(_) => self.advance_stopping(),
        }
        self.bring_templates_back();
        self.advance_retirements();
        self.fork_what_is_due();
        self.retire_generations();
        // A reload may wait for a generation that has just gone.
        if self.phase == Phase::Idle {
            self.begin_waiting();
        }
    }

    /// The settings of the generation whose workers serve.
    pub fn settings(&self) -> Option<&ServerSettings> {
        self.workers.and_then(|number| self.settings_of(number))
    }

    fn settings_of(&self, generation: Generation) -> Option<&ServerSettings> {
        Some(&self.generations.get(&generation)?.hello.as_ref()?.settings)
    }

    /// How long processes of a generation may drain.
    fn grace_of(&self, generation: Generation) -> Grace {
        let defaults = ServerSettings::default();
        let settings = self.settings_of(generation).unwrap_or(&defaults);
        let hurried = self.generations.get(&generation).is_some_and(|it| it.hurried);
        let most = if hurried { retire::HURRIED } else { Millis::MAX };
        let max_wait = millis(settings.max_wait_time).min(most);
        Grace { max_wait, guard: millis(settings.guard_time) }
    }

    /// The generation whose workers serve (0: none), for status and answers.
    pub fn generation(&self) -> Generation {
        self.workers.unwrap_or(0)
    }

    /// What has been decided so far, in numbers.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The children there are.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    /// A child, if it is there still.
    pub fn child(&self, id: ChildId) -> Option<&Child> {
        self.children.get(&id)
    }

    /// The numbers of all children and hooks.
    pub fn numbers(&self) -> impl Iterator<Item = ChildId> {
        self.children.keys().chain(self.hooks.keys()).copied()
    }

    /// Everybody who waits for the outcome of a reload.
    pub fn tickets(&self) -> Vec<event::Ticket> {
        let running: &[Waiter] = match &self.phase {
            Phase::Upgrading(upgrade) => &upgrade.request.waiters,
            other => other.run().map_or(&[], |run| &run.waiters),
        };
        let observed = self.observation.iter().flat_map(|it| &it.run.waiters);
        let waiting = self.waiting.iter().flat_map(|request| &request.waiters);
        let draining = self.draining.iter().map(|(waiter, _)| waiter);
        let reloads = running
            .iter()
            .chain(observed)
            .chain(waiting)
            .chain(draining)
            .map(|waiter| waiter.ticket);
        reloads.chain(self.scale_tickets()).collect()
    }

    /// The generations there are.
    pub fn generations(&self) -> impl Iterator<Item = (Generation, &GenerationState)> {
        self.generations.iter().map(|(number, state)| (*number, state))
    }

    /// What goes on, in a word: `starting`, `serving`, `reloading`, `observing`, `rolling_back`,
    /// `scaling`, `upgrading`, `stopping`.
    pub fn state(&self) -> &'static str {
        match self.phase {
            _ if self.workers.is_none() && !matches!(self.phase, Phase::Stopping(_)) => "starting",
            Phase::Idle if self.observation.is_some() => "observing",
            Phase::Idle => "serving",
            Phase::Starting(_) | Phase::Proving(_) | Phase::Replacing(_) => "reloading",
            Phase::RollingBack(_) => "rolling_back",
            Phase::Scaling(_) => "scaling",
            Phase::Upgrading(_) => "upgrading",
            Phase::Stopping(_) => "stopping",
        }
    }

    fn log(&mut self, text: impl Into<String>) {
        self.out.push(Action::Log { warning: false, text: text.into() });
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.out.push(Action::Log { warning: true, text: text.into() });
    }
}

/// A duration of the settings in the core's unit.
pub(crate) fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4).min(Millis::MAX / 4)
}
