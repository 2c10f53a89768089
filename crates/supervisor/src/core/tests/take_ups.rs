//! A manager that dies between any two things that it does: the next one loses no time over it.

use crate::core::child::Child;
use crate::core::event::{Event, Scope, Until};

use super::world::World;

/// More than a dead process costs, and much less than any deadline.
const SOON: u64 = 1_000;

/// Events that are taken in before the manager dies, and how much of the next one's consequences is
/// still done. None: what it was told is lost with it.
fn moments() -> impl Iterator<Item = (usize, Option<usize>)> {
    (0..60).flat_map(|events| [None, Some(0), Some(1), Some(2), Some(4)].map(|it| (events, it)))
}

fn kill_manager(world: &mut World, (events, done): (usize, Option<usize>)) {
    for _ in 0..events {
        if let Some(event) = world.events.pop_front() {
            world.now += 1;
            world.tell(event);
        }
    }
    match done {
        Some(done) => world.kill_manager(done),
        None => world.kill_manager_before_it_writes(),
    }
}

/// Goes on until nothing more happens soon.
fn rest(world: &mut World) {
    let until = world.now + SOON;
    world.run();
    while world.core.next_deadline().is_some_and(|due| due <= until) && world.let_time_pass() {}
}

fn assert_at_rest(world: &World, when: &str) {
    assert_eq!(world.core.state(), "serving", "{when}");
    assert!(world.core.children().all(Child::is_serving), "{when}: {:#?}", world.processes);
    assert!(world.processes.values().all(|it| it.serving && !it.draining), "{when}");
    assert_eq!(world.processes.len(), 3, "{when}: {:#?}", world.processes);
    let (workers, tasks) = world.core.in_force().unwrap();
    assert!(world.busy_templates().iter().all(|it| [workers, tasks].contains(it)), "{when}");
    assert!(world.templates.contains(&workers) && world.templates.contains(&tasks), "{when}");
}

#[test]
fn a_stop_ends_as_soon_as_it_would_have() {
    for moment in moments() {
        let mut world = World::serving(2, 1);
        world.tell(Event::Stop);
        kill_manager(&mut world, moment);
        rest(&mut world);
        assert_eq!(world.exit, Some(0), "{moment:?}: {:#?}", world.processes);
    }
}

#[test]
fn of_a_reload_nothing_is_left_half_done() {
    for scope in [Scope::All, Scope::Tasks] {
        for moment in moments() {
            let mut world = World::serving(2, 1);
            let ticket = world.ask(scope, Until::Committed);
            kill_manager(&mut world, moment);
            rest(&mut world);
            assert!(world.finished.contains_key(&ticket), "{scope:?} {moment:?}");
            assert_at_rest(&world, &format!("{scope:?} {moment:?}"));
        }
    }
}

#[test]
fn whoever_had_died_just_before_is_replaced() {
    for moment in moments().filter(|(events, _)| *events < 20) {
        let mut world = World::serving(2, 1);
        world.kill_template(1);
        let worker = *world.processes.keys().next().unwrap();
        world.kill(worker);
        kill_manager(&mut world, moment);
        rest(&mut world);
        assert_at_rest(&world, &format!("{moment:?}"));
    }
}
