//! Starts, reloads and deaths, as tables.

use crate::core::action::{Action, Source};
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::Verdict;
use crate::protocol::template::Kind;
use crate::protocol::worker::DrainMode;
use crate::settings::LogLevel;

use super::world::{Fault, Plan, World, retire, settings};

const FAULTS: [Fault; 9] = [
    Fault::TemplateExits,
    Fault::TemplateHangs,
    Fault::NotBound,
    Fault::PreloadFails,
    Fault::ForkRefused,
    Fault::StartFails,
    Fault::StartHangs,
    Fault::StartFailsFrom(0),
    Fault::StartFailsFrom(1),
];

#[test]
fn a_first_start_that_fails_leaves_nothing_and_exits_with_1() {
    for fault in FAULTS {
        let plan = Plan { fault, settings: settings(2, 1), ..Plan::default() };
        let mut world = World::new(plan);
        let outcome = world.reload(Scope::All);
        assert_eq!(outcome.outcome, Verdict::Aborted, "{fault:?}");
        assert!(!outcome.reason.is_empty(), "{fault:?}");
        while world.exit.is_none() && world.let_time_pass() {}
        assert_eq!(world.exit, Some(1), "{fault:?}");
        assert!(world.processes.is_empty() && world.templates.is_empty(), "{fault:?}");
    }
}

#[test]
fn nothing_old_drains_before_everything_new_serves() {
    let mut world = World::serving(3, 2);
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    let first_drain = world.log.iter().position(|it| matches!(it, Action::Drain { .. })).unwrap();
    let last_serve = world.log.iter().rposition(|it| matches!(it, Action::Serve { .. })).unwrap();
    assert!(last_serve < first_drain, "{:?}", world.log);
    assert_eq!(world.serving_in(2, Kind::Worker), [0, 1, 2]);
    assert_eq!(world.serving_in(2, Kind::TaskWorker), [3, 4]);
    world.run();
    assert_eq!(world.busy_templates(), [2]);
}

#[test]
fn how_far_it_is_is_known_if_nobody_waits_as_well() {
    let mut world = World::serving(2, 1);
    assert_eq!(world.core.progress(), None);
    let (scope, until) = (Scope::All, Until::Committed);
    world.tell(Event::Reload { ticket: None, scope, overrides: Vec::new(), until });
    let progress = world.core.progress().cloned().unwrap_or_default();
    assert_eq!((&*progress.phase, progress.generation), ("starting", 2));
    world.run();
    assert_eq!((world.core.generation(), world.core.progress()), (2, None));
}

#[test]
fn a_release_that_fails_before_it_serves_touches_nothing_old() {
    for fault in FAULTS {
        let mut world = World::serving(2, 1);
        world.plan.fault = fault;
        let outcome = world.reload(Scope::All);
        assert_eq!(outcome.outcome, Verdict::Aborted, "{fault:?}");
        assert_eq!(outcome.generation, 1);
        let drained = |it: &&Action| matches!(it, Action::Drain { .. });
        assert_eq!(world.log.iter().filter(drained).count(), 0, "{fault:?}");
        assert_eq!(world.serving_in(1, Kind::Worker), [0, 1], "{fault:?}");
        assert_eq!(world.serving_in(1, Kind::TaskWorker), [2], "{fault:?}");
        world.run();
        assert!(world.processes.values().all(|it| it.generation == 1), "{fault:?}");
        world.plan.fault = Fault::None;
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed, "{fault:?}");
    }
}

#[test]
fn in_parts_no_slot_is_ever_empty_and_a_late_failure_brings_all_back() {
    let mut world = World::serving(4, 0);
    world.plan.settings.reload_parallel = 1;
    world.plan.fault = Fault::StartFailsFrom(2);
    let ticket = world.ask(Scope::All, Until::Committed);
    while let Some(event) = world.events.pop_front() {
        world.now += 1;
        world.tell(event);
        assert_eq!(world.slots_served().len(), 4);
    }
    assert_eq!(world.finished[&ticket].outcome, Verdict::RolledBack);
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2, 3]);
    assert!(world.processes.values().all(|it| it.generation == 1));
}

#[test]
fn requests_during_a_reload_are_one_further_reload() {
    let mut world = World::serving(2, 0);
    let tickets: Vec<_> = (0..4).map(|_| world.ask(Scope::All, Until::Committed)).collect();
    world.run();
    let generations: Vec<_> =
        tickets.iter().map(|ticket| world.finished[ticket].generation).collect();
    assert_eq!(generations, [2, 3, 3, 3]);
}

#[test]
fn a_reload_that_waits_for_the_drain_is_answered_after_it() {
    let mut world = World::serving(2, 1);
    world.slow_drain = true;
    let ticket = world.ask(Scope::All, Until::Drained);
    world.run();
    assert!(!world.finished.contains_key(&ticket));
    world.slow_drain = false;
    for id in 0..2 {
        let child = world.child(1, Kind::Worker, id);
        world.gone(child, crate::core::event::Ended::Code(0));
    }
    world.run();
    assert_eq!(world.finished[&ticket].outcome, Verdict::Committed);
}

#[test]
fn old_task_workers_stay_until_nobody_can_send_to_them() {
    let mut world = World::serving(1, 1);
    world.slow_drain = true;
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    assert_eq!(world.serving_in(1, Kind::TaskWorker), [1]);
    let worker = world.child(1, Kind::Worker, 0);
    world.gone(worker, crate::core::event::Ended::Code(0));
    world.run();
    let drains = |it: &&Action| {
        matches!(it, Action::Drain { finish_queue: true, mode: DrainMode::HandOver, .. })
    };
    assert_eq!(world.log.iter().filter(drains).count(), 1);
}

