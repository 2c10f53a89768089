//! More or fewer workers and task workers, without a reload.
//!
//! ```text
//! Idle → Scaling → Idle
//! ```
//!
//! What is missing is forked from the generation in force and serves as soon as it can; what is too
//! much goes only when all of that serves. A slot that goes leaves a socket with a queue behind:
//! those that stay accept on it from then on, before its worker stops.
//!
//! A number that was scaled holds until the settings say another one than they did then.

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;
use crate::protocol::worker::DrainMode;

use super::action::Action;
use super::child::{Child, Purpose};
use super::event::{ChildId, Generation, Millis, Ticket, Until};
use super::history::{Ended, What};
use super::outcome::{Outcome, Progress, Sizes, Verdict};
use super::parked::Pair;
use super::reload::Waiter;
use super::{Core, Phase, millis};

/// Most processes of a kind, as for the settings.
pub const MOST: u32 = 1024;

/// Why a change leaves one task worker at least. A worker is told at its start whether there are any,
/// and what it sends afterwards would wait in a queue that nobody empties; a reload brings workers
/// that know, while the tasks of the old ones are still run.
pub const LAST_TASK_WORKER: &str = "one task worker has to stay, for the workers that serve go on \
    sending tasks: to do without, set server.task_worker_num to 0 and reload";

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// So many.
    To(u32),
    /// So many more, or fewer.
    By(i32),
}

impl Count {
    /// What that comes to; None: less than one, or more than there may be.
    fn from(self, now: u32) -> Option<u32> {
        u32::try_from(self.sum(now)).ok().filter(|it| (1..=MOST).contains(it))
    }

    fn sum(self, now: u32) -> i64 {
        match self {
            Self::To(number) => i64::from(number),
            Self::By(more) => i64::from(now) + i64::from(more),
        }
    }
}

/// What somebody wants changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Workers; None: as many as there are.
    pub workers: Option<Count>,
    /// Task workers; None: as many as there are.
    pub task_workers: Option<Count>,
}

/// A wish that has not come true yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    ticket: Option<Ticket>,
    wish: Wish,
}

/// A number that was scaled, and what the settings said then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Scaled {
    number: u32,
    over: u32,
}

impl Scaled {
    fn holds(scaled: Option<Self>, set: u32) -> u32 {
        scaled.filter(|it| it.over == set).map_or(set, |it| it.number)
    }
}

/// What holds instead of the settings' numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scale {
    workers: Option<Scaled>,
    task_workers: Option<Scaled>,
}

/// A change under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scaling {
    pub(super) waiters: Vec<Waiter>,
    began: Millis,
    pub(super) deadline: Millis,
    before: Scale,
    /// Whether the sockets for all slots are there.
    bound: bool,
    reported: u32,
}

impl Core {
    /// How many workers a generation has, or is to have.
    pub fn worker_num(&self, generation: Generation) -> u32 {
        let set = self.settings_of(generation).map_or(0, |it| it.worker_num);
        Scaled::holds(self.scale.workers, set)
    }

    /// The same of task workers.
    pub fn task_worker_num(&self, generation: Generation) -> u32 {
        let set = self.settings_of(generation).map_or(0, |it| it.task_worker_num);
        Scaled::holds(self.scale.task_workers, set)
    }

    /// The generations whose workers and task workers serve.
    pub fn in_force(&self) -> Option<(Generation, Generation)> {
        self.workers.zip(self.tasks)
    }

    /// How many there are now, or are to be.
    fn sizes(&self) -> Sizes {
        Sizes {
            workers: self.workers.map_or(0, |it| self.worker_num(it)),
            task_workers: self.tasks.map_or(0, |it| self.task_worker_num(it)),
        }
    }

    /// Takes a wish; it waits until nothing else goes on.
    pub(super) fn scale_asked(&mut self, ticket: Option<Ticket>, wish: Wish) {
        if matches!(self.phase, Phase::Stopping(_)) {
            self.refuse_scale(ticket, "the server is stopping");
            return;
        }
        self.scales.push(Asked { ticket, wish });
        if self.phase != Phase::Idle {
            let progress = Progress { phase: "waiting".into(), ..Progress::default() };
            let tickets = ticket.into_iter().collect();
            self.out.push(Action::Progress { tickets, progress });
        }
    }

    fn refuse_scale(&mut self, ticket: Option<Ticket>, reason: &str) {
        let mut outcome = self.outcome(What::Scale, Verdict::Aborted, reason, self.now);
        outcome.scaled = Some(self.sizes());
        self.finish_scale(ticket.into_iter().collect(), self.now, outcome);
    }

