//! More and fewer workers, as tables.

use crate::core::action::Action;
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::{Sizes, Verdict};
use crate::core::scale::{Count, LAST_TASK_WORKER, Wish};
use crate::protocol::template::Kind;

use super::world::{Fault, World};

fn workers(count: Count) -> Wish {
    Wish { workers: Some(count), task_workers: None }
}

fn tasks(count: Count) -> Wish {
    Wish { workers: None, task_workers: Some(count) }
}

fn serving(world: &World) -> (Vec<u32>, Vec<u32>) {
    let generation = world.core.generation();
    let of = |kind| world.serving_in(generation, kind);
    (of(Kind::Worker), of(Kind::TaskWorker))
}

#[test]
fn more_workers_serve_before_the_answer_and_task_workers_move_up() {
    let mut world = World::serving(2, 1);
    let outcome = world.scale(workers(Count::To(4)));
    assert_eq!(outcome.outcome, Verdict::Committed);
    assert_eq!(outcome.scaled, Some(Sizes { workers: 4, task_workers: 1 }));
    assert_eq!(serving(&world), (vec![0, 1, 2, 3], vec![4]));
    assert_eq!(world.core.generation(), 1);
}

#[test]
fn fewer_workers_leave_their_queues_to_the_others_before_they_drain() {
    let mut world = World::serving(3, 1);
    world.slow_drain = true;
    let leaver = world.child(1, Kind::Worker, 2);
    world.ask_scale(workers(Count::By(-1)));
    world.run();
    let position = |which: &dyn Fn(&Action) -> bool| world.log.iter().position(which).unwrap();
    let drained = position(&|it| matches!(it, Action::Drain { child, .. } if *child == leaver));
    for slot in [0, 1] {
        let stayer = world.child(1, Kind::Worker, slot);
        assert!(position(&|it| *it == Action::Doors { child: stayer, workers: 2 }) < drained);
        assert!(world.processes[&stayer].doors.contains(&2));
    }
    assert!(world.queues_served().contains(&2));
    assert_eq!(serving(&world).0, vec![0, 1]);
}

#[test]
fn a_queue_is_left_to_the_others_although_the_next_change_wants_its_slot_back() {
    let mut world = World::serving(2, 1);
    world.ask_scale(workers(Count::By(-1)));
    world.ask_scale(workers(Count::By(1)));
    while let Some(event) = world.events.pop_front() {
        world.tell(event);
        assert!(world.queues_served().is_superset(&world.opened), "{:?}", world.processes);
    }
    assert_eq!(serving(&world).0, vec![0, 1]);
}

#[test]
fn added_again_the_slot_is_its_workers_own() {
    let mut world = World::serving(3, 0);
    world.scale(workers(Count::To(1)));
    assert_eq!(world.processes[&world.child(1, Kind::Worker, 0)].doors.len(), 3);
    world.scale(workers(Count::To(3)));
    assert_eq!(world.processes[&world.child(1, Kind::Worker, 0)].doors.len(), 1);
    assert_eq!(world.queues_served().len(), 3);
}

#[test]
fn what_was_scaled_holds_over_reloads_until_the_setting_changes() {
    let mut world = World::serving(2, 1);
    world.scale(Wish { workers: Some(Count::To(3)), task_workers: Some(Count::To(2)) });
    world.reload(Scope::All);
    assert_eq!(serving(&world), (vec![0, 1, 2], vec![3, 4]));
    // Another setting is no reason.
    world.plan.settings.backlog = 7;
    world.reload(Scope::All);
    assert_eq!(serving(&world).0.len(), 3);
    world.plan.settings.worker_num = 1;
    world.reload(Scope::All);
    assert_eq!(serving(&world), (vec![0], vec![1, 2]));
    // Set back to what it was: that is the number now, and what was scaled is forgotten.
    world.plan.settings.worker_num = 2;
    world.reload(Scope::All);
    assert_eq!(serving(&world).0.len(), 2);
}

#[test]
fn a_reload_that_fails_leaves_what_was_scaled() {
    let mut world = World::serving(2, 0);
    world.scale(workers(Count::To(3)));
    world.plan.settings.worker_num = 5;
    world.plan.fault = Fault::StartFails;
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Aborted);
    assert_eq!(serving(&world).0, vec![0, 1, 2]);
    assert_eq!(world.core.worker_num(1), 3);
}

