//! Every order of events, within bounds: all states that can be reached are, and in each the promises
//! hold.
//!
//! A walk begins at a server that serves: two workers and a task worker. From each state each thing
//! that can happen is tried (`step.rs`); states that have been seen are not walked through again
//! (`digest.rs`); in each the promises are held against it (`promises.rs`). How often processes die,
//! what fails, and what is asked is bounded by a budget, so that there is an end to it. No walk has
//! everything at once: each has two or three kinds of things, and together they have each of them beside
//! each other one.

mod digest;
mod promises;
mod step;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::core::event::{Generation, Scope, Ticket, Until};
use crate::protocol::template::HookName;
use crate::settings::ServerSettings;

use super::world::{Plan, World, settings};
use step::{Ask, Step};

/// What may still happen in a walk.
#[derive(Debug, Clone, Default)]
struct Budget {
    /// Each once, in any order.
    asks: Vec<Ask>,
    /// Workers and task workers that die by themselves.
    deaths: u32,
    template_deaths: u32,
    manager_deaths: u32,
    /// Things that fail.
    mishaps: u32,
    /// Deadlines that pass while there is news.
    late: u32,
    /// Processes that have drained before their deadline.
    drains: u32,
    /// Whether anybody asks anything of new workers.
    traffic: bool,
}

#[derive(Clone)]
struct Walk {
    world: World,
    budget: Budget,
    /// No fewer slots are served without a death.
    floor: u32,
    /// Serving workers that have died by themselves.
    died: u32,
    /// Who waits, or waited, for what; with the generation in force when it was asked.
    asked: BTreeMap<Ticket, (Ask, Generation)>,
}

/// A state, and how it was reached first.
struct Seen {
    from: Option<(usize, Step)>,
    /// Where it leads if nothing more goes wrong and nobody asks anything; None: nowhere.
    alone: Option<usize>,
}

/// Walks through everything that can happen to a server whose next releases have these settings.
fn explore(release: ServerSettings, budget: Budget) {
    let hooks = if budget.asks.contains(&Ask::Stop) { vec![HookName::OnShutdown] } else { vec![] };
    let plan = Plan { settings: release, hooks, ..Plan::default() };
    let mut world = World::new(plan);
    world.reload(Scope::All);
    world.drains_by_hand = true;
    world.traffic = false;
    let floor = if budget.asks.contains(&Ask::Fewer) { 1 } else { 2 };
    let mut start = Walk { world, budget, floor, died: 0, asked: BTreeMap::new() };
    let mut numbers = HashMap::from([(start.digest(), 0)]);
    let mut seen = vec![Seen { from: None, alone: None }];
    let mut frontier = VecDeque::from([(0, start.clone())]);
    let mut transitions = 0_usize;
    while let Some((number, walk)) = frontier.pop_front() {
        let steps = walk.steps();
        for (index, step) in steps.iter().enumerate() {
            let mut next = walk.clone();
            transitions += 1;
            guarded(&start, &seen, (number, Some(*step)), || next.go(*step));
            let known = seen.len();
            let to = *numbers.entry(next.digest()).or_insert(known);
            if to == known {
                seen.push(Seen { from: Some((number, *step)), alone: None });
                frontier.push_back((to, next));
            }
            // The first step is that the next news comes in, or, without any, that time passes.
            if index == 0 && matches!(step, Step::News(0) | Step::Wait) {
                seen[number].alone = Some(to);
            }
        }
        if seen[number].alone.is_none() {
            guarded(&start, &seen, (number, None), || walk.assert_rest());
        }
    }
    assert_rest_is_reached(&start, &seen);
    println!("{} states, {transitions} transitions", seen.len());
}

/// Whatever has happened: left alone, the server comes to rest, and every drain to its end.
fn assert_rest_is_reached(start: &Walk, seen: &[Seen]) {
    let mut rests = vec![false; seen.len()];
    for first in 0..seen.len() {
        let mut path = Vec::new();
        let mut at = first;
        while !rests[at] {
            path.push(at);
            guarded(start, seen, (first, None), || {
                assert!(path.len() <= seen.len(), "left alone it never comes to rest");
            });
            match seen[at].alone {
                Some(next) => at = next,
                None => break,
            }
        }
        path.into_iter().for_each(|it| rests[it] = true);
    }
}

/// If this fails, says how it came to it.
fn guarded(start: &Walk, seen: &[Seen], (at, last): (usize, Option<Step>), check: impl FnOnce()) {
    let Err(failure) = catch_unwind(AssertUnwindSafe(check)) else { return };
    let mut steps: Vec<Step> = last.into_iter().collect();
    let mut number = at;
    while let Some((before, step)) = seen[number].from {
        steps.push(step);
        number = before;
    }
    let mut walk = start.clone();
    println!("this has happened:");
    for step in steps.into_iter().rev() {
        println!("  {}", walk.name(step));
        walk.take(step);
        walk.drop_old_news();
    }
    resume_unwind(failure);
}

impl Walk {
    fn go(&mut self, step: Step) {
        let before = self.world.core.generation();
        self.world.log.clear();
        self.take(step);
        self.drop_old_news();
        self.assert_promises(before);
    }

    fn name(&self, step: Step) -> String {
        let news = |at: usize| digest::brief(&self.world.events[at]);
        match step {
            Step::News(at) => news(at),
            Step::Mishap(at, mishap) => format!("{mishap:?} instead of {}", news(at)),
            Step::ManagerForgets(at) => {
                format!("the manager dies before it writes down {}", news(at))
            }
            Step::ManagerDies(step::Moment::News(at), done) => {
                format!("the manager dies after {done} actions of {}", news(at))
            }
            other => format!("{other:?}"),
        }
    }
}

