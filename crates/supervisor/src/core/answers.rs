//! What those who have asked for something are told at its end.

use crate::settings::needs_restart;

use super::Core;
use super::action::Action;
use super::event::{Generation, Millis, Scope, Until};
use super::history::{Ended, What};
use super::outcome::{Outcome, Progress, Verdict};
use super::reload::Run;
use super::retire::HURRIED;

/// The generation that is started, and not reloaded.
const FIRST: Generation = 1;

impl Core {
    /// Answers those who wait for a run.
    pub(super) fn answer(&mut self, run: Run, verdict: Verdict) {
        self.tell_slots();
        let mut outcome = self.outcome(run.what(), verdict, &run.failure, run.began);
        if run.generation > FIRST {
            self.tally.reloaded(verdict, outcome.duration_ms);
        }
        if verdict == Verdict::Committed {
            outcome.warnings = self.changes_that_wait(run.generation);
            outcome.warnings.extend(run.hurried.map(|oldest| {
                format!(
                    "generation {oldest} had at most {} s more to drain, to make room for this one \
                     (max_generations)",
                    HURRIED / 1000
                )
            }));
            if !run.unjudged.is_empty() {
                outcome.reason = format!("unproven: {}", run.unjudged);
                outcome.warnings.push(outcome.reason.clone());
            }
            outcome.task_generation = (run.scope == Scope::Tasks).then_some(run.generation);
        } else if run.upgraded {
            outcome.warnings.push("manager and master are the new program all the same".into());
        }
        let tickets = run.told.iter().copied().chain(run.waiters.iter().map(|it| it.ticket));
        self.record(&Ended {
            what: run.what(),
            from: if run.asked_back { run.generation } else { run.from },
            to: if run.asked_back { outcome.generation } else { run.generation },
            began: run.began,
            tickets: tickets.collect(),
            outcome: &outcome,
        });
        // Who has not got what was asked for is told at once.
        let done =
            verdict == Verdict::Committed || (verdict == Verdict::RolledBack && run.asked_back);
        let (later, now): (Vec<_>, Vec<_>) =
            run.waiters.into_iter().partition(|waiter| done && waiter.until == Until::Drained);
        let patient: Vec<_> = later.iter().map(|waiter| waiter.ticket).collect();
        if !patient.is_empty() {
            let (phase, generation) = ("draining".into(), outcome.generation);
            let progress = Progress { phase, generation, ..Progress::default() };
            self.out.push(Action::Progress { tickets: patient, progress });
        }
        self.draining.extend(later.into_iter().map(|waiter| (waiter, outcome.clone())));
        let tickets = now.into_iter().map(|waiter| waiter.ticket).collect();
        self.out.push(Action::Finish { tickets, outcome });
    }

    pub(super) fn outcome(
        &self,
        what: What,
        verdict: Verdict,
        reason: &str,
        began: Millis,
    ) -> Outcome {
        Outcome {
            what,
            outcome: verdict,
            generation: self.generation(),
            reason: reason.to_owned(),
            output: String::new(),
            duration_ms: self.now.saturating_sub(began),
            warnings: Vec::new(),
            scaled: None,
            task_generation: None,
        }
    }

    /// Settings that differ from those of the start and that a reload does not reach.
    fn changes_that_wait(&self, generation: Generation) -> Vec<String> {
        let (Some(before), Some(after)) = (&self.started_with, self.settings_of(generation)) else {
            return Vec::new();
        };
        needs_restart(before, after)
            .into_iter()
            .map(|key| format!("server.{key} has changed; that takes effect at the next start"))
            .collect()
    }
}
