//! The way back: every slot is the old generation's again before anything of the new one goes.
//!
//! Three ways lead here: a reload in parts that fails half-way, an observed generation that is no good,
//! and somebody who asks for it.

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;

use super::action::Action;
use super::child::Child;
use super::event::{Generation, Millis, Scope, Ticket, Until};
use super::forks::Respawn;
use super::outcome::{ASKED_BACK, Verdict};
use super::parked::Pair;
use super::reload::{Request, Run};
use super::{Core, Phase};

/// A return under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Return {
    /// What is taken back, why, and who waits.
    pub(super) run: Run,
    pub(super) to: Pair,
    /// Whether the master holds all addresses again that there are to be.
    bound: bool,
    /// Until all have to serve; None: what is left is no place to stay.
    pub(super) deadline: Option<Millis>,
    reported: u32,
}

impl Core {
    /// Somebody wants the release before. It waits like a reload, in the place of one that waits.
    pub(super) fn rollback_asked(&mut self, ticket: Option<Ticket>, until: Until) {
        let coming = self.phase.run().filter(|it| it.scope == Scope::All);
        let leaves = coming.map_or(self.generation(), |it| it.generation);
        let request = Request::reload(ticket, Scope::All, Vec::new(), until);
        self.queue(Request { leaves: Some(leaves), ..request });
    }

    /// Begins to go back from `leaves`; the core is idle.
    pub(super) fn begin_rollback(&mut self, request: Request, leaves: Generation) {
        let left = self.generation();
        let refusal = if left != leaves {
            // The reload that it was asked during has come to nothing, or was taken back already.
            Some((Verdict::RolledBack, format!("generation {leaves} is not in force")))
        } else if self.parked.is_empty() {
            let kept = self.settings().map_or(0, |it| it.keep_releases);
            let reason =
                format!("nothing to go back to: no earlier release is kept (keep_releases {kept})");
            Some((Verdict::Aborted, reason))
        } else {
            None
        };
        let mut run = Run::new(left, &request, self.now);
        if let Some((verdict, reason)) = refusal {
            run.failure = reason;
            self.finish(run, verdict);
            return;
        }
        if let Some(observation) = self.observation.take() {
            run.waiters.extend(observation.run.waiters);
            run.told.extend(observation.run.told);
        }
        run.failure = ASKED_BACK.into();
        if let Some(to) = self.newest_parked() {
            self.begin_return(run, to);
        }
    }

    /// A generation in force gives way to an earlier one, whose addresses may be gone.
    pub(super) fn begin_return(&mut self, run: Run, to: Pair) {
        self.warn(format!(
            "going back from generation {} to {}: {}",
            run.generation, to.workers, run.failure
        ));
        let deadline = Some(self.now + self.patience(to.workers));
        self.phase = Phase::RollingBack(Return { run, to, bound: false, deadline, reported: 0 });
        self.report("rolling_back", 0, self.places_of(to).len() as u32);
        self.out.push(Action::Rebind { generation: to.workers });
    }

    /// A reload has failed after some slots were given to it.
    pub(super) fn begin_rolling_back(&mut self, run: Run) {
        let Some(to) = self.pair() else { return };
        self.warn(format!("rolling back generation {}: {}", run.generation, run.failure));
        self.phase =
            Phase::RollingBack(Return { run, to, bound: true, deadline: None, reported: 0 });
        self.report("rolling_back", 0, self.places_of(to).len() as u32);
        self.advance_rolling_back();
    }

    /// Forks what is missing, and ends when every slot is the old generation's again.
    pub(super) fn advance_rolling_back(&mut self) {
        let Phase::RollingBack(back) = &self.phase else { return };
        let (to, bound, reported) = (back.to, back.bound, back.reported);
        if back.deadline.is_some_and(|deadline| deadline <= self.now) {
            self.fail_return("start_timeout has passed");
            return;
        }
        if !bound {
            return;
        }
        let mut serving = 0;
        let places = self.places_of(to);
        let total = places.len() as u32;
        for (kind, generation, queue, worker_id) in places {
            let stands = |it: &&Child| {
                (it.kind, it.generation, it.worker_id) == (kind, generation, worker_id)
                    && it.queue == queue
                    && it.is_staying()
            };
            let waits = |it: &Respawn| {
                (it.kind, it.generation, it.worker_id) == (kind, generation, worker_id)
                    && it.queue == queue
            };
            match self.children.values().find(stands) {
                Some(child) => serving += u32::from(child.is_serving()),
                None if self.respawns.iter().any(waits) => {}
                None => self.respawn_now(generation, queue, kind, worker_id),
            }
        }
        if serving > reported {
            if let Phase::RollingBack(back) = &mut self.phase {
                back.reported = serving;
            }
            self.report("rolling_back", serving, total);
        }
        if serving == total {
            self.end_return();
        }
    }

    /// Whether a process is one of those that take their slots back.
    pub(crate) fn returns(&self, child: &Child) -> bool {
        let Phase::RollingBack(back) = &self.phase else { return false };
        child.queue == back.to.workers
            && match child.kind {
                Kind::Worker => child.generation == back.to.workers,
                Kind::TaskWorker => child.generation == back.to.tasks,
            }
    }

    /// The master holds the addresses of the generation that comes back, or some of them.
    pub(super) fn bound_again(&mut self, generation: Generation) -> bool {
        match &mut self.phase {
            Phase::RollingBack(back) if !back.bound && back.to.workers == generation => {
                back.bound = true;
                true
            }
            _ => false,
        }
    }

    /// The master holds none of them. What never lost its addresses does without.
    pub(super) fn not_bound_again(&mut self, generation: Generation, reason: &str) {
        if Some(generation) == self.workers {
            self.bound_again(generation);
        } else if self.bound_again(generation) {
            self.fail_return(reason);
        }
    }

    /// All that is old serves: what is new goes.
    fn end_return(&mut self) {
        let Phase::RollingBack(back) = &self.phase else { return };
        let (run, to) = (back.run.clone(), back.to);
        let left = self.pair();
        self.workers = Some(to.workers);
        self.tasks = Some(to.tasks);
        self.parked.retain(|it| *it != to);
        self.settle_scale();
        self.trim_parked();
        self.respawns.retain(|it| to.has(it.generation));
        self.backoffs.retain(|(of, _, _), _| to.has(*of));
        let left = left.into_iter().flat_map(|it| [it.workers, it.tasks]);
        for generation in left.chain([run.generation]).filter(|it| !to.has(*it)) {
            self.leave_generation(generation);
        }
        self.assign_doors();
        self.drop_surplus();
        self.repeat_commits();
        self.finish(run, Verdict::RolledBack);
    }

    /// The old generation does not come back: what is in force goes on.
    pub(super) fn fail_return(&mut self, reason: &str) {
        let Phase::RollingBack(back) = &self.phase else { return };
        let (mut run, to) = (back.run.clone(), back.to);
        run.failure =
            format!("{}; cannot go back to generation {}: {reason}", run.failure, to.workers);
        self.phase = Phase::Idle;
        for generation in [to.workers, to.tasks] {
            self.leave_generation(generation);
        }
        // Addresses that only the old one has are let go once more.
        self.repeat_commits();
        self.finish(run, Verdict::Aborted);
    }

    /// A manager has died in the middle of it: what it may have asked of the master is asked again.
    pub(super) fn repeat_return(&mut self) {
        if let Phase::RollingBack(back) = &mut self.phase {
            back.bound = false;
            self.out.push(Action::Rebind { generation: back.to.workers });
        }
    }
}
