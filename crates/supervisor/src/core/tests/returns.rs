//! What is in force and is taken back by hand.

use crate::core::action::Action;
use crate::core::event::{Event, Scope, Until};
use crate::core::outcome::Verdict;
use crate::core::scale::{Count, Wish};
use crate::protocol::template::Kind;
use crate::settings::ServerSettings;

use super::observations::{all_of, observed, serving};
use super::world::{Fault, settings};

#[test]
fn by_hand_also_long_after() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.run();
    world.now += 3_600_000;
    world.tell(Event::Tick);
    let outcome = world.back();
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    all_of(&world, 1);
    world.run();
    assert_eq!(world.templates.iter().copied().collect::<Vec<_>>(), [1], "2 is not kept");
    let outcome = world.back();
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Aborted, 1));
    assert!(outcome.reason.starts_with("nothing to go back to"), "{}", outcome.reason);
    let outcome = world.reload(Scope::All);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 3));
}

#[test]
fn as_many_releases_are_kept_as_the_settings_say() {
    for keep in 0..3 {
        let mut world = serving(ServerSettings { keep_releases: keep, ..settings(2, 1) });
        for _ in 0..3 {
            assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
        }
        world.run();
        assert_eq!(world.templates.len() as u32, keep + 1);
        for generation in (4 - u64::from(keep)..4).rev() {
            assert_eq!(world.back().generation, generation);
        }
        assert_eq!(world.back().outcome, Verdict::Aborted);
    }
}

#[test]
fn task_workers_that_were_replaced_alone_come_back_too() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::Tasks).outcome, Verdict::Committed);
    assert_eq!(world.back().outcome, Verdict::Aborted, "there is no release before");
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    assert_eq!(world.reload(Scope::Tasks).outcome, Verdict::Committed);
    world.run();
    assert_eq!(world.serving_in(4, Kind::TaskWorker), [2]);
    let outcome = world.back();
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
    world.run();
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1]);
    assert_eq!(world.serving_in(2, Kind::TaskWorker), [2]);
    assert_eq!(world.processes.len(), 3);
}

#[test]
fn a_dead_template_is_executed_again_when_it_is_needed() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.run();
    world.kill_template(1);
    world.run();
    assert!(!world.templates.contains(&1));
    assert_eq!(world.back().outcome, Verdict::RolledBack);
    all_of(&world, 1);
}

#[test]
fn what_does_not_come_back_leaves_what_is_there() {
    for fault in
        [Fault::NotBound, Fault::ForkRefused, Fault::StartFails, Fault::StartHangs, Fault::Crashes]
    {
        let mut world = serving(settings(2, 1));
        assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
        world.run();
        world.set_fault(1, fault);
        let outcome = world.back();
        assert_eq!((outcome.outcome, outcome.generation), (Verdict::Aborted, 2), "{fault:?}");
        assert!(outcome.reason.contains("cannot go back to generation 1"), "{}", outcome.reason);
        world.run();
        all_of(&world, 2);
    }
}

#[test]
fn the_later_one_of_a_reload_and_a_rollback_wins() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    let running = world.ask(Scope::All, Until::Committed);
    let reload = world.ask(Scope::All, Until::Committed);
    let back = world.ask_back();
    world.run();
    assert_eq!(world.finished[&running].generation, 3);
    for ticket in [reload, back] {
        let outcome = &world.finished[&ticket];
        assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 2));
    }
    // And the other way round.
    assert_eq!(world.reload(Scope::All).generation, 4);
    let running = world.ask(Scope::All, Until::Committed);
    let back = world.ask_back();
    let reload = world.ask(Scope::All, Until::Committed);
    world.run();
    assert_eq!(world.finished[&running].generation, 5);
    for ticket in [reload, back] {
        let outcome = &world.finished[&ticket];
        assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 6));
    }
}

#[test]
fn a_rollback_of_a_reload_that_fails_goes_no_further_back() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.plan.fault = Fault::StartFails;
    world.ask(Scope::All, Until::Committed);
    let outcome = world.back();
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 2));
    assert_eq!(outcome.reason, "generation 3 is not in force");
    all_of(&world, 2);
}

#[test]
fn by_hand_while_observing_answers_all() {
    let mut world = serving(observed());
    let reload = world.ask(Scope::All, Until::Committed);
    world.run();
    assert_eq!(world.back().outcome, Verdict::RolledBack);
    assert_eq!(world.finished[&reload].outcome, Verdict::RolledBack);
    assert_eq!(world.core.state(), "serving");
    all_of(&world, 1);
}

