//! The first minutes of a generation in force: it is observed, and taken back if it is no good.
//!
//! Nothing else waits for that: a reload that is asked for meanwhile starts at once, and what it would
//! be taken back to is still the last generation that was committed.

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;

use super::action::Action;
use super::child::Child;
use super::event::{ChildId, Generation, Millis, Until};
use super::judge::FEWEST;
use super::outcome::{Progress, Verdict};
use super::parked::Pair;
use super::reload::{Request, Run};
use super::sample::{Meter, Sample};
use super::{Core, Phase, millis};

/// Answers are counted so often.
const PERIOD: Millis = 1_000;

/// A generation that serves and is not committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Observation {
    /// What has brought it into force, with those who wait for the end of it.
    pub(super) run: Run,
    since: Millis,
    /// When it is committed.
    until: Millis,
    /// When its answers are counted next.
    due: Millis,
    crashes: u32,
    /// The last one of them.
    crash: String,
    meter: Meter,
}

impl Observation {
    pub(super) fn generation(&self) -> Generation {
        self.run.generation
    }
}

impl Core {
    /// A generation has taken over from `before`: it is committed, or observed first.
    pub(super) fn taken_over(&mut self, run: Run, before: Option<Pair>) {
        let mut run = run;
        match self.observation.take() {
            // What was observed so far is left without having been committed; whoever waits for it is
            // answered by what came of the run that has replaced it.
            Some(observed) => {
                self.log(format!(
                    "generation {} is replaced while it was observed",
                    observed.generation()
                ));
                run.waiters.extend(observed.run.waiters);
                run.told.extend(observed.run.told);
            }
            None => self.parked.extend(before),
        }
        let time = self.settings_of(run.generation).map_or(0, |it| millis(it.observe_time));
        if time == 0 || self.parked.is_empty() {
            self.trim_parked();
            self.finish(run, Verdict::Committed);
        } else {
            self.begin_observing(run, time);
        }
    }

    fn begin_observing(&mut self, mut run: Run, time: Millis) {
        let (early, waiters): (Vec<_>, Vec<_>) =
            run.waiters.drain(..).partition(|waiter| waiter.until == Until::Replaced);
        run.waiters = waiters;
        let outcome = self.outcome(run.what(), Verdict::Replaced, "", run.began);
        let tickets: Vec<_> = early.into_iter().map(|waiter| waiter.ticket).collect();
        run.told.extend(&tickets);
        self.out.push(Action::Finish { tickets, outcome });
        self.observation = Some(Observation {
            run,
            since: self.now,
            until: self.now + time,
            due: self.now,
            crashes: 0,
            crash: String::new(),
            meter: Meter::default(),
        });
        self.trim_parked();
        self.phase = Phase::Idle;
        self.report_observing();
    }

    /// One of the processes that stand for an observed generation is gone.
    pub(super) fn count_crash(&mut self, child: &Child, how: &str) {
        if let Some(observation) = &mut self.observation
            && observation.run.generation == child.queue
        {
            observation.crashes += 1;
            observation.crash = format!("{}: {how}", child.name());
        }
    }

    /// Counts, commits, or takes back.
    pub(super) fn advance_observation(&mut self) {
        let Some(observation) = &self.observation else { return };
        if let Some(reason) = self.too_bad(observation) {
            self.take_back(&reason);
            return;
        }
        if observation.until <= self.now {
            self.end_observing();
            return;
        }
        if observation.due > self.now {
            return;
        }
        let period = ((observation.until - observation.since) / 4).clamp(100, PERIOD);
        let generation = observation.generation();
        let children = self.measured_workers(generation);
        if let Some(observation) = &mut self.observation {
            observation.due = self.now + period;
        }
        self.out.push(Action::Measure { children });
        self.report_observing();
    }

    /// When the observed generation has to be looked at. One that is to be taken back waits for the end
    /// of something else, and not for a time.
    pub(super) fn observation_due(&self) -> Option<Millis> {
        let observation = self.observation.as_ref()?;
        self.too_bad(observation).is_none().then(|| observation.until.min(observation.due))
    }