#[test]
fn a_worker_that_does_not_start_ends_the_change_and_all_is_as_before() {
    for fault in [Fault::StartFailsFrom(3), Fault::NotBound, Fault::StartHangs] {
        let mut world = World::serving(2, 1);
        world.set_fault(1, fault);
        let outcome = world.scale(workers(Count::To(4)));
        assert_eq!(outcome.outcome, Verdict::Aborted, "{fault:?}");
        assert!(outcome.reason.starts_with("not scaled: "), "{outcome:?}");
        assert_eq!(outcome.scaled, Some(Sizes { workers: 2, task_workers: 1 }));
        world.set_fault(1, Fault::None);
        world.run();
        assert_eq!(serving(&world), (vec![0, 1], vec![2]), "{fault:?}");
        assert!(world.queues_served().is_superset(&world.opened), "{fault:?}");
    }
}

#[test]
fn a_change_waits_for_a_reload_and_a_reload_for_a_change() {
    let mut world = World::serving(2, 0);
    let reload = world.ask(Scope::All, Until::Committed);
    let (up, more) =
        (world.ask_scale(workers(Count::By(1))), world.ask_scale(workers(Count::By(2))));
    let again = world.ask(Scope::All, Until::Committed);
    world.run();
    for ticket in [reload, up, more, again] {
        assert_eq!(world.finished[&ticket].outcome, Verdict::Committed);
    }
    assert_eq!(world.core.generation(), 3);
    assert_eq!(serving(&world).0.len(), 5);
}

#[test]
fn impossible_numbers_are_refused() {
    let mut world = World::serving(1, 0);
    for wish in [
        workers(Count::By(-1)),
        workers(Count::To(1025)),
        workers(Count::By(i32::MAX)),
        tasks(Count::To(1)),
    ] {
        let outcome = world.scale(wish);
        assert_eq!(outcome.outcome, Verdict::Aborted, "{wish:?}");
        assert!(!outcome.reason.is_empty());
    }
    assert_eq!(serving(&world).0, vec![0]);
    let mut world = World::serving(1, 2);
    for count in [Count::To(0), Count::By(-2)] {
        let outcome = world.scale(tasks(count));
        assert_eq!((outcome.outcome, &*outcome.reason), (Verdict::Aborted, LAST_TASK_WORKER));
    }
    assert_eq!(world.scale(tasks(Count::By(-3))).reason, "there can be 1 to 1024 task workers");
}

#[test]
fn task_workers_alone_come_and_go_with_those_who_send_to_them() {
    for (before, after) in [(2, 0), (0, 2)] {
        let mut world = World::serving(2, before);
        world.plan.settings.task_worker_num = after;
        let outcome = world.reload(Scope::Tasks);
        assert_eq!(outcome.outcome, Verdict::Aborted);
        assert!(outcome.reason.ends_with("reload the workers as well"), "{outcome:?}");
        assert_eq!(serving(&world).1.len(), before as usize);
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
        assert_eq!(serving(&world).1.len(), after as usize);
    }
}

#[test]
fn a_stop_answers_who_waits_for_a_change() {
    let mut world = World::serving(2, 0);
    world.set_fault(1, Fault::StartHangs);
    let under_way = world.ask_scale(workers(Count::To(3)));
    world.run();
    let waiting = world.ask_scale(workers(Count::To(4)));
    world.tell(Event::Stop);
    world.run();
    for ticket in [under_way, waiting] {
        assert_eq!(world.finished[&ticket].reason, "the server is stopping");
    }
    assert_eq!(world.exit, Some(0));
}

#[test]
fn a_manager_that_dies_in_a_change_leaves_it_undone() {
    let mut world = World::serving(2, 1);
    let ticket = world.ask_scale(workers(Count::To(3)));
    for _ in 0..3 {
        let event = world.events.pop_front().unwrap();
        world.tell(event);
    }
    world.kill_manager(0);
    world.run();
    assert_eq!(world.finished[&ticket].outcome, Verdict::Aborted);
    assert_eq!(serving(&world), (vec![0, 1], vec![2]));
    assert!(world.queues_served().is_superset(&world.opened));
}
