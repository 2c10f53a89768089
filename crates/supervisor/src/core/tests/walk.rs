//! Random walks: whatever happens in whatever order, the promises hold.

use std::time::Duration;

use proptest::prelude::*;

use crate::core::event::{Ended, Event, Scope, Until};
use crate::core::scale::{Count, Wish};
use crate::protocol::template::Kind;
use crate::settings::ServerSettings;

use super::world::{Fault, World, retire, settings};

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The next answer of a process arrives.
    Answer,
    /// Time passes until the next deadline.
    Wait,
    Reload(Scope, Fault),
    KillSomebody(usize),
    KillTemplate,
    Retire(usize),
    RetireAll,
    Stick(usize),
    FinishDrain(usize),
    KillManager(usize),
    Rollback,
    Upgrade(Fault),
    Scale(Wish, Fault),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::TemplateExits),
        1 => Just(Fault::NotBound),
        1 => Just(Fault::PreloadFails),
        1 => Just(Fault::ForkRefused),
        1 => Just(Fault::StartFails),
        1 => Just(Fault::StartHangs),
        1 => Just(Fault::StartFailsFrom(1)),
        1 => Just(Fault::Unhealthy),
        1 => Just(Fault::Mute),
        1 => Just(Fault::Errors),
    ]
}

/// What may go wrong when processes may die, too.
fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => fault(),
        1 => Just(Fault::Crashes),
        2 => Just(Fault::CrashesLater),
    ]
}

/// How releases prove themselves.
fn proving() -> impl Strategy<Value = ServerSettings> {
    let seconds = |most: u64| (0..=most).prop_map(Duration::from_secs);
    (any::<bool>(), seconds(1), 0_u64..40, seconds(3), 0_u32..3, 0_u32..3).prop_map(
        |(health, canary_time, requests, observe_time, max_crashes, keep_releases)| {
            ServerSettings {
                health: health.then(|| "/health".into()),
                health_tries: 2,
                canary_time,
                canary_requests: requests.saturating_sub(20),
                observe_time,
                max_crashes,
                max_error_rate: Some(0.3),
                keep_releases,
                ..settings(2, 1)
            }
        },
    )
}

fn upgrade_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::ProbeRefuses),
        1 => Just(Fault::ManagerStays),
        1 => Just(Fault::MasterStays),
        1 => Just(Fault::StartFails),
    ]
}

/// A process that hangs hangs for ever: that is another test's.
fn scale_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::NotBound),
        1 => Just(Fault::ForkRefused),
        1 => Just(Fault::StartFails),
        1 => (0_u32..4).prop_map(Fault::StartFailsFrom),
    ]
}

