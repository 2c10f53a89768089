//! The first minutes of a release in force: it is observed, and taken back unasked.

use std::thread;

use shiftwork_sys::signal;

use crate::support::kept::Kept;
use crate::support::load::Load;
use crate::support::processes::send;
use crate::support::shop::{Shop, Site, Status};

fn site() -> Site {
    Site::new().with("server.observe_time", "60s")
}

fn is_left_to(status: &Status, generation: u64) -> bool {
    status.state == "serving"
        && status
            .processes
            .iter()
            .all(|it| it.generation.is_none_or(|it| it == generation || it == 0))
}

#[test]
fn a_release_that_crashes_in_its_first_minutes_takes_itself_back() {
    let mut shop = site().start();
    let mut kept = Kept::open(&shop);
    kept.works();
    shop.put("app.fault", "crash_after_ready=400");
    let reloaded = shop.reload_with(&[]);
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    assert_eq!(reloaded.generation, 1);
    let reason = reloaded.reason.unwrap_or_default();
    assert!(reason.contains("4 processes of generation 2 died"), "{reason}");
    assert!(reason.contains("(max_crashes 3)"), "{reason}");
    shop.until("only the old generation is left", |status| is_left_to(status, 1));
    for _ in 0..8 {
        assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    }
    // On a terminal it is told as well; what is left is not kept.
    let ended = shop.site.run(&["reload"]).expect(1);
    assert!(ended.said().contains("reload rolled back, generation 1 goes on"), "{ended:?}");
    shop.put("app.fault", "none");
    shop.put("server.observe_time", "0s");
    shop.reload();
    shop.stop();
}

#[test]
fn connections_of_those_who_live_are_handed_back() {
    let mut shop = site().with("server.max_crashes", 0).start();
    let mut all: Vec<Kept> = (0..6).map(|_| Kept::open(&shop)).collect();
    all.iter_mut().for_each(|kept| assert_eq!(kept.works(), 1));
    let load = Load::keep_alive(shop.web(), 4);
    let task_workers = |status: &Status| status.pids("task_worker", 2);
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let status = shop.until("it is observed", |status| status.state == "observing");
        all.iter_mut().for_each(|kept| assert_eq!(kept.works(), 2));
        // No client is in the hands of a task worker.
        send(task_workers(&status)[0], signal::KILL);
        reload.join().unwrap()
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    shop.until("only the old generation is left", |status| is_left_to(status, 1));
    all.iter_mut().for_each(|kept| assert_eq!(kept.works(), 1));
    load.wait_more(50);
    load.finish().assert_flawless();
    shop.put("server.observe_time", "0s");
    shop.reload();
    shop.stop();
}

#[test]
fn a_release_that_fails_too_much_takes_itself_back() {
    let mut shop = site().start();
    shop.put("server.max_error_rate", toml::Value::Float(0.2));
    shop.put("app.fault", "errors=50");
    let mut client = shop.client();
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        while !reload.is_finished() {
            client.get("/hello").unwrap();
        }
        reload.join().unwrap()
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    assert!(reloaded.reason.unwrap_or_default().contains("(max_error_rate 0.2)"));
    assert_eq!(client.get("/hello").unwrap().generation(), 1);
    shop.stop();
}

#[test]
fn a_good_release_is_committed_in_the_end() {
    let mut shop = Shop::start();
    shop.put("server.observe_time", "1s");
    let early = shop.reload_with(&["--until", "replaced"]);
    assert_eq!((early.code, early.outcome.as_str()), (0, "replaced"), "{early:?}");
    assert_eq!(shop.status().state, "observing");
    shop.until("it is committed", |status| status.state == "serving");
    let reloaded = shop.reload();
    assert!(reloaded.duration_ms >= 1_000, "{reloaded:?}");
    shop.stop();
}

#[test]
fn a_reload_while_observing_begins_at_once_and_answers_all() {
    let mut shop = Shop::start();
    shop.put("server.observe_time", "60s");
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| shop.reload_with(&[]));
        shop.until("it is observed", |status| status.state == "observing");
        let second = scope.spawn(|| shop.reload_with(&["--set", "server.observe_time=300ms"]));
        (first.join().unwrap(), second.join().unwrap())
    });
    for outcome in [&first, &second] {
        assert_eq!((outcome.code, outcome.generation), (0, 3), "{outcome:?}");
        assert_eq!(outcome.outcome, "committed");
    }
    // The fallback was the first one all the time, and is what is kept.
    let status = shop.until("what was replaced is gone", |status| is_left_to(status, 3));
    assert_eq!(status.parked[0].generation, Some(1), "{status:#?}");
    shop.stop();
}

#[test]
fn a_manager_that_dies_does_not_end_it() {
    let mut shop = Shop::start();
    shop.put("server.observe_time", "60s");
    shop.put("server.max_crashes", 0);
    let load = Load::keep_alive(shop.web(), 4);
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let before = shop.until("it is observed", |status| status.state == "observing");
        let manager = before.one("manager");
        send(manager, signal::KILL);
        let after = shop.until("another one observes", |status| {
            status.state == "observing" && status.one("manager") != manager
        });
        send(after.pids("task_worker", 2)[0], signal::KILL);
        reload.join().unwrap()
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    shop.until("only the old generation is left", |status| is_left_to(status, 1));
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}