/// Nothing happens at certain times only to be looked at.
fn plain() -> ServerSettings {
    ServerSettings { heartbeat_timeout: Duration::ZERO, ..settings(2, 1) }
}

fn tried() -> ServerSettings {
    let (health, canary_time) = (Some("/health".into()), Duration::from_millis(250));
    ServerSettings { health, health_tries: 2, canary_time, ..plain() }
}

fn observed() -> ServerSettings {
    ServerSettings { observe_time: Duration::from_millis(200), max_crashes: 0, ..plain() }
}

const RELOAD: Ask = Ask::Reload(Until::Committed);

/// These are asked, each at any moment, and nothing goes wrong.
fn asked(asks: &[Ask]) -> Budget {
    Budget { asks: asks.to_vec(), drains: 9, ..Budget::default() }
}

#[test]
fn a_reload_in_which_something_fails_or_is_late() {
    explore(plain(), Budget { mishaps: 1, late: 1, ..asked(&[RELOAD]) });
}

#[test]
fn a_reload_in_which_a_process_dies() {
    explore(plain(), Budget { deaths: 1, ..asked(&[RELOAD]) });
}

#[test]
fn a_reload_in_which_a_template_and_the_manager_die() {
    explore(
        plain(),
        Budget { template_deaths: 1, manager_deaths: 1, drains: 1, ..asked(&[RELOAD]) },
    );
}

#[test]
fn a_reload_in_parts() {
    let parts = ServerSettings { reload_parallel: 1, ..plain() };
    let budget = Budget { mishaps: 1, manager_deaths: 1, drains: 2, ..asked(&[RELOAD]) };
    explore(parts.clone(), budget);
    explore(parts, Budget { deaths: 1, drains: 1, ..asked(&[RELOAD]) });
}

#[test]
fn two_reloads() {
    explore(plain(), asked(&[Ask::Reload(Until::Drained), RELOAD]));
}

#[test]
fn new_task_workers_and_a_reload() {
    explore(plain(), Budget { mishaps: 1, ..asked(&[Ask::ReloadTasks, RELOAD]) });
    explore(
        plain(),
        Budget { deaths: 1, template_deaths: 1, drains: 0, ..asked(&[Ask::ReloadTasks]) },
    );
}

#[test]
fn a_canary() {
    let budget = Budget { traffic: true, drains: 1, ..asked(&[RELOAD]) };
    explore(tried(), Budget { mishaps: 2, late: 1, ..budget.clone() });
    explore(tried(), Budget { deaths: 1, ..budget.clone() });
    explore(tried(), Budget { template_deaths: 1, manager_deaths: 1, ..budget });
}

#[test]
fn a_release_that_is_observed_and_crashes() {
    explore(observed(), Budget { deaths: 1, drains: 0, ..asked(&[RELOAD]) });
}

#[test]
fn a_release_that_is_observed_and_fails() {
    let observed = ServerSettings { max_error_rate: Some(0.3), ..observed() };
    let budget = Budget { traffic: true, drains: 0, ..asked(&[RELOAD]) };
    explore(observed, Budget { mishaps: 1, ..budget });
}

#[test]
fn a_rollback() {
    explore(observed(), Budget { drains: 1, ..asked(&[RELOAD, Ask::Rollback]) });
    let budget = Budget { manager_deaths: 1, ..Budget::default() };
    explore(plain(), Budget { asks: vec![RELOAD, Ask::Rollback], ..budget });
}

#[test]
fn an_upgrade() {
    explore(plain(), Budget { mishaps: 1, ..asked(&[Ask::Upgrade]) });
    explore(plain(), Budget { manager_deaths: 1, ..asked(&[Ask::Upgrade]) });
}

#[test]
fn another_number() {
    explore(plain(), Budget { mishaps: 1, drains: 1, ..asked(&[Ask::More, RELOAD]) });
    explore(plain(), Budget { deaths: 1, ..asked(&[Ask::Fewer]) });
    explore(plain(), Budget { drains: 1, ..asked(&[Ask::More, Ask::Fewer]) });
}

#[test]
fn another_number_for_which_the_manager_dies() {
    for ask in [Ask::More, Ask::Fewer] {
        explore(plain(), Budget { manager_deaths: 1, drains: 1, ..asked(&[ask]) });
    }
}

#[test]
fn a_stop() {
    explore(plain(), asked(&[RELOAD, Ask::Stop]));
    let dying = Budget { deaths: 1, template_deaths: 1, manager_deaths: 1, ..Budget::default() };
    explore(plain(), Budget { asks: vec![Ask::Stop], ..dying });
    explore(plain(), asked(&[Ask::Stop, Ask::Hurry]));
    // One of the two waits for the other.
    explore(plain(), Budget { drains: 0, ..asked(&[RELOAD, Ask::Rollback, Ask::Stop]) });
}

#[test]
fn the_master_dies() {
    explore(plain(), asked(&[RELOAD, Ask::MasterGone]));
    let dying = Budget { deaths: 1, template_deaths: 1, ..Budget::default() };
    explore(plain(), Budget { asks: vec![Ask::MasterGone], ..dying });
    explore(plain(), Budget { drains: 0, ..asked(&[RELOAD, Ask::Rollback, Ask::MasterGone]) });
    explore(plain(), Budget { drains: 0, ..asked(&[Ask::Upgrade, Ask::MasterGone]) });
}
