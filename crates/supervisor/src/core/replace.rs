//! The change of hands: new processes become ready, serve, and only then the old ones drain.

use crate::protocol::template::{HookName, Kind};
use crate::protocol::worker::DrainMode;

use super::action::Action;
use super::child::{Child, DrainOrder, Purpose, State};
use super::event::{ChildId, Generation, Millis, Scope};
use super::generation::Template;
use super::outcome::Verdict;
use super::reload::Run;
use super::stop::LAST_WORDS;
use super::{Core, Phase};

/// More names than this are counted.
const MOST_NAMED: usize = 8;

/// A list for a sentence: the first ones, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    match names.split_at_checked(MOST_NAMED) {
        Some((named, more @ [_, ..])) => format!("{} and {} more", named.join(", "), more.len()),
        _ => names.join(", "),
    }
}

impl Core {
    /// Forks a batch, waits until all of it is ready, lets it serve, drains what it replaces.
    pub(super) fn advance_replacing(&mut self) {
        loop {
            let Phase::Replacing(run) = &self.phase else { return };
            let run = run.clone();
            if !run.forked {
                self.fork_batch(&run);
                self.change_run(|run| run.forked = true);
                continue;
            }
            let batch = self.batch(&run);
            let ready = self.count_ready(run.generation);
            if ready != run.reported {
                self.change_run(|run| run.reported = ready);
                let (workers, tasks) = self.wanted(&run);
                self.report("replacing", ready, workers + tasks);
            }
            if run.deadline.is_some_and(|deadline| deadline <= self.now) {
                let late = self.late(&batch);
                self.fail_run(match late.is_empty() {
                    true => "start_timeout has passed: not all could be forked".into(),
                    false => format!("start_timeout has passed: {} not ready", some(&late)),
                });
                return;
            }
            if !run.batch_opened {
                let starts = |it: &Child| matches!(it.state, State::Forking | State::Starting);
                if batch.iter().any(starts) || self.is_short(&run) {
                    return;
                }
                for child in batch {
                    self.open(child.id);
                }
                self.change_run(|run| {
                    run.opened = true;
                    run.batch_opened = true;
                });
                continue;
            }
            if self.is_short(&run) || batch.iter().any(|child| !child.is_serving()) {
                return;
            }
            if !self.next_batch(&run) {
                return;
            }
        }
    }

    /// Hands the slots of a serving batch over, and tells whether another batch follows.
    fn next_batch(&mut self, run: &Run) -> bool {
        let (workers, _) = self.wanted(run);
        let end = self.batch_end(run);
        if run.scope == Scope::All && end < workers {
            self.drain_old_workers(run, |worker_id| worker_id < end);
            self.change_run(|run| {
                run.batch = end;
                run.forked = false;
                run.batch_opened = false;
                run.drained = true;
            });
            return true;
        }
        self.commit(run);
        false
    }

    /// The new generation is the one in force from here on, if only to be observed at first.
    fn commit(&mut self, run: &Run) {
        let first = self.workers.is_none();
        let generation = run.generation;
        let before = self.pair();
        if first {
            self.started_with = self.settings_of(generation).cloned();
        }
        self.tasks = Some(generation);
        if run.scope == Scope::All {
            self.workers = Some(generation);
        }
        self.settle_scale();
        let stays = |kind: Kind, of: Generation| {
            of == generation || (run.scope == Scope::Tasks && kind == Kind::Worker)
        };
        self.respawns.retain(|it| stays(it.kind, it.generation));
        self.backoffs.retain(|(of, kind, _), _| stays(*kind, *of));
        match run.scope {
            Scope::All => self.drain_old_workers(run, |_| true),
            Scope::Tasks => self.drain_old_task_workers(run, before.map(|it| it.workers)),
        }
        self.out.push(Action::Commit { generation, scope: run.scope });
        match run.scope {
            Scope::All => self.taken_over(run.clone(), before),
            Scope::Tasks => self.finish(run.clone(), Verdict::Committed),
        }
        if first {
            let _ = self.run_hook(generation, HookName::OnManagerStart, None);
        }
    }

