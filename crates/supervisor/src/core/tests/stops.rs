//! Stops, from wherever the server stands.

use crate::core::action::Action;
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::Verdict;
use crate::protocol::template::{HookName, Kind};

use super::world::{Plan, World, settings};

#[test]
fn workers_first_then_task_workers_then_the_hook_then_templates() {
    let plan =
        Plan { settings: settings(2, 1), hooks: vec![HookName::OnShutdown], ..Plan::default() };
    let mut world = World::new(plan);
    world.reload(Scope::All);
    world.log.clear();
    let task_worker = world.child(1, Kind::TaskWorker, 2);
    world.tell(Event::Stop);
    world.run();
    let order: Vec<&str> = world
        .log
        .iter()
        .filter_map(|it| match it {
            Action::Drain { child, .. } if *child == task_worker => Some("task worker"),
            Action::Drain { .. } => Some("worker"),
            Action::Hook { .. } => Some("hook"),
            Action::ExitTemplate { .. } => Some("template"),
            Action::Exit { code: 0 } => Some("exit"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["worker", "worker", "task worker", "hook", "template", "exit"]);
}

#[test]
fn a_stop_during_a_reload_answers_everybody_and_ends() {
    // After each number of steps of a reload.
    for steps in 0..40 {
        let mut world = World::serving(2, 1);
        let first = world.ask(Scope::All, Until::Committed);
        let second = world.ask(Scope::Tasks, Until::Committed);
        for _ in 0..steps {
            if let Some(event) = world.events.pop_front() {
                world.tell(event);
            }
        }
        world.tell(Event::Stop);
        world.run();
        while world.exit.is_none() && world.let_time_pass() {}
        assert_eq!(world.exit, Some(0), "after {steps} steps");
        assert!(world.finished.contains_key(&first) && world.finished.contains_key(&second));
        assert!(world.processes.is_empty() && world.templates.is_empty(), "after {steps} steps");
        let late = world.ask(Scope::All, Until::Committed);
        assert_eq!(world.finished[&late].outcome, Verdict::Aborted);
    }
}

#[test]
fn quit_waits_for_nobody() {
    let mut world = World::serving(2, 1);
    world.slow_drain = true;
    world.tell(Event::Stop);
    world.tell(Event::Quit);
    world.run();
    assert_eq!(world.exit, Some(0));
    let waits = |it: &&Action| matches!(it, Action::Drain { grace, .. } if grace.max_wait == 0);
    assert!(world.log.iter().filter(waits).count() >= 1);
}

fn delayed() -> World {
    let settings = crate::settings::ServerSettings {
        pre_stop_delay: std::time::Duration::from_secs(5),
        ..settings(2, 1)
    };
    let mut world = World::new(Plan { settings, ..Plan::default() });
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.log.clear();
    world
}

#[test]
fn before_a_stop_the_server_goes_on_as_before() {
    let mut world = delayed();
    let asked = world.now;
    world.tell(Event::Stop);
    world.tell(Event::Stop);
    world.run();
    assert_eq!(world.slots_served().len(), 2);
    assert_eq!(world.core.state(), "serving");
    // Whoever dies is replaced, and a reload works.
    let victim = world.child(1, Kind::Worker, 0);
    world.kill(victim);
    world.run();
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    assert_eq!(world.slots_served().len(), 2);
    while world.exit.is_none() && world.let_time_pass() {}
    assert_eq!(world.exit, Some(0));
    let waited = world.now - asked;
    assert!((5_000..6_000).contains(&waited), "{waited}");
    assert_eq!(world.log.iter().filter(|it| **it == Action::Stopping).count(), 1);
}

#[test]
fn a_second_wish_ends_the_delay_and_a_third_the_grace() {
    let mut world = delayed();
    world.slow_drain = true;
    world.tell(Event::Stop);
    world.tell(Event::Hurry);
    let drains = |it: &&Action| matches!(it, Action::Drain { grace, .. } if grace.max_wait > 0);
    assert_eq!(world.log.iter().filter(drains).count(), 2);
    world.tell(Event::Hurry);
    world.run();
    assert_eq!(world.exit, Some(0));
    for now in [Event::Quit, Event::MasterGone] {
        let mut world = delayed();
        world.tell(Event::Stop);
        world.tell(now);
        world.run();
        assert_eq!(world.exit, Some(0));
    }
}

#[test]
fn a_manager_that_takes_up_goes_on_waiting() {
    let mut world = delayed();
    world.tell(Event::Stop);
    world.kill_manager(0);
    world.run();
    assert_eq!(world.slots_served().len(), 2);
    while world.exit.is_none() && world.let_time_pass() {}
    assert_eq!(world.exit, Some(0));
}