    /// Begins what was wished for; all that waits is one change.
    pub(super) fn begin_scaling(&mut self) {
        let (Some(generation), Some(tasks)) = (self.workers, self.tasks) else { return };
        if self.scales.is_empty() {
            return;
        }
        let (before, sizes) = (self.scale, self.sizes());
        let mut waiters = Vec::new();
        for asked in std::mem::take(&mut self.scales) {
            match self.wished(asked.wish, generation, tasks) {
                Ok(scale) => {
                    self.scale = scale;
                    let until = Until::Committed;
                    waiters.extend(asked.ticket.map(|ticket| Waiter { ticket, until }));
                }
                Err(reason) => self.refuse_scale(asked.ticket, &reason),
            }
        }
        let after = self.sizes();
        if after == sizes && waiters.is_empty() {
            return;
        }
        if after != sizes {
            self.log(format!("scaling from {sizes} to {after}"));
        }
        let patience = self.settings().map_or(self.start_timeout, |it| millis(it.start_timeout));
        let bound = after.workers <= sizes.workers;
        self.phase = Phase::Scaling(Scaling {
            waiters,
            began: self.now,
            deadline: self.now + patience,
            before,
            bound,
            reported: 0,
        });
        self.begin_telling();
        self.report_scaling(0, 0);
        if !bound {
            self.out.push(Action::Widen { generation });
        }
        self.advance_scaling();
    }

    /// What would hold then.
    fn wished(&self, wish: Wish, workers: Generation, tasks: Generation) -> Result<Scale, String> {
        let mut scale = self.scale;
        if let Some(count) = wish.workers {
            let number = count
                .from(self.worker_num(workers))
                .ok_or_else(|| format!("there can be 1 to {MOST} workers"))?;
            let over = self.settings_of(workers).map_or(0, |it| it.worker_num);
            scale.workers = (number != over).then_some(Scaled { number, over });
        }
        if let Some(count) = wish.task_workers {
            let over = self.settings_of(tasks).map_or(0, |it| it.task_worker_num);
            if over == 0 {
                return Err("the release runs without task workers: set server.task_worker_num \
                            and reload"
                    .into());
            }
            let now = self.task_worker_num(tasks);
            if count.sum(now) == 0 {
                return Err(LAST_TASK_WORKER.into());
            }
            let number =
                count.from(now).ok_or_else(|| format!("there can be 1 to {MOST} task workers"))?;
            scale.task_workers = (number != over).then_some(Scaled { number, over });
        }
        Ok(scale)
    }

    /// The master holds sockets for all slots.
    pub(super) fn widened(&mut self, generation: Generation) {
        if let Phase::Scaling(scaling) = &mut self.phase
            && self.workers == Some(generation)
        {
            scaling.bound = true;
        }
    }

    /// Forks what is missing, and lets go of what is too much when all of it serves.
    pub(super) fn advance_scaling(&mut self) {
        let Phase::Scaling(scaling) = &self.phase else { return };
        let (deadline, bound, reported) = (scaling.deadline, scaling.bound, scaling.reported);
        if deadline <= self.now {
            self.fail_scaling("start_timeout has passed: not all that were added are ready");
            return;
        }
        if !bound {
            return;
        }
        let places = self.pair().map(|pair| self.places_of(pair)).unwrap_or_default();
        for (kind, generation, queue, id) in places {
            if self.staying(generation, kind, id).is_none()
                && !self
                    .respawns
                    .iter()
                    .any(|it| it.generation == generation && it.kind == kind && it.worker_id == id)
            {
                self.fork(generation, queue, kind, id, Purpose::Scale);
            }
        }
        let added: Vec<bool> = (self.children.values())
            .filter(|it| it.purpose == Purpose::Scale && it.is_staying())
            .map(Child::is_serving)
            .collect();
        let done = added.iter().filter(|serves| **serves).count() as u32;
        let waits = self.respawns.iter().filter(|it| it.purpose == Purpose::Scale).count();
        let total = (added.len() + waits) as u32;
        if done > reported {
            self.report_scaling(done, total);
        }
        if done == total {
            self.end_scaling(Verdict::Committed, String::new());
        }
    }

    /// Every place that is to be filled: workers first, task workers from there on.
    pub(super) fn places_of(&self, pair: Pair) -> Vec<(Kind, Generation, Generation, u32)> {
        let Pair { workers, tasks } = pair;
        let number = self.worker_num(workers);
        let ids = number..number + self.task_worker_num(tasks);
        let first = (0..number).map(|id| (Kind::Worker, workers, workers, id));
        first.chain(ids.map(|id| (Kind::TaskWorker, tasks, workers, id))).collect()
    }

    /// Nothing comes of it: the numbers of before hold again.
    pub(super) fn fail_scaling(&mut self, reason: &str) {
        let Phase::Scaling(scaling) = &self.phase else { return };
        self.scale = scaling.before;
        self.end_scaling(Verdict::Aborted, format!("not scaled: {reason}"));
    }

