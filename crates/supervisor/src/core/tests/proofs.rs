//! Releases that prove themselves, or do not: health and canary.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::Verdict;
use crate::protocol::template::Kind;
use crate::settings::{Inconclusive, ServerSettings};

use super::world::{Fault, Plan, World, retire, settings};

fn healthy() -> ServerSettings {
    ServerSettings { health: Some("/health".into()), ..settings(2, 1) }
}

fn tried() -> ServerSettings {
    ServerSettings { canary_time: Duration::from_secs(2), ..settings(3, 1) }
}

/// A server whose next release proves itself by these settings.
fn serving(next: ServerSettings) -> World {
    let mut world = World::serving(next.worker_num, next.task_worker_num);
    world.plan.settings = next;
    world
}

fn asked(world: &World) -> usize {
    world.log.iter().filter(|it| matches!(it, Action::CheckHealth { .. })).count()
}

fn drained(world: &World) -> usize {
    world.log.iter().filter(|it| matches!(it, Action::Drain { .. })).count()
}

#[test]
fn the_first_worker_is_asked_before_the_others_are_forked() {
    let mut world = serving(healthy());
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    let position = |of: fn(&Action) -> bool| world.log.iter().position(of).unwrap();
    let check = position(|it| matches!(it, Action::CheckHealth { .. }));
    let second = position(|it| matches!(it, Action::Fork { kind: Kind::Worker, worker_id: 1, .. }));
    let serve = position(|it| matches!(it, Action::Serve { .. }));
    assert!(check < second && second < serve, "{:?}", world.log);
    assert_eq!(asked(&world), 1);
}

#[test]
fn who_is_not_healthy_is_asked_again_and_then_leaves_no_trace() {
    for fault in [Fault::Unhealthy, Fault::Mute] {
        let mut world = serving(healthy());
        world.plan.fault = fault;
        let outcome = world.reload(Scope::All);
        assert_eq!((outcome.outcome, outcome.generation), (Verdict::Aborted, 1), "{fault:?}");
        assert!(outcome.reason.contains("not healthy (asked 3 times)"), "{}", outcome.reason);
        assert_eq!((asked(&world), drained(&world)), (3, 0), "{fault:?}");
        world.run();
        assert!(world.processes.values().all(|it| it.generation == 1), "{fault:?}");
    }
}

#[test]
fn who_becomes_healthy_in_time_goes_in() {
    let mut world = serving(healthy());
    world.plan.fault = Fault::Unhealthy;
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    world.set_fault(2, Fault::None);
    assert_eq!(world.wait_for(ticket).outcome, Verdict::Committed);
    assert_eq!(asked(&world), 2);
}

#[test]
fn a_first_start_that_is_not_healthy_fails() {
    let mut world =
        World::new(Plan { fault: Fault::Unhealthy, settings: healthy(), ..Plan::default() });
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Aborted);
    while world.exit.is_none() && world.let_time_pass() {}
    assert_eq!(world.exit, Some(1));
    assert!(world.processes.is_empty() && world.templates.is_empty());
}

#[test]
fn new_task_workers_alone_are_asked_nothing() {
    let mut world = serving(ServerSettings { health: healthy().health, ..tried() });
    world.plan.fault = Fault::Unhealthy;
    assert_eq!(world.reload(Scope::Tasks).outcome, Verdict::Committed);
    assert_eq!(asked(&world), 0);
}

#[test]
fn a_canary_serves_beside_the_old_ones_until_its_time_is_over() {
    let mut world = serving(tried());
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    assert_eq!(world.serving_in(2, Kind::Worker), [0]);
    assert_eq!(world.serving_in(2, Kind::TaskWorker), [3], "its handlers may send tasks");
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2]);
    let begun = world.now;
    assert_eq!(world.wait_for(ticket).outcome, Verdict::Committed);
    assert!(world.now - begun >= 2_000, "{}", world.now - begun);
    let forks = |it: &&Action| matches!(it, Action::Fork { generation: 2, .. });
    assert_eq!(world.log.iter().filter(forks).count(), 4, "the canary stays what it is");
    // Before it serves the others know that it is one, and it is none any more when they are forked.
    let position = |of: &dyn Fn(&Action) -> bool| world.log.iter().position(of).unwrap();
    let trial = |is| position(&|it| matches!(it, Action::Trial { judged, .. } if *judged == is));
    let second = position(&|it| matches!(it, Action::Fork { worker_id: 1, generation: 2, .. }));
    assert!(trial(true) < position(&|it| matches!(it, Action::Serve { .. })));
    assert!(trial(false) < second);
}

