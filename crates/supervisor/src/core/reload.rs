//! A reload from the request to the loaded template, and its outcome.
//!
//! ```text
//! Idle → Starting → (Proving →) Replacing → Idle
//!            └──────────┴────────────┴──→ (RollingBack →) Idle
//! ```

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::child::Purpose;
use super::event::{Generation, Millis, Scope, Ticket, Until};
use super::generation::Template;
use super::history::What;
use super::outcome::{Progress, Verdict};
use super::stop::Stop;
use super::{Core, Phase, millis};

/// Somebody who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) ticket: Ticket,
    pub(super) until: Until,
}

/// A reload that has been asked for and has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) scope: Scope,
    pub(super) overrides: Vec<String>,
    pub(super) waiters: Vec<Waiter>,
    /// Whether manager and master are replaced first.
    #[serde(default)]
    pub(super) upgrade: bool,
    /// Whether they have been already, for this reload to follow.
    #[serde(default)]
    pub(super) upgraded: bool,
    /// It is no reload, but the way back from this generation.
    #[serde(default)]
    pub(super) leaves: Option<Generation>,
    /// The generation whose time to drain was cut short for it.
    #[serde(default)]
    pub(super) hurried: Option<Generation>,
}

impl Request {
    /// One for a reload.
    pub(super) fn reload(
        ticket: Option<Ticket>,
        scope: Scope,
        overrides: Vec<String>,
        until: Until,
    ) -> Self {
        let waiters = ticket.map(|ticket| Waiter { ticket, until }).into_iter().collect();
        Self {
            scope,
            overrides,
            waiters,
            upgrade: false,
            upgraded: false,
            leaves: None,
            hurried: None,
        }
    }

    /// What it asks for.
    pub(super) fn what(&self) -> What {
        match self.scope {
            _ if self.leaves.is_some() => What::Rollback,
            _ if self.upgrade => What::Upgrade,
            Scope::All => What::Reload,
            Scope::Tasks => What::ReloadTasks,
        }
    }

    /// One that was made later is run together with this one; of a reload and the way back only the
    /// later one is run, for all who wait. New task workers alone do not change one's mind about the
    /// way back.
    pub(super) fn absorb(&mut self, later: Self) {
        self.waiters.extend(later.waiters);
        match (self.leaves, later.leaves) {
            (None, None) => {
                if later.scope == Scope::All {
                    self.scope = Scope::All;
                }
                self.overrides.extend(later.overrides);
                self.upgrade |= later.upgrade;
                self.upgraded |= later.upgraded;
            }
            (Some(_), None) if later.scope == Scope::Tasks => {}
            (Some(_), Some(_)) => {}
            (Some(_), None) | (None, Some(_)) => {
                self.scope = later.scope;
                self.overrides = later.overrides;
                self.upgrade = later.upgrade;
                self.upgraded |= later.upgraded;
                self.leaves = later.leaves;
            }
        }
    }
}

/// A reload under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) generation: Generation,
    /// The one that it is to replace (0: none).
    #[serde(default)]
    pub(super) from: Generation,
    pub(super) scope: Scope,
    pub(super) waiters: Vec<Waiter>,
    /// Those who waited for no more than that it serves.
    #[serde(default)]
    pub(super) told: Vec<Ticket>,
    /// What was to hold beyond the settings in force.
    #[serde(default)]
    pub(super) overrides: Vec<String>,
    pub(super) began: Millis,
    /// Until all processes have to be ready; None once that is of no account.
    pub(super) deadline: Option<Millis>,
    /// The hook that decides over the start.
    pub(super) hook: Option<u64>,
    /// First worker slot of the batch that is being replaced.
    pub(super) batch: u32,
    /// Whether the processes of the batch have been forked.
    pub(super) forked: bool,
    /// Whether any process of the generation has been told to serve.
    pub(super) opened: bool,
    /// Whether the processes of this batch have been told to serve.
    pub(super) batch_opened: bool,
    /// Whether any old process has been told to drain.
    pub(super) drained: bool,
    /// Processes that were ready at the last report.
    pub(super) reported: u32,
    /// Why it is being rolled back.
    pub(super) failure: String,
    /// It is no reload, but a way back that was asked for.
    #[serde(default)]
    pub(super) asked_back: bool,
    /// Whether manager and master have become the new program before it.
    #[serde(default)]
    pub(super) upgraded: bool,
    /// Why its canary was not judged, if it was not.
    #[serde(default)]
    pub(super) unjudged: String,
    /// As of the request.
    #[serde(default)]
    pub(super) hurried: Option<Generation>,
}

impl Run {
    /// One that has not done anything.
    pub(super) fn new(generation: Generation, request: &Request, now: Millis) -> Self {
        Self {
            generation,
            from: 0,
            scope: request.scope,
            waiters: request.waiters.clone(),
            told: Vec::new(),
            overrides: request.overrides.clone(),
            began: now,
            deadline: None,
            hook: None,
            batch: 0,
            forked: false,
            opened: false,
            batch_opened: false,
            drained: false,
            reported: 0,
            failure: String::new(),
            asked_back: request.leaves.is_some(),
            upgraded: request.upgraded,
            unjudged: String::new(),
            hurried: request.hurried,
        }
    }

    /// What it is.
    pub(super) fn what(&self) -> What {
        match self.scope {
            _ if self.asked_back => What::Rollback,
            _ if self.from == 0 => What::Start,
            Scope::All => What::Reload,
            Scope::Tasks => What::ReloadTasks,
        }
    }
}