    /// The workers of a generation that count for it.
    pub(super) fn measured_workers(&self, generation: Generation) -> Vec<ChildId> {
        let counts = |it: &&Child| {
            it.generation == generation && it.kind == Kind::Worker && it.serving_since.is_some()
        };
        self.children.values().filter(counts).map(|it| it.id).collect()
    }

    /// What processes have counted is known.
    pub(super) fn observed(&mut self, samples: &[(ChildId, Sample)]) {
        let Some(observation) = &mut self.observation else { return };
        let generation = observation.run.generation;
        let own =
            |id: &ChildId| self.children.get(id).is_some_and(|it| it.generation == generation);
        observation.meter.take(samples.iter().filter(|(id, _)| own(id)).copied());
    }

    /// Why an observed generation cannot stay.
    fn too_bad(&self, observation: &Observation) -> Option<String> {
        let settings = self.settings_of(observation.generation())?;
        let seconds = self.now.saturating_sub(observation.since) as f64 / 1_000.0;
        let crashes = observation.crashes;
        if crashes > settings.max_crashes {
            return Some(format!(
                "{crashes} processes of generation {} died in {seconds:.1} s (max_crashes {}), the \
                 last one: {}",
                observation.generation(),
                settings.max_crashes,
                observation.crash
            ));
        }
        let sum = observation.meter.sum();
        let rate = settings.max_error_rate?;
        (sum.served() >= FEWEST && sum.error_share() > rate).then(|| {
            format!(
                "generation {} failed {} of {} requests in {seconds:.1} s (max_error_rate {rate})",
                observation.generation(),
                sum.failures,
                sum.served()
            )
        })
    }

    /// Nothing has spoken against it.
    fn end_observing(&mut self) {
        let Some(observation) = self.observation.take() else { return };
        self.trim_parked();
        self.answer(observation.run, Verdict::Committed);
    }

    /// Goes back unasked. What goes on otherwise gives way: a reload that has not taken over begins
    /// anew when that is done.
    fn take_back(&mut self, reason: &str) {
        match &self.phase {
            Phase::Replacing(run) if run.batch_opened || run.drained => return,
            Phase::Starting(_) | Phase::Proving(_) | Phase::Replacing(_) => self.interrupt_run(),
            Phase::Scaling(_) => self.fail_scaling(reason),
            Phase::Idle => {}
            Phase::RollingBack(_) | Phase::Upgrading(_) | Phase::Stopping(_) => return,
        }
        let Some(to) = self.newest_parked() else { return };
        let Some(observation) = self.observation.take() else { return };
        let mut run = observation.run;
        run.failure = reason.to_owned();
        self.begin_return(run, to);
    }

    /// The run under way is as if it had not begun: it waits.
    fn interrupt_run(&mut self) {
        let Some(run) = self.phase.run().cloned() else { return };
        self.log(format!("generation {} has to wait and starts anew", run.generation));
        self.leave_generation(run.generation);
        let mut request = Request {
            scope: run.scope,
            overrides: run.overrides,
            waiters: run.waiters,
            upgrade: false,
            upgraded: run.upgraded,
            leaves: None,
            hurried: run.hurried,
        };
        if let Some(later) = self.waiting.take() {
            request.absorb(later);
        }
        self.waiting = Some(request);
        self.phase = Phase::Idle;
    }

    /// Tells those who wait, in seconds.
    fn report_observing(&mut self) {
        let Some(observation) = &self.observation else { return };
        let tickets: Vec<_> = observation.run.waiters.iter().map(|it| it.ticket).collect();
        let seconds = |time: Millis| u32::try_from(time / 1_000).unwrap_or(u32::MAX);
        let progress = Progress {
            phase: "observing".into(),
            generation: observation.generation(),
            done: seconds(self.now - observation.since),
            total: seconds(observation.until - observation.since),
            slots: Vec::new(),
        };
        if self.phase == Phase::Idle {
            self.tell_progress(progress);
        } else if !tickets.is_empty() {
            // Another run goes on, and its slots are told to those who wait for that.
            self.out.push(Action::Progress { tickets, progress });
        }
    }
}