    fn drain_old_workers(&mut self, run: &Run, which: impl Fn(u32) -> bool) {
        let old: Vec<ChildId> = self
            .children
            .values()
            .filter(|it| it.kind == Kind::Worker && it.generation != run.generation)
            .filter(|it| it.is_staying() && which(it.worker_id))
            .map(|it| it.id)
            .collect();
        for id in old {
            self.drain_or_kill(id, DrainMode::HandOver, false);
        }
    }

    /// USR2: the queue goes on, and is left to the new ones, if there are any.
    fn drain_old_task_workers(&mut self, run: &Run, queue: Option<Generation>) {
        let (_, wanted) = self.wanted(run);
        let old: Vec<ChildId> = self
            .children
            .values()
            .filter(|it| it.kind == Kind::TaskWorker && it.generation != run.generation)
            .filter(|it| it.is_staying() && Some(it.queue) == queue)
            .map(|it| it.id)
            .collect();
        for id in old {
            self.drain_or_kill(id, DrainMode::HandOver, wanted == 0);
        }
    }

    /// Drains a child that has served; one that has not is of no use to anybody.
    pub(super) fn drain_or_kill(&mut self, id: ChildId, mode: DrainMode, finish_queue: bool) {
        let Some(child) = self.children.get(&id) else { return };
        let grace = self.grace_of(child.generation);
        let now = self.now;
        let Some(child) = self.children.get_mut(&id) else { return };
        match child.state {
            State::Opening | State::Serving => {
                let order = DrainOrder { mode, finish_queue, guard: grace.guard };
                child.drain(now + grace.max_wait + grace.guard + LAST_WORDS, order);
                self.out.push(Action::Drain { child: id, mode, finish_queue, grace });
            }
            State::Forking | State::Starting | State::Ready => {
                child.kill();
                self.out.push(Action::Kill { child: id, reason: None });
            }
            State::Draining { .. } | State::Killed => {}
        }
    }

    /// The one that a successor has replaced.
    pub(super) fn drain_replaced(&mut self, id: ChildId) {
        self.drain_or_kill(id, DrainMode::HandOver, false);
    }

    /// Everything of a generation that has failed goes.
    pub(super) fn leave_generation(&mut self, generation: Generation) {
        self.respawns.retain(|it| it.generation != generation);
        let all: Vec<ChildId> = self
            .children
            .values()
            .filter(|it| it.generation == generation && it.is_staying())
            // Serving task workers of a queue that others than those in force send to go when these
            // have gone.
            .filter(|it| {
                it.kind == Kind::Worker
                    || it.state != State::Serving
                    || Some(it.queue) == self.workers
            })
            .map(|it| it.id)
            .collect();
        for id in all {
            self.drain_or_kill(id, DrainMode::HandOver, false);
        }
        if let Some(state) = self.generations.get_mut(&generation)
            && matches!(state.template, Template::Starting | Template::Binding | Template::Loading)
        {
            state.template = Template::Leaving { kill_at: Millis::MAX };
            self.out.push(Action::KillTemplate { generation });
        }
    }

    fn fork_batch(&mut self, run: &Run) {
        let generation = run.generation;
        let (_, tasks) = self.wanted(run);
        let queue = match run.scope {
            Scope::All => generation,
            Scope::Tasks => self.workers.unwrap_or(generation),
        };
        if run.batch == 0 {
            let first = self.first_task_worker_id(run);
            for worker_id in first..first + tasks {
                self.fork_missing(generation, queue, Kind::TaskWorker, worker_id);
            }
        }
        if run.scope == Scope::All {
            for worker_id in run.batch..self.batch_end(run) {
                self.fork_missing(generation, queue, Kind::Worker, worker_id);
            }
        }
    }

