//! What is in force and is observed, and taken back unasked.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::Verdict;
use crate::protocol::template::Kind;
use crate::settings::ServerSettings;

use super::world::{Fault, World, settings};

pub(super) const OBSERVED: Duration = Duration::from_secs(10);

pub(super) fn observed() -> ServerSettings {
    ServerSettings { observe_time: OBSERVED, max_crashes: 2, ..settings(2, 1) }
}

pub(super) fn serving(next: ServerSettings) -> World {
    let mut world = World::serving(next.worker_num, next.task_worker_num);
    world.plan.settings = next;
    world
}

/// Everything that is there is of this generation, and all of it serves.
#[track_caller]
pub(super) fn all_of(world: &World, generation: u64) {
    assert_eq!(world.core.generation(), generation);
    assert_eq!(world.serving_in(generation, Kind::Worker), [0, 1]);
    assert_eq!(world.serving_in(generation, Kind::TaskWorker), [2]);
    assert!(
        world.processes.values().all(|it| it.generation == generation),
        "{:?}",
        world.processes
    );
}

#[test]
fn a_good_release_is_committed_when_its_time_is_over() {
    let mut world = serving(observed());
    let early = world.ask(Scope::All, Until::Replaced);
    let late = world.ask(Scope::All, Until::Committed);
    // The first one begins at once, the second one while the first is observed.
    world.run();
    assert_eq!(world.finished[&early].outcome, Verdict::Replaced);
    assert!(!world.finished.contains_key(&late));
    assert_eq!(world.core.state(), "observing");
    let outcome = world.wait_for(late);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 3));
    assert!(outcome.duration_ms >= 10_000);
    all_of(&world, 3);
    assert_eq!(world.core.state(), "serving");
    assert!(world.core.is_parked(1) && !world.core.is_parked(2), "2 was never committed");
}

#[test]
fn crashes_beyond_the_limit_bring_the_old_one_back_before_the_new_one_goes() {
    let mut world = serving(observed());
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    for _ in 0..3 {
        assert_eq!(world.core.generation(), 2);
        let victim = world.child(2, Kind::Worker, 1);
        world.kill(victim);
        world.run();
        while world.core.generation() == 2 && world.serving_in(2, Kind::Worker).len() < 2 {
            world.let_time_pass();
        }
    }
    let outcome = world.wait_for(ticket);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    assert!(outcome.reason.contains("3 processes of generation 2 died"), "{}", outcome.reason);
    assert!(outcome.reason.contains("was ended by signal 9"), "{}", outcome.reason);
    world.run();
    all_of(&world, 1);
    let drains = |it: &Action| matches!(it, Action::Drain { .. });
    let serves = |it: &Action| matches!(it, Action::Serve { .. });
    let last_serve = world.log.iter().rposition(serves).unwrap();
    let after = world.log[last_serve..].iter().filter(|it| drains(it)).count();
    assert!(after >= 2, "the new ones drain when all old ones serve: {:?}", world.log);
}

#[test]
fn a_release_that_always_crashes_is_taken_back_unasked() {
    let mut world = serving(observed());
    world.plan.fault = Fault::CrashesLater;
    let outcome = world.reload(Scope::All);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    world.run();
    all_of(&world, 1);
}

#[test]
fn whoever_keeps_no_releases_keeps_one_while_another_is_observed() {
    let mut world = serving(ServerSettings { keep_releases: 0, ..observed() });
    world.plan.fault = Fault::CrashesLater;
    assert_eq!(world.reload(Scope::All).outcome, Verdict::RolledBack);
    world.run();
    all_of(&world, 1);
    world.plan.fault = Fault::None;
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.run();
    assert_eq!(world.templates.iter().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_release_that_fails_too_much_is_taken_back_if_there_is_a_limit() {
    for (limit, expected) in [(Some(0.4), Verdict::RolledBack), (None, Verdict::Committed)] {
        let mut world = serving(ServerSettings { max_error_rate: limit, ..observed() });
        world.plan.fault = Fault::Errors;
        let outcome = world.reload(Scope::All);
        assert_eq!(outcome.outcome, expected, "{limit:?}");
        if limit.is_some() {
            assert!(outcome.reason.contains("(max_error_rate 0.4)"), "{}", outcome.reason);
            all_of(&world, 1);
        }
    }
}

#[test]
fn a_reload_while_observing_is_answered_for_all_and_may_be_taken_back_in_their_place() {
    let mut world = serving(observed());
    let first = world.ask(Scope::All, Until::Committed);
    world.run();
    world.plan.fault = Fault::CrashesLater;
    let second = world.ask(Scope::All, Until::Committed);
    let outcome = world.wait_for(second);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    assert_eq!(world.finished[&first].outcome, Verdict::RolledBack);
    world.run();
    all_of(&world, 1);
}

#[test]
fn a_reload_while_observing_that_fails_leaves_the_observation_as_it_is() {
    let mut world = serving(observed());
    let first = world.ask(Scope::All, Until::Committed);
    world.run();
    world.plan.fault = Fault::StartFails;
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Aborted);
    assert_eq!(world.core.state(), "observing");
    let outcome = world.wait_for(first);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 2));
}

#[test]
fn what_is_taken_back_during_a_reload_makes_that_begin_anew() {
    let next = ServerSettings { canary_time: Duration::from_secs(5), ..observed() };
    let mut world = serving(next);
    let first = world.ask(Scope::All, Until::Committed);
    world.run();
    while world.core.generation() == 1 {
        world.let_time_pass();
    }
    let second = world.ask(Scope::All, Until::Committed);
    world.run();
    assert_eq!(world.serving_in(3, Kind::Worker), [0], "the canary");
    for id in [0, 1] {
        let victim = world.child(2, Kind::Worker, id);
        world.kill(victim);
    }
    let task_worker = world.child(2, Kind::TaskWorker, 2);
    world.kill(task_worker);
    let outcome = world.wait_for(first);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    assert!(!world.finished.contains_key(&second));
    let outcome = world.wait_for(second);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 4));
}

#[test]
fn what_is_to_be_taken_back_waits_for_a_change_of_hands_without_spinning() {
    let mut world = serving(ServerSettings { max_crashes: 0, ..observed() });
    world.ask(Scope::All, Until::Committed);
    world.run();
    let second = world.ask(Scope::All, Until::Committed);
    // Until the second one has been told to serve, and is not there yet.
    while !world.log.iter().any(|it| matches!(it, Action::Serve { child } if world.core.child(*child).is_some_and(|it| it.generation == 3))) {
        let event = world.events.pop_front().unwrap();
        world.tell(event);
    }
    let victim = world.child(2, Kind::TaskWorker, 2);
    let ended = crate::core::event::Ended::Signal(9);
    world.processes.remove(&victim);
    world.tell(Event::Gone { child: victim, ended, tasks_wait: false });
    assert_eq!(world.core.state(), "reloading");
    assert!(world.core.next_deadline().is_none_or(|due| due > world.now), "it spins");
    assert_eq!(world.wait_for(second).generation, 3);
}
