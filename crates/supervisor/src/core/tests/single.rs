//! Single processes: stuck, worn out, started in vain.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::event::{ChildId, Ended, Event};
use crate::core::tally::Cause;
use crate::protocol::template::Kind;

use super::world::{Fault, World, retire};

fn inspected(world: &World) -> Vec<ChildId> {
    let inspected = |it: &Action| match it {
        Action::Inspect { child } => Some(*child),
        _ => None,
    };
    world.log.iter().filter_map(inspected).collect()
}

/// Lets this much time pass as it comes.
fn pass(world: &mut World, time: u64) {
    let end = world.now + time;
    while world.core.next_deadline().is_some_and(|due| due <= end) {
        world.let_time_pass();
    }
    world.now = end;
}

#[test]
fn a_loop_that_does_not_turn_is_shown_killed_and_replaced() {
    let mut world = World::serving(2, 1);
    let victim = world.child(1, Kind::Worker, 0);
    world.stick(victim);
    pass(&mut world, 29_000);
    assert_eq!(inspected(&world), [0; 0]);
    pass(&mut world, 2_500);
    assert_eq!(inspected(&world), [victim]);
    assert!(world.processes.contains_key(&victim), "it has time to show where it stands");
    pass(&mut world, 6_000);
    assert!(!world.processes.contains_key(&victim));
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
    assert_eq!(inspected(&world), [victim], "once");
}

#[test]
fn a_task_worker_may_be_busy_for_as_long_as_a_task() {
    let mut world = World::serving(1, 1);
    let victim = world.child(1, Kind::TaskWorker, 1);
    world.stick(victim);
    pass(&mut world, 59_000);
    assert_eq!(inspected(&world), [0; 0]);
    pass(&mut world, 3_000);
    assert_eq!(inspected(&world), [victim]);
}

#[test]
fn nobody_is_stuck_because_all_stood_still() {
    let mut world = World::serving(2, 1);
    pass(&mut world, 5_000);
    // As when the machine was stopped, and the manager is the first to run again.
    let all: Vec<ChildId> = world.processes.keys().copied().collect();
    all.into_iter().for_each(|child| world.stick(child));
    world.now += 3_600_000;
    world.tell(Event::Tick);
    world.run();
    world.processes.values_mut().for_each(|it| it.stuck = None);
    pass(&mut world, 60_000);
    assert_eq!(inspected(&world), [0; 0]);
}

#[test]
fn nobody_looks_if_the_setting_says_so() {
    let mut world = World::new(super::world::Plan {
        settings: crate::settings::ServerSettings {
            heartbeat_timeout: Duration::ZERO,
            ..super::world::settings(1, 0)
        },
        ..Default::default()
    });
    world.reload(crate::core::event::Scope::All);
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn all_retire_one_after_the_other() {
    let mut world = World::serving(3, 2);
    let all: Vec<ChildId> = world.processes.keys().copied().collect();
    for child in &all {
        world.tell(retire(*child, "old"));
        world.tell(retire(*child, "old"));
    }
    while let Some(event) = world.events.pop_front() {
        assert!(world.successors(Kind::Worker) <= 1 && world.successors(Kind::TaskWorker) <= 1);
        assert_eq!(world.slots_served().len(), 3);
        world.tell(event);
    }
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2]);
    assert_eq!(world.serving_in(1, Kind::TaskWorker), [3, 4]);
    assert!(all.iter().all(|child| !world.processes.contains_key(child)));
    let counted = |kind| world.core.tally().respawns(kind, Cause::Signal);
    assert_eq!((counted(Kind::Worker), counted(Kind::TaskWorker)), (3, 2));
}

#[test]
fn one_that_dies_before_its_turn_is_replaced_once() {
    let mut world = World::serving(2, 0);
    let (first, second) = (world.child(1, Kind::Worker, 0), world.child(1, Kind::Worker, 1));
    for child in [first, second] {
        world.tell(retire(child, "old"));
    }
    world.gone(second, Ended::Signal(9));
    world.run();
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
    assert_eq!(world.processes.len(), 2);
}

#[test]
fn a_replacement_that_hangs_in_its_start_is_replaced() {
    let mut world = World::serving(1, 0);
    world.set_fault(1, Fault::StartHangs);
    let victim = world.child(1, Kind::Worker, 0);
    world.kill(victim);
    world.run();
    assert!(world.serving_in(1, Kind::Worker).is_empty());
    world.set_fault(1, Fault::None);
    pass(&mut world, 31_000);
    assert_eq!(world.serving_in(1, Kind::Worker), [0]);
}