    fn end_scaling(&mut self, verdict: Verdict, reason: String) {
        let Phase::Scaling(scaling) = &self.phase else { return };
        let scaling = scaling.clone();
        self.assign_doors();
        self.drop_surplus();
        self.tell_slots();
        let mut outcome = self.outcome(What::Scale, verdict, &reason, scaling.began);
        outcome.scaled = Some(self.sizes());
        let tickets = scaling.waiters.iter().map(|waiter| waiter.ticket).collect();
        self.finish_scale(tickets, scaling.began, outcome);
        self.phase = Phase::Idle;
    }

    fn finish_scale(&mut self, tickets: Vec<Ticket>, began: Millis, outcome: Outcome) {
        let generation = self.generation();
        self.record(&Ended {
            what: What::Scale,
            from: generation,
            to: generation,
            began,
            tickets: tickets.clone(),
            outcome: &outcome,
        });
        self.out.push(Action::Finish { tickets, outcome });
    }

    /// The workers that stay are told which sockets are theirs now.
    pub(super) fn assign_doors(&mut self) {
        let Some(generation) = self.workers else { return };
        let number = self.worker_num(generation);
        let stays =
            |it: &&Child| it.generation == generation && it.kind == Kind::Worker && it.is_staying();
        let children: Vec<ChildId> = (self.children.values())
            .filter(stays)
            .filter(|it| it.worker_id < number)
            .map(|it| it.id)
            .collect();
        self.out.extend(children.into_iter().map(|child| Action::Doors { child, workers: number }));
    }

    /// Whoever fills no place any more goes, and hands over what it has.
    pub(super) fn drop_surplus(&mut self) {
        let (Some(generation), Some(tasks)) = (self.workers, self.tasks) else { return };
        let sizes = self.sizes();
        let ids = sizes.workers..sizes.workers + sizes.task_workers;
        let is_surplus = |kind: Kind, of: Generation, queue: Generation, id: u32| match kind {
            Kind::Worker => of == generation && id >= sizes.workers,
            Kind::TaskWorker => of == tasks && queue == generation && !ids.contains(&id),
        };
        self.respawns.retain(|it| !is_surplus(it.kind, it.generation, it.queue, it.worker_id));
        self.backoffs.retain(|(of, kind, id), _| !is_surplus(*kind, *of, generation, *id));
        let surplus: Vec<ChildId> = (self.children.values())
            .filter(|it| it.is_staying())
            .filter(|it| is_surplus(it.kind, it.generation, it.queue, it.worker_id))
            .map(|it| it.id)
            .collect();
        for child in surplus {
            self.drain_or_kill(child, DrainMode::HandOver, false);
        }
    }

    /// A release is in force: numbers that its settings change are theirs from now on.
    pub(super) fn settle_scale(&mut self) {
        let workers = self.settings().map(|it| it.worker_num);
        let tasks = self.tasks.and_then(|it| self.settings_of(it)).map(|it| it.task_worker_num);
        let holds = |scaled: &Scaled, set: Option<u32>| set.is_some_and(|set| set == scaled.over);
        self.scale.workers = self.scale.workers.filter(|it| holds(it, workers));
        self.scale.task_workers = self.scale.task_workers.filter(|it| holds(it, tasks));
    }

    /// Whether the end of this child is the end of the change that it was forked for.
    pub(super) fn fails_scaling(&self, child: &Child) -> bool {
        child.purpose == Purpose::Scale
            && child.serving_since.is_none()
            && matches!(self.phase, Phase::Scaling(_))
    }

    /// Everybody who waits for a change.
    pub(super) fn scale_tickets(&self) -> impl Iterator<Item = Ticket> {
        let running: &[Waiter] = match &self.phase {
            Phase::Scaling(scaling) => &scaling.waiters,
            _ => &[],
        };
        let waiting = self.scales.iter().filter_map(|asked| asked.ticket);
        running.iter().map(|waiter| waiter.ticket).chain(waiting)
    }

    /// The server stops: nothing comes of what waits, either.
    pub(super) fn abandon_scaling(&mut self) {
        for asked in std::mem::take(&mut self.scales) {
            self.refuse_scale(asked.ticket, "the server is stopping");
        }
        if let Phase::Scaling(scaling) = &self.phase {
            let (scaling, before) = (scaling.clone(), scaling.before);
            self.scale = before;
            for waiter in scaling.waiters {
                self.refuse_scale(Some(waiter.ticket), "the server is stopping");
            }
            // What was added has queues of its own by now; the stop empties them.
        }
    }

    fn report_scaling(&mut self, done: u32, total: u32) {
        let generation = self.generation();
        let Phase::Scaling(scaling) = &mut self.phase else { return };
        scaling.reported = done;
        let phase = "scaling".to_owned();
        self.tell_progress(Progress { phase, generation, done, total, slots: Vec::new() });
    }
}
