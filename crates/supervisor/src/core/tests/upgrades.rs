//! Manager and master become the new program: how far it is, and what it is called when it fails.

use super::world::{Fault, Plan, World, settings};
use crate::core::action::Action;
use crate::core::event::Event;
use crate::core::history::What;
use crate::core::outcome::{Outcome, Verdict};

/// An upgrade in which this goes wrong, and what it came to.
fn upgraded(fault: Fault) -> (World, Outcome) {
    let mut world = World::serving(2, 1);
    world.plan.fault = fault;
    let ticket = world.ask_upgrade();
    let outcome = world.wait_for(ticket);
    (world, outcome)
}

#[test]
fn each_stage_is_known_and_told() {
    let mut world = World::serving(2, 1);
    world.ask_upgrade();
    let progress = world.core.progress().cloned().unwrap();
    assert_eq!((&*progress.phase, progress.generation), ("upgrading_probing", 1));
    // The manager is replaced within this one.
    world.tell(Event::Probed { result: Ok(()) });
    assert_eq!(world.core.progress().unwrap().phase, "upgrading_master");
    world.run();
    assert_eq!((world.core.generation(), world.core.progress()), (2, None));
    let told: Vec<_> = (world.log.iter())
        .filter_map(|it| match it {
            Action::Progress { progress, .. } => Some((progress.phase.as_str(), &progress.slots)),
            _ => None,
        })
        .take_while(|(phase, _)| *phase != "starting")
        .collect();
    let none = Vec::new();
    let stages = ["upgrading_probing", "upgrading_manager", "upgrading_master"];
    assert_eq!(told, stages.map(|stage| (stage, &none)), "and no slot has changed meanwhile");
}

#[test]
fn one_that_fails_is_no_reload() {
    for fault in [Fault::ProbeRefuses, Fault::ManagerStays, Fault::MasterStays] {
        let (world, outcome) = upgraded(fault);
        assert_eq!((outcome.what, outcome.outcome), (What::Upgrade, Verdict::Aborted), "{fault:?}");
        assert!(["too new", "no program"].contains(&&*outcome.reason), "{outcome:?}");
        assert!(outcome.warnings.is_empty(), "{outcome:?}");
        assert_eq!(world.core.progress(), None);
        assert_eq!(world.core.history().last().unwrap().what, What::Upgrade);
    }
}

#[test]
fn the_reload_after_it_fails_as_a_reload_with_the_new_program_in_place() {
    let (world, outcome) = upgraded(Fault::PreloadFails);
    assert_eq!((outcome.what, outcome.outcome), (What::Reload, Verdict::Aborted));
    assert_eq!(outcome.warnings, ["manager and master are the new program all the same"]);
    assert_eq!(world.core.generation(), 1);
}

#[test]
fn one_that_a_stop_comes_before_is_called_so() {
    let plan = Plan { settings: settings(1, 0), ..Plan::default() };
    let mut world = World::new(plan);
    world.reload(crate::core::event::Scope::All);
    world.tell(Event::Stop);
    let late = world.ask_upgrade();
    assert_eq!(world.finished[&late].what, What::Upgrade);
}