#[test]
fn a_canary_that_fails_hands_back_what_it_has() {
    let mut world = serving(tried());
    world.plan.fault = Fault::Errors;
    let outcome = world.reload(Scope::All);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    // Clear before its time was over.
    assert!(outcome.duration_ms < 2_000, "{outcome:?}");
    assert!(outcome.reason.contains("the canary failed 10 of 20 requests"), "{}", outcome.reason);
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2]);
    world.run();
    assert!(world.processes.values().all(|it| it.generation == 1), "{:?}", world.processes);
}

#[test]
fn a_canary_that_crashes_is_the_last_of_its_kind() {
    let mut world = serving(tried());
    world.plan.fault = Fault::Crashes;
    let outcome = world.reload(Scope::All);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    assert!(outcome.reason.contains("crashed while it proved itself"), "{}", outcome.reason);
    let forks = |it: &&Action| matches!(it, Action::Fork { generation: 2, kind: Kind::Worker, .. });
    assert_eq!(world.log.iter().filter(forks).count(), 1);
}

#[test]
fn too_little_traffic_has_a_policy() {
    for (canary_inconclusive, expected) in
        [(Inconclusive::RollBack, Verdict::RolledBack), (Inconclusive::Commit, Verdict::Committed)]
    {
        let mut world = serving(ServerSettings { canary_inconclusive, ..tried() });
        world.traffic = false;
        let outcome = world.reload(Scope::All);
        assert_eq!(outcome.outcome, expected, "{}", outcome.reason);
        if expected == Verdict::RolledBack {
            assert!(outcome.reason.contains("0 requests in 2 s, of 20"), "{}", outcome.reason);
        }
    }
}

#[test]
fn by_requests_it_is_judged_when_they_are_served_or_after_five_minutes() {
    let only = ServerSettings { canary_time: Duration::ZERO, canary_requests: 40, ..tried() };
    let mut world = serving(only.clone());
    let outcome = world.reload(Scope::All);
    assert_eq!(outcome.outcome, Verdict::Committed);
    assert!((750..2_000).contains(&outcome.duration_ms), "{outcome:?}");
    let mut world = serving(only);
    world.traffic = false;
    let outcome = world.reload(Scope::All);
    assert_eq!(outcome.outcome, Verdict::RolledBack);
    assert!((300_000..301_000).contains(&outcome.duration_ms), "{outcome:?}");
}

#[test]
fn a_manager_that_dies_gives_the_proof_up() {
    for traffic in [true, false] {
        let mut world = serving(ServerSettings { health: healthy().health, ..tried() });
        world.traffic = traffic;
        let ticket = world.ask(Scope::All, Until::Committed);
        world.run();
        assert_eq!(world.serving_in(2, Kind::Worker), [0]);
        world.kill_manager(0);
        let outcome = world.wait_for(ticket);
        assert_eq!(outcome.outcome, Verdict::RolledBack);
        world.run();
        assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2]);
        assert!(world.processes.values().all(|it| it.generation == 1), "{:?}", world.processes);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_proof() {
    let mut world = serving(tried());
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    world.tell(Event::Stop);
    world.run();
    while world.exit.is_none() && world.let_time_pass() {}
    assert_eq!(world.finished[&ticket].outcome, Verdict::RolledBack);
    assert_eq!(world.exit, Some(0));
    assert!(world.processes.is_empty() && world.templates.is_empty());
}

#[test]
fn a_canary_that_is_to_retire_proves_itself_first() {
    let mut world = serving(tried());
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    let canary = world.child(2, Kind::Worker, 0);
    world.tell(retire(canary, "max_request"));
    world.run();
    assert_eq!(world.successors(Kind::Worker), 0);
    assert_eq!(world.wait_for(ticket).outcome, Verdict::Committed);
    world.run();
    assert_eq!(world.serving_in(2, Kind::Worker), [0, 1, 2]);
    assert_ne!(world.child(2, Kind::Worker, 0), canary);
}