fn count(most: u32) -> impl Strategy<Value = Option<Count>> {
    prop_oneof![
        Just(None),
        (1..=most).prop_map(|it| Some(Count::To(it))),
        (-2_i32..3).prop_map(|it| Some(Count::By(it))),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    (count(4), count(3)).prop_map(|(workers, task_workers)| Wish { workers, task_workers })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Answer),
        2 => Just(Step::Wait),
        1 => any_fault().prop_map(|fault| Step::Reload(Scope::All, fault)),
        1 => any_fault().prop_map(|fault| Step::Reload(Scope::Tasks, fault)),
        1 => Just(Step::Rollback),
        1 => (0_usize..8).prop_map(Step::KillSomebody),
        1 => Just(Step::KillTemplate),
        1 => (0_usize..8).prop_map(Step::Retire),
        1 => Just(Step::RetireAll),
        1 => (0_usize..8).prop_map(Step::Stick),
        2 => (0_usize..8).prop_map(Step::FinishDrain),
        1 => (0_usize..4).prop_map(Step::KillManager),
        1 => upgrade_fault().prop_map(Step::Upgrade),
        1 => (wish(), scale_fault()).prop_map(|(wish, fault)| Step::Scale(wish, fault)),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Answer => {
            if let Some(event) = world.events.pop_front() {
                world.now += 1;
                world.tell(event);
            }
        }
        Step::Wait => {
            if let Some(due) = world.core.next_deadline() {
                world.now = world.now.max(due);
                world.tell(Event::Tick);
            }
        }
        Step::Reload(scope, fault) => {
            world.plan.fault = fault;
            world.ask(scope, Until::Committed);
        }
        Step::KillSomebody(which) => {
            let all: Vec<_> = world.processes.keys().copied().collect();
            if let Some(child) = all.get(which % all.len().max(1)) {
                world.kill(*child);
            }
        }
        Step::KillTemplate => {
            if let Some(generation) = world.templates.first().copied() {
                world.kill_template(generation);
            }
        }
        Step::Retire(which) => {
            let all: Vec<_> = world.processes.keys().copied().collect();
            if let Some(child) = all.get(which % all.len().max(1)) {
                world.tell(retire(*child, "asked"));
            }
        }
        Step::RetireAll => {
            let all: Vec<_> = world.processes.keys().copied().collect();
            for child in all {
                world.tell(retire(child, "asked"));
            }
        }
        Step::Stick(which) => {
            let all: Vec<_> = world.processes.keys().copied().collect();
            if let Some(child) = all.get(which % all.len().max(1)) {
                world.stick(*child);
            }
        }
        Step::Rollback => drop(world.ask_back()),
        Step::Upgrade(fault) => {
            world.plan.fault = fault;
            world.ask_upgrade();
        }
        Step::Scale(wish, fault) => {
            let generation = world.core.generation();
            world.set_fault(generation, fault);
            world.ask_scale(wish);
        }
        Step::KillManager(performed) => world.kill_manager(performed),
        Step::FinishDrain(which) => {
            let drains = |child: &u64| world.processes[child].draining;
            let all: Vec<_> = world.processes.keys().copied().filter(drains).collect();
            if let Some(child) = all.get(which % all.len().max(1)) {
                world.gone(*child, Ended::Code(0));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_comes_to_rest_serving_and_can_be_stopped(
        steps in prop::collection::vec(step(), 1..300),
        parallel in 0_u32..3,
        delay in 0_u64..2,
        traffic in any::<bool>(),
        proving in proving(),
    ) {
        let mut world = World::serving(2, 1);
        world.plan.settings = proving;
        world.traffic = traffic;
        world.plan.settings.pre_stop_delay = std::time::Duration::from_secs(delay);
        world.plan.settings.reload_parallel = parallel;
        world.slow_drain = true;
        for step in steps {
            take(&mut world, step);
            for kind in [Kind::Worker, Kind::TaskWorker] {
                prop_assert!(world.successors(kind) <= 1, "several retire at once");
            }
        }
        // Left alone, it comes to rest.
        world.heal_all();
        world.traffic = true;
        for _ in 0..400 {
            world.run();
            if !world.let_time_pass() {
                break;
            }
        }
        world.run();
        prop_assert_eq!(world.core.state(), "serving");
        prop_assert_eq!(world.finished.len() as u64, world.asked());
        let generation = world.core.generation();
        let number = world.core.worker_num(generation);
        let slots: Vec<u32> = (0..number).collect();
        prop_assert_eq!(&world.serving_in(generation, Kind::Worker), &slots);
        prop_assert_eq!(world.slots_served().into_iter().collect::<Vec<_>>(), slots);
        // Nobody waits for ever behind a door that was closed.
        prop_assert!(world.queues_served().is_superset(&world.opened), "{:?}", world.processes);
        let tasks = world.processes.values().filter(|it| it.kind == Kind::TaskWorker);
        let mut tasks: Vec<u32> = tasks.map(|it| it.worker_id).collect();
        tasks.sort_unstable();
        prop_assert_eq!(tasks, world.task_worker_ids());
        let draining = world.processes.values().filter(|it| it.draining).count();
        prop_assert_eq!(draining, 0, "{:?}", world.processes);
        prop_assert!(world.processes.values().all(|it| it.stuck.is_none()));
        // A reload still works, and a stop ends everything.
        world.slow_drain = false;
        let outcome = world.reload(Scope::All);
        prop_assert_eq!(outcome.outcome, crate::core::outcome::Verdict::Committed);
        world.run();
        prop_assert!(
            world.processes.values().all(|it| it.generation == outcome.generation),
            "{:?}",
            world.processes
        );
        world.tell(Event::Stop);
        world.run();
        while world.exit.is_none() && world.let_time_pass() {}
        prop_assert_eq!(world.exit, Some(0));
        prop_assert!(world.processes.is_empty() && world.templates.is_empty());
    }

    #[test]
    fn without_deaths_every_slot_is_served_at_every_moment(
        faults in prop::collection::vec((fault(), any::<bool>()), 1..6),
        parallel in 0_u32..4,
        workers in 1_u32..5,
        proving in proving(),
    ) {
        let mut world = World::serving(workers, 1);
        let settings = ServerSettings { worker_num: workers, reload_parallel: parallel, ..proving };
        world.plan.settings = settings;
        for (fault, back) in faults {
            world.plan.fault = fault;
            world.ask(Scope::All, Until::Committed);
            if back {
                world.ask_back();
            }
            loop {
                while let Some(event) = world.events.pop_front() {
                    world.now += 1;
                    world.tell(event);
                    prop_assert_eq!(world.slots_served().len(), workers as usize);
                    prop_assert!(world.queues_served().is_superset(&world.opened));
                }
                if world.core.state() == "serving" || !world.let_time_pass() {
                    break;
                }
            }
        }
        prop_assert_eq!(world.core.state(), "serving");
        prop_assert_eq!(world.finished.len() as u64, world.asked());
    }

    #[test]
    fn without_deaths_no_queue_is_without_a_worker_while_it_scales(
        steps in prop::collection::vec((wish(), fault(), any::<bool>()), 1..8),
        parallel in 0_u32..3,
    ) {
        let mut world = World::serving(2, 1);
        world.plan.settings.reload_parallel = parallel;
        for (wish, fault, reload) in steps {
            world.set_fault(world.core.generation(), fault);
            world.ask_scale(wish);
            if reload {
                world.ask(Scope::All, Until::Committed);
            }
            loop {
                while let Some(event) = world.events.pop_front() {
                    world.now += 1;
                    world.tell(event);
                    prop_assert!(
                        world.queues_served().is_superset(&world.opened),
                        "{:?} of {:?}", world.queues_served(), world.opened
                    );
                }
                if world.core.state() == "serving" || !world.let_time_pass() {
                    break;
                }
            }
        }
        prop_assert_eq!(world.core.state(), "serving");
        prop_assert_eq!(world.finished.len() as u64, world.asked());
    }
}