#[test]
fn usr2_replaces_task_workers_alone_and_usr1_replaces_all_afterwards() {
    for tasks in [0, 2] {
        let mut world = World::serving(2, tasks);
        assert_eq!(world.reload(Scope::Tasks).outcome, Verdict::Committed);
        assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
        assert_eq!(world.serving_in(2, Kind::TaskWorker).len(), tasks as usize);
        assert!(world.serving_in(1, Kind::TaskWorker).is_empty());
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
        world.run();
        assert!(world.processes.values().all(|it| it.generation == 3), "{:?}", world.processes);
        assert_eq!(world.busy_templates(), [3]);
    }
}

#[test]
fn the_dead_are_replaced_from_their_own_generation() {
    let mut world = World::serving(2, 1);
    for (kind, id) in [(Kind::Worker, 1), (Kind::TaskWorker, 2)] {
        let child = world.child(1, kind, id);
        world.kill(child);
        world.run();
        assert!(world.serving_in(1, kind).contains(&id));
    }
    // A second death in a row waits.
    let child = world.child(1, Kind::Worker, 1);
    world.kill(child);
    world.run();
    assert_eq!(world.serving_in(1, Kind::Worker), [0]);
    world.let_time_pass();
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
}

#[test]
fn a_dead_template_comes_back_and_forks_again() {
    let mut world = World::serving(2, 0);
    world.kill_template(1);
    world.run();
    assert!(world.templates.contains(&1));
    let child = world.child(1, Kind::Worker, 0);
    world.kill(child);
    world.run();
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
}

#[test]
fn who_retires_goes_when_its_successor_serves() {
    let mut world = World::serving(2, 0);
    let retiring = world.child(1, Kind::Worker, 0);
    world.tell(retire(retiring, "TERM"));
    world.tell(retire(retiring, "TERM again"));
    while let Some(event) = world.events.pop_front() {
        world.tell(event);
        assert_eq!(world.slots_served().len(), 2);
    }
    let forks = world.log.iter().filter(|it| matches!(it, Action::Fork { .. })).count();
    assert_eq!(forks, 1);
    assert_ne!(world.child(1, Kind::Worker, 0), retiring);
}

#[test]
fn one_generation_too_many_brings_the_oldest_deadline_forward() {
    let mut world = World::serving(1, 0);
    world.slow_drain = true;
    for _ in 0..3 {
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    }
    world.log.clear();
    let outcome = world.reload(Scope::All);
    assert_eq!(outcome.outcome, Verdict::Committed);
    assert_eq!(outcome.warnings.len(), 1);
    assert!(outcome.warnings[0].starts_with("generation 1 had at most 5 s more"), "{outcome:?}");
    let hurried =
        |it: &&Action| matches!(it, Action::Drain { grace, .. } if grace.max_wait == 5_000);
    assert_eq!(world.log.iter().filter(hurried).count(), 1);
    assert_eq!(world.core.generation(), 5);
}

#[test]
fn who_is_hurried_never_gets_more_time_and_keeps_its_task_workers() {
    let mut world = World::serving(1, 1);
    world.slow_drain = true;
    for _ in 0..3 {
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    }
    let (worker, task_worker) =
        (world.child(1, Kind::Worker, 0), world.child(1, Kind::TaskWorker, 1));
    // All but a second of its 30 s is over.
    world.now += 29_000;
    world.log.clear();
    world.ask(Scope::All, Until::Committed);
    world.run();
    let drained = |world: &World, child| {
        let of = |it: &Action| match it {
            Action::Drain { child: of, grace, .. } if *of == child => Some(grace.max_wait),
            _ => None,
        };
        world.log.iter().find_map(of)
    };
    assert!(drained(&world, worker).is_some_and(|it| it <= 1_000), "{:?}", world.log);
    assert_eq!(drained(&world, task_worker), None, "a worker may still send to it");
    while world.core.generation() < 5 && world.let_time_pass() {
        world.run();
    }
    assert_eq!(drained(&world, task_worker), Some(5_000), "{:?}", world.log);
    assert_eq!(world.core.generation(), 5);
}

#[test]
fn changes_that_a_reload_does_not_bring_are_named() {
    let mut world = World::serving(1, 0);
    world.plan.settings.max_wait_time *= 2;
    assert!(world.reload(Scope::All).warnings.is_empty());
    world.plan.settings.log_level = LogLevel::Debug;
    world.plan.settings.umask = Some("0077".into());
    world.plan.settings.daemonize = true;
    let warnings = world.reload(Scope::All).warnings;
    assert_eq!(warnings, ["server.daemonize has changed; that takes effect at the next start"]);
}

#[test]
fn what_is_set_with_requests_that_are_run_together_holds_in_their_order() {
    let mut world = World::serving(2, 1);
    let first = world.ask(Scope::All, Until::Committed);
    let asked = ["app.a=1", "app.b=2", "app.a=3"].map(str::to_owned);
    for set in &asked {
        let (ticket, overrides) = (None, vec![set.clone()]);
        let (scope, until) = (Scope::All, Until::Committed);
        world.tell(Event::Reload { ticket, scope, overrides, until });
    }
    world.wait_for(first);
    world.run();
    let executed = world.log.iter().rev().find_map(|it| match it {
        Action::SpawnTemplate { source: Source::Disk { overrides }, .. } => Some(overrides),
        _ => None,
    });
    assert_eq!(executed, Some(&asked.to_vec()));
}