#[test]
fn who_waits_for_the_drain_is_answered_when_the_left_ones_are_gone() {
    let mut world = serving(settings(1, 0));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.run();
    world.slow_drain = true;
    let left = world.child(2, Kind::Worker, 0);
    world.tell(Event::Rollback { ticket: Some(99), until: Until::Drained });
    world.run();
    assert_eq!(world.core.generation(), 1);
    assert!(!world.finished.contains_key(&99));
    world.gone(left, crate::core::event::Ended::Code(0));
    world.run();
    assert_eq!(world.finished[&99].outcome, Verdict::RolledBack);
}

#[test]
fn the_way_back_counts_to_one_total() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    assert_eq!(world.back().outcome, Verdict::RolledBack);
    let told = world.log.iter().filter_map(|it| match it {
        Action::Progress { progress, .. } if progress.phase == "rolling_back" => {
            Some((progress.done, progress.total))
        }
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(told.first() == Some(&(0, 3)) && told.iter().all(|it| it.1 == 3), "{told:?}");
}

#[test]
fn numbers_that_were_scaled_meanwhile_hold() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    let wish = Wish { workers: Some(Count::To(4)), task_workers: None };
    assert_eq!(world.scale(wish).outcome, Verdict::Committed);
    assert_eq!(world.back().outcome, Verdict::RolledBack);
    world.run();
    assert_eq!(world.serving_in(1, Kind::Worker), [0, 1, 2, 3]);
    assert_eq!(world.serving_in(1, Kind::TaskWorker), [4]);
    assert_eq!(world.processes.len(), 5);
}

#[test]
fn a_manager_that_dies_goes_on_observing_and_goes_on_going_back() {
    let mut world = serving(observed());
    let ticket = world.ask(Scope::All, Until::Committed);
    world.run();
    world.kill_manager(0);
    world.run();
    assert_eq!(world.core.state(), "observing");
    assert_eq!(world.wait_for(ticket).outcome, Verdict::Committed);
    // After each number of steps of the way back.
    for steps in 0..20 {
        for performed in 0..3 {
            let mut world = serving(settings(2, 1));
            assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
            world.run();
            let ticket = world.ask_back();
            for _ in 0..steps {
                if let Some(event) = world.events.pop_front() {
                    world.tell(event);
                }
            }
            world.kill_manager(performed);
            let outcome = world.wait_for(ticket);
            assert_eq!((outcome.outcome, outcome.generation), (Verdict::RolledBack, 1));
            world.run();
            while world.processes.len() > 3 && world.let_time_pass() {}
            all_of(&world, 1);
        }
    }
}

#[test]
fn what_a_manager_was_about_to_ask_for_on_the_way_back_is_asked_again() {
    let mut world = serving(settings(2, 1));
    assert_eq!(world.reload(Scope::All).outcome, Verdict::Committed);
    world.run();
    let until = Until::Committed;
    world.events.push_back(Event::Rollback { ticket: Some(99), until });
    world.kill_manager(0);
    assert_eq!(world.wait_for(99).outcome, Verdict::RolledBack);
    all_of(&world, 1);
}

#[test]
fn a_stop_answers_who_waits_for_an_observation_or_for_the_way_back() {
    for steps in 0..30 {
        let mut world = serving(observed());
        let reload = world.ask(Scope::All, Until::Committed);
        world.run();
        let back = world.ask_back();
        for _ in 0..steps {
            if let Some(event) = world.events.pop_front() {
                world.tell(event);
            }
        }
        world.tell(Event::Stop);
        world.run();
        while world.exit.is_none() && world.let_time_pass() {}
        assert_eq!(world.exit, Some(0), "after {steps} steps");
        assert!(world.finished.contains_key(&reload) && world.finished.contains_key(&back));
        assert!(world.processes.is_empty() && world.templates.is_empty(), "after {steps} steps");
    }
}

#[test]
fn an_upgrade_waits_for_the_end_of_an_observation() {
    let mut world = serving(observed());
    world.ask(Scope::All, Until::Replaced);
    world.run();
    let upgrade = world.ask_upgrade();
    world.run();
    assert_eq!(world.core.state(), "observing");
    let outcome = world.wait_for(upgrade);
    assert_eq!((outcome.outcome, outcome.generation), (Verdict::Committed, 3));
}
