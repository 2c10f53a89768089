//! A new generation proves itself before anything old retires: its first worker, the canary, is asked
//! whether it is healthy, and may then serve beside the old workers.
//!
//! ```text
//! Forking → Asking → Opening → Serving → Replacing
//!     └────────┴─────────┴────────┴──→ aborted, or, if it has served, rolled back
//! ```

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;

use super::action::Action;
use super::child::{Child, Purpose, State};
use super::event::{ChildId, Generation, Millis, Scope};
use super::judge::{Judgement, Limits, judge};
use super::outcome::Progress;
use super::reload::Run;
use super::replace::some;
use super::sample::{Meter, Sample};
use super::{Core, Phase, millis};

/// Between an answer that is not good and the next question.
const PAUSE: Millis = 500;
/// A worker minds `health_timeout` itself; one that does not even do that has so much longer.
const SLACK: Millis = 1_000;
/// So often is counted what canary and old workers have served.
const PERIOD: Millis = 250;

/// A generation that proves itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Proving {
    pub(super) run: Run,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Stage {
    /// Canary and task workers start.
    Forking,
    /// The canary is asked whether it is healthy, or will be.
    Asking(Question),
    /// It is told to serve, and the task workers are.
    Opening,
    /// It serves.
    Serving(Trial),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Question {
    /// How often it was asked, this time included.
    attempt: u32,
    /// Whether it is to be asked only at `until`.
    pause: bool,
    until: Millis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    since: Millis,
    /// When is counted next.
    due: Millis,
    canary: Meter,
    old: Meter,
}

impl Proving {
    /// When something has to be done, if nothing happens before.
    pub(super) fn next(&self) -> Option<Millis> {
        match &self.stage {
            Stage::Forking | Stage::Opening => self.run.deadline,
            Stage::Asking(question) => Some(question.until),
            Stage::Serving(trial) => Some(trial.due),
        }
    }
}

impl Core {
    /// Whether a generation has to prove itself. At the first start there is nobody to be compared
    /// with; new task workers alone are asked nothing.
    pub(super) fn proves(&self, run: &Run) -> bool {
        run.scope == Scope::All && (self.is_asked(run.generation) || self.is_tried(run.generation))
    }

    /// Whether it can tell if it is healthy.
    fn is_asked(&self, generation: Generation) -> bool {
        let hello = self.generations.get(&generation).and_then(|it| it.hello.as_ref());
        hello.is_some_and(|it| it.health)
    }

    /// Whether its canary serves beside others.
    fn is_tried(&self, generation: Generation) -> bool {
        self.workers.is_some() && self.settings_of(generation).is_some_and(|it| it.has_canary())
    }

    /// Whether this generation is about to.
    pub(super) fn is_proving(&self, generation: Generation) -> bool {
        matches!(&self.phase, Phase::Proving(it) if it.run.generation == generation)
    }

    pub(super) fn begin_proving(&mut self, run: Run) {
        let generation = run.generation;
        self.phase = Phase::Proving(Proving { run, stage: Stage::Forking });
        self.report("proving", 0, 1);
        let first = self.worker_num(generation);
        for worker_id in first..first + self.task_worker_num(generation) {
            self.fork(generation, generation, Kind::TaskWorker, worker_id, Purpose::Reload);
        }
        self.fork(generation, generation, Kind::Worker, 0, Purpose::Reload);
        self.advance_proving();
    }

    pub(super) fn advance_proving(&mut self) {
        let Phase::Proving(proving) = &self.phase else { return };
        let (generation, deadline) = (proving.run.generation, proving.run.deadline);
        let late = deadline.is_some_and(|deadline| deadline <= self.now);
        match proving.stage.clone() {
            Stage::Forking
                if self.provers(generation).iter().all(|it| it.state == State::Ready) =>
            {
                self.ask_or_open(generation);
            }
            Stage::Opening if self.provers(generation).iter().all(Child::is_serving) => {
                self.begin_trial();
            }
            Stage::Forking | Stage::Opening if late => {
                let late = self.provers(generation);
                let late =
                    late.iter().filter(|it| !matches!(it.state, State::Ready | State::Serving));
                let late: Vec<String> = late.map(Child::name).collect();
                self.fail_run(format!("start_timeout has passed: {} not ready", some(&late)));
            }
            Stage::Asking(question) if question.until <= self.now => match question.pause {
                true => self.ask(question.attempt),
                false => self.unhealthy("it has not answered in health_timeout"),
            },
            Stage::Serving(trial) if trial.due <= self.now => self.count_trial(),
            Stage::Forking | Stage::Opening | Stage::Asking(_) | Stage::Serving(_) => {}
        }
    }

    /// Canary and task workers; any that ends has the run fail, so none is ever missing.
    fn provers(&self, generation: Generation) -> Vec<Child> {
        let own = |it: &&Child| it.generation == generation && it.is_staying();
        self.children.values().filter(own).cloned().collect()
    }

    /// The worker that the proof is about.
    fn canary(&self) -> Option<ChildId> {
        let Phase::Proving(proving) = &self.phase else { return None };
        self.staying(proving.run.generation, Kind::Worker, 0).map(|it| it.id)
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Phase::Proving(proving) = &mut self.phase {
            proving.stage = stage;
        }
    }

    fn ask_or_open(&mut self, generation: Generation) {
        if self.is_asked(generation) { self.ask(1) } else { self.open_canary(generation) }
    }

    fn ask(&mut self, attempt: u32) {
        let (Some(child), Some(settings)) = (self.canary(), self.proving_settings()) else {
            return;
        };
        let until = self.now + millis(settings.health_timeout) + SLACK;
        self.set_stage(Stage::Asking(Question { attempt, pause: false, until }));
        self.out.push(Action::CheckHealth { child, attempt });
    }

    fn proving_settings(&self) -> Option<&crate::settings::ServerSettings> {
        let Phase::Proving(proving) = &self.phase else { return None };
        self.settings_of(proving.run.generation)
    }

    /// The canary has said how it is.
    pub(super) fn health(&mut self, child: ChildId, attempt: u32, failure: Option<&str>) {
        let Phase::Proving(Proving { run, stage: Stage::Asking(question) }) = &self.phase else {
            return;
        };
        let generation = run.generation;
        if question.pause || question.attempt != attempt || self.canary() != Some(child) {
            return;
        }
        match failure {
            None => self.open_canary(generation),
            Some(failure) => self.unhealthy(failure),
        }
    }

    /// It is asked again, or that was the last time.
    fn unhealthy(&mut self, failure: &str) {
        let Phase::Proving(Proving { stage: Stage::Asking(question), .. }) = &self.phase else {
            return;
        };
        let attempt = question.attempt;
        let tries = self.proving_settings().map_or(1, |it| it.health_tries);
        let times = if attempt == 1 { "once".into() } else { format!("{attempt} times") };
        if attempt >= tries {
            self.fail_run(format!("the new release is not healthy (asked {times}): {failure}"));
            return;
        }
        self.log(format!("not healthy yet: {failure}"));
        let until = self.now + PAUSE;
        self.set_stage(Stage::Asking(Question { attempt: attempt + 1, pause: true, until }));
    }

    /// It is healthy: it may serve, or all may.
    fn open_canary(&mut self, generation: Generation) {
        if !self.is_tried(generation) {
            self.proved();
            return;
        }
        let deadline = self.now + self.patience(generation);
        if let Phase::Proving(proving) = &mut self.phase {
            proving.stage = Stage::Opening;
            proving.run.opened = true;
            proving.run.deadline = Some(deadline);
        }
        self.show_trial(true);
        for child in self.provers(generation) {
            self.open(child.id);
        }
    }

    fn begin_trial(&mut self) {
        self.log("the canary serves beside the old workers");
        let (canary, old) = (Meter::default(), Meter::default());
        self.set_stage(Stage::Serving(Trial { since: self.now, due: self.now, canary, old }));
        self.report_trial(Sample::default());
        self.count_trial();
    }

    fn count_trial(&mut self) {
        let mut children: Vec<ChildId> = self.canary().into_iter().collect();
        children.extend(self.workers.into_iter().flat_map(|it| self.measured_workers(it)));
        let now = self.now;
        if let Phase::Proving(Proving { stage: Stage::Serving(trial), .. }) = &mut self.phase {
            trial.due = now + PERIOD;
            self.out.push(Action::Measure { children });
        }
    }

    /// What canary and old workers have served is known.
    pub(super) fn tried(&mut self, samples: &[(ChildId, Sample)]) {
        let canary = self.canary();
        let old = self.workers;
        let is_old =
            |id: &ChildId| self.children.get(id).is_some_and(|it| Some(it.generation) == old);
        let Phase::Proving(Proving { run, stage: Stage::Serving(trial) }) = &mut self.phase else {
            return;
        };
        let generation = run.generation;
        trial.canary.take(samples.iter().filter(|(id, _)| Some(*id) == canary).copied());
        trial.old.take(samples.iter().filter(|(id, _)| is_old(id)).copied());
        let (new, known) = (trial.canary.sum(), trial.old.sum());
        let lasted = self.now.saturating_sub(trial.since);
        let Some(settings) = self.settings_of(generation) else { return };
        match judge(&new, &known, &Limits::of(settings), lasted) {
            Judgement::Open => self.report_trial(new),
            Judgement::Bad(reason) => self.fail_run(reason),
            Judgement::Good(seen) => {
                self.log(seen);
                self.proved();
            }
            Judgement::Unjudged(why) => {
                self.log(format!("the canary is not judged: {why}"));
                if let Phase::Proving(proving) = &mut self.phase {
                    proving.run.unjudged = why;
                }
                self.proved();
            }
        }
    }

    /// The others may follow.
    fn proved(&mut self) {
        let Phase::Proving(proving) = &self.phase else { return };
        let mut run = proving.run.clone();
        if run.opened {
            self.show_trial(false);
        }
        run.deadline = Some(self.now + self.patience(run.generation));
        self.begin_replacing(run);
    }

    /// A release that is not trusted yet takes up no connection that an old worker could: its faults
    /// would be felt by clients that have not come to it.
    fn show_trial(&mut self, judged: bool) {
        let canary = self.canary();
        self.out.extend(canary.map(|child| Action::Trial { child, judged }));
    }

    /// Tells those who wait: requests of those that it takes.
    fn report_trial(&mut self, canary: Sample) {
        let Phase::Proving(Proving { run, stage: Stage::Serving(_) }) = &self.phase else { return };
        let Some(settings) = self.settings_of(run.generation) else { return };
        let number = |it: u64| u32::try_from(it).unwrap_or(u32::MAX);
        let progress = Progress {
            phase: "canary".into(),
            generation: run.generation,
            done: number(canary.served()),
            total: number(Limits::of(settings).requests),
            slots: Vec::new(),
        };
        self.tell_progress(progress);
    }
}