    /// Some may be there already, because they had to prove themselves first.
    fn fork_missing(&mut self, generation: Generation, queue: Generation, kind: Kind, id: u32) {
        if self.staying(generation, kind, id).is_none() {
            self.fork(generation, queue, kind, id, Purpose::Reload);
        }
    }

    /// Task worker ids follow those of the workers that they serve.
    fn first_task_worker_id(&self, run: &Run) -> u32 {
        let workers = match run.scope {
            Scope::All => Some(run.generation),
            Scope::Tasks => self.workers,
        };
        workers.map_or(0, |it| self.worker_num(it))
    }

    /// How many workers and task workers the run is to bring.
    fn wanted(&self, run: &Run) -> (u32, u32) {
        let tasks = self.task_worker_num(run.generation);
        match run.scope {
            Scope::All => (self.worker_num(run.generation), tasks),
            Scope::Tasks => (0, tasks),
        }
    }

    fn batch_end(&self, run: &Run) -> u32 {
        let (workers, _) = self.wanted(run);
        let parallel = self.settings_of(run.generation).map_or(0, |it| it.reload_parallel);
        if parallel == 0 { workers } else { run.batch.saturating_add(parallel).min(workers) }
    }

    /// The staying children that the current batch is about.
    fn batch(&self, run: &Run) -> Vec<Child> {
        let end = self.batch_end(run);
        self.children
            .values()
            .filter(|it| it.generation == run.generation && it.is_staying())
            .filter(|it| match it.kind {
                Kind::Worker => (run.batch..end).contains(&it.worker_id),
                Kind::TaskWorker => run.batch == 0,
            })
            .cloned()
            .collect()
    }

    /// Whether one of the batch is missing, because it died and waits to be forked again.
    fn is_short(&self, run: &Run) -> bool {
        let (_, tasks) = self.wanted(run);
        let workers = match run.scope {
            Scope::All => self.batch_end(run) - run.batch,
            Scope::Tasks => 0,
        };
        let expected = workers + if run.batch == 0 { tasks } else { 0 };
        (self.batch(run).len() as u32) < expected
    }

    fn count_ready(&self, generation: Generation) -> u32 {
        let ready = |it: &&Child| {
            it.generation == generation
                && matches!(it.state, State::Ready | State::Opening | State::Serving)
        };
        self.children.values().filter(ready).count() as u32
    }

    fn late(&self, batch: &[Child]) -> Vec<String> {
        batch
            .iter()
            .filter(|it| matches!(it.state, State::Forking | State::Starting))
            .map(Child::name)
            .collect()
    }

    pub(super) fn open(&mut self, id: ChildId) {
        if let Some(child) = self.children.get_mut(&id)
            && child.open()
        {
            self.out.push(Action::Serve { child: id });
        }
    }

    /// The child that stands for a slot of a generation.
    pub(super) fn staying(&self, generation: Generation, kind: Kind, id: u32) -> Option<&Child> {
        self.children.values().find(|it| {
            it.generation == generation && it.kind == kind && it.worker_id == id && it.is_staying()
        })
    }

    fn change_run(&mut self, change: impl FnOnce(&mut Run)) {
        if let Phase::Replacing(run) = &mut self.phase {
            change(run);
        }
    }

    /// The generation whose workers take over what workers of this one leave.
    pub fn heir_of(&self, generation: Generation) -> Generation {
        match &self.phase {
            Phase::Replacing(run)
                if run.scope == Scope::All && run.drained && Some(generation) == self.workers =>
            {
                run.generation
            }
            _ => self.generation(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let names = |count| (0..count).map(|it| format!("worker {it}")).collect::<Vec<_>>();
        assert_eq!(some(&names(2)), "worker 0, worker 1");
        assert!(some(&names(8)).ends_with("worker 6, worker 7"));
        assert!(some(&names(500)).ends_with("worker 7 and 492 more"));
    }
}