impl Core {
    /// Takes a request: one waits, the last one wins, and all who asked are answered by its run.
    pub(super) fn reload_asked(
        &mut self,
        ticket: Option<Ticket>,
        scope: Scope,
        overrides: Vec<String>,
        until: Until,
    ) {
        self.queue(Request::reload(ticket, scope, overrides, until));
    }

    /// Has a request wait for its turn.
    pub(super) fn queue(&mut self, request: Request) {
        let tickets: Vec<Ticket> = request.waiters.iter().map(|it| it.ticket).collect();
        if matches!(self.phase, Phase::Stopping(_)) {
            let reason = "the server is stopping";
            let outcome = self.outcome(request.what(), Verdict::Aborted, reason, self.now);
            self.out.push(Action::Finish { tickets, outcome });
            return;
        }
        match &mut self.waiting {
            Some(waiting) => waiting.absorb(request),
            None => self.waiting = Some(request),
        }
        if self.phase != Phase::Idle {
            let progress = Progress { phase: "waiting".into(), ..Progress::default() };
            self.out.push(Action::Progress { tickets, progress });
        }
    }

    /// Begins what waits, unless too many generations live.
    pub(super) fn begin_waiting(&mut self) {
        self.begin_scaling();
        if self.phase != Phase::Idle {
            return;
        }
        let Some(waiting) = &self.waiting else { return };
        let (upgrade, leaves) = (waiting.upgrade, waiting.leaves);
        // The new program could not take back what the old one observes.
        let waits = upgrade && self.observation.is_some();
        if waits || (!upgrade && leaves.is_none() && !self.make_room()) {
            return;
        }
        let Some(request) = self.waiting.take() else { return };
        match leaves {
            Some(leaves) => self.begin_rollback(request, leaves),
            None if upgrade => self.begin_upgrade(request),
            None => self.begin_reload(&request),
        }
    }

    fn begin_reload(&mut self, request: &Request) {
        let generation = self.new_generation(request.overrides.clone());
        let start_timeout =
            self.settings().map_or(self.start_timeout, |it| millis(it.start_timeout));
        self.log(match (self.workers, request.scope) {
            (None, _) => format!("starting generation {generation}"),
            (_, Scope::All) => format!("reloading: generation {generation} starts"),
            (_, Scope::Tasks) => {
                format!("reloading task workers: generation {generation} starts")
            }
        });
        let mut run = Run::new(generation, request, self.now);
        let from = match request.scope {
            Scope::All => self.workers,
            Scope::Tasks => self.tasks,
        };
        run.from = from.unwrap_or(0);
        run.deadline = Some(self.now + start_timeout);
        self.phase = Phase::Starting(run);
        self.begin_telling();
        self.report("starting", 0, 0);
    }

    /// Goes on as soon as the template is loaded and `on_start` has returned.
    pub(super) fn advance_starting(&mut self) {
        let Phase::Starting(run) = &mut self.phase else { return };
        let Some(state) = self.generations.get(&run.generation) else { return };
        if let Some(hello) = &state.hello {
            run.deadline = Some(run.began + millis(hello.settings.start_timeout));
        }
        if run.deadline.is_some_and(|deadline| deadline <= self.now) {
            let during = match state.template {
                Template::Starting => "the release has not called run()",
                Template::Binding => "its addresses are not bound",
                Template::Loading => "preload has not returned",
                _ => "on_start has not returned",
            };
            self.fail_run(format!("start_timeout has passed: {during}"));
        } else if state.template == Template::Loaded && run.hook.is_none() {
            let run = run.clone();
            if self.proves(&run) {
                self.begin_proving(run);
            } else {
                self.begin_replacing(run);
            }
        }
    }

    pub(super) fn begin_replacing(&mut self, run: Run) {
        self.phase = Phase::Replacing(run);
        self.advance_replacing();
    }

    /// Ends the run under way as failed: the old generation serves, or is brought back.
    pub(super) fn fail_run(&mut self, reason: String) {
        if matches!(self.phase, Phase::RollingBack(_)) {
            return;
        }
        let Some(mut run) = self.phase.run().cloned() else { return };
        run.failure = reason;
        if self.workers.is_none() {
            self.fail_start(run);
        } else if run.drained {
            self.begin_rolling_back(run);
        } else {
            let verdict = if run.opened { Verdict::RolledBack } else { Verdict::Aborted };
            self.leave_generation(run.generation);
            self.finish(run, verdict);
        }
    }

    /// The very first generation has failed: everything goes, then the exit.
    fn fail_start(&mut self, run: Run) {
        let generation = run.generation;
        self.finish(run, Verdict::Aborted);
        self.leave_generation(generation);
        self.phase = Phase::Stopping(Stop::failed_start());
    }

    /// Ends what goes on, and answers.
    pub(super) fn finish(&mut self, run: Run, verdict: Verdict) {
        self.answer(run, verdict);
        self.phase = Phase::Idle;
    }

    /// Tells those who wait how far the run is.
    pub(super) fn report(&mut self, phase: &str, done: u32, total: u32) {
        let Some(run) = self.phase.run() else { return };
        let (phase, generation) = (phase.to_owned(), run.generation);
        self.tell_progress(Progress { phase, generation, done, total, slots: Vec::new() });
    }

    /// Whether a child belongs to a reload that has not let all of its kind serve.
    pub(super) fn fails_run(&self, generation: Generation, purpose: Purpose) -> bool {
        let of = |run: &Run| run.generation == generation && purpose == Purpose::Reload;
        match &self.phase {
            Phase::Proving(proving) => of(&proving.run),
            Phase::Replacing(run) => of(run),
            _ => false,
        }
    }
}
