//! A release proves itself before anything old retires: its canary serves beside the old workers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shiftwork_sys::signal;

use crate::support::http::Client;
use crate::support::kept::Kept;
use crate::support::load::Load;
use crate::support::processes::send;
use crate::support::shop::{Reloaded, Shop, Site, Status};

/// Reloads while clients come and go, whatever they are answered.
fn reload_under_traffic(shop: &Shop) -> Reloaded {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // A canary that crashes takes some along.
                    let _ = shop.get("/hello");
                }
            });
        }
        let reloaded = shop.reload_with(&[]);
        over.store(true, Ordering::Relaxed);
        reloaded
    })
}

fn has_canary(status: &Status) -> bool {
    status.role("worker").iter().any(|it| it.generation == Some(2) && it.state == "serving")
}

/// A connection that the canary has accepted.
fn of_the_canary(shop: &Shop) -> Client {
    shop.until("the canary serves", has_canary);
    let mut kept = Vec::new();
    for _ in 0..1000 {
        let mut client = shop.client();
        if client.get("/hello").unwrap().generation() == 2 {
            return client;
        }
        // Those who stay make room for others.
        kept.push(client);
    }
    panic!("the canary has accepted nobody");
}

/// The old generation serves as if nothing had been.
#[track_caller]
fn only_the_first_serves(shop: &Shop, workers: &[i32]) {
    let after = shop.until("the new generation is gone", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it <= 1))
    });
    assert_eq!((after.state.as_str(), after.generation), ("serving", 1));
    assert_eq!(after.pids("worker", 1), workers);
    for _ in 0..8 {
        assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    }
}

/// A canary with this fault is judged bad, for this cause, and nobody's connection closes.
fn is_rolled_back(fault: &str, cause: &str, settings: &[(&str, toml::Value)]) {
    let mut shop = Shop::start();
    let workers = shop.status().pids("worker", 1);
    let mut kept = Kept::open(&shop);
    kept.works();
    shop.put("app.fault", fault);
    for (key, value) in settings {
        shop.put(key, value.clone());
    }
    let reloaded = reload_under_traffic(&shop);
    assert_eq!((reloaded.code, reloaded.generation), (1, 1), "{reloaded:?}");
    assert_eq!(reloaded.outcome, "rolled_back", "{reloaded:?}");
    let reason = reloaded.reason.unwrap_or_default();
    assert!(reason.contains(cause), "{reason}");
    only_the_first_serves(&shop, &workers);
    assert_eq!(kept.works(), 1);
    shop.put("app.fault", "none");
    shop.put("server.canary_time", "0s");
    shop.put("server.canary_requests", 0);
    shop.reload();
    kept.works();
    shop.stop();
}

#[test]
fn a_canary_that_fails_is_not_kept_until_its_time_is_over() {
    is_rolled_back("errors=50", "the canary failed", &[("server.canary_time", "60s".into())]);
}

#[test]
fn a_canary_that_fails_little_is_found_out_in_the_end() {
    is_rolled_back("errors=20", "the canary failed", &[("server.canary_requests", 60.into())]);
}

#[test]
fn a_canary_that_is_slow() {
    is_rolled_back(
        "slow=80",
        "(canary_max_slowdown 3)",
        &[
            ("server.canary_requests", 20.into()),
            ("server.canary_max_slowdown", toml::Value::Float(3.0)),
        ],
    );
}

#[test]
fn a_canary_that_crashes() {
    is_rolled_back(
        "crash_after=5",
        "it has crashed while it proved itself",
        &[("server.canary_time", "60s".into())],
    );
}

#[test]
fn a_good_canary_is_not_felt() {
    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    let comers = Load::per_request(shop.web(), 4);
    let mut kept = Kept::open(&shop);
    kept.works();
    shop.put("server.canary_time", "1s");
    // Two workers on a busy machine are no match for each other.
    shop.put("server.canary_max_slowdown", toml::Value::Float(100.0));
    let reloaded = shop.reload();
    assert!(reloaded.duration_ms >= 1_000, "{reloaded:?}");
    kept.works();
    load.wait_more(50);
    comers.wait_more(50);
    load.finish().assert_flawless();
    comers.finish().assert_flawless();
    shop.stop();
}

#[test]
fn too_little_traffic_has_a_policy_and_what_the_canary_has_comes_back() {
    let mut shop = Shop::start();
    let workers = shop.status().pids("worker", 1);
    shop.put("server.canary_time", "2s");
    shop.put("server.canary_requests", 100_000);
    let (reloaded, mut client) = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let client = of_the_canary(&shop);
        (reload.join().unwrap(), client)
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    let reason = reloaded.reason.unwrap_or_default();
    assert!(reason.contains("of 100000 that it takes to judge it"), "{reason}");
    only_the_first_serves(&shop, &workers);
    assert_eq!(client.get("/hello").unwrap().generation(), 1);
    shop.put("server.canary_inconclusive", "commit");
    shop.put("server.canary_time", "200ms");
    let reloaded = shop.reload();
    assert_eq!(client.get("/hello").unwrap().generation(), reloaded.generation);
    // Not as one that was found good.
    let unproven = reloaded.reason.unwrap_or_default();
    assert!(unproven.starts_with("unproven: the canary served "), "{unproven}");
    assert!(reloaded.warnings.contains(&unproven), "{:?}", reloaded.warnings);
    assert!(shop.site.run(&["history"]).expect(0).stdout.contains(&unproven));
    shop.stop();
}

#[test]
fn a_manager_that_dies_gives_the_proof_up() {
    let mut shop = Shop::start();
    let workers = shop.status().pids("worker", 1);
    let load = Load::keep_alive(shop.web(), 4);
    shop.put("server.canary_time", "60s");
    let (reloaded, mut client) = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let client = of_the_canary(&shop);
        send(shop.status().one("manager"), signal::KILL);
        (reload.join().unwrap(), client)
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "rolled_back"), "{reloaded:?}");
    assert!(reloaded.reason.unwrap_or_default().contains("manager has died"));
    only_the_first_serves(&shop, &workers);
    assert_eq!(client.get("/hello").unwrap().generation(), 1);
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn who_is_to_be_asked_has_to_be_there() {
    let site = Site::new().with("server.health", "till:/health");
    for arguments in [&["check"][..], &["start", "-d"]] {
        let ended = site.run(arguments).expect(2);
        let named = ended.stderr.contains("server.health");
        assert!(named && ended.stderr.contains("no \"till\" that speaks HTTP"), "{ended:?}");
    }
    site.assert_nothing_left();
    let shop = Site::new().with("server.health", "web:/hello").start();
    shop.reload();
    shop.stop();
}

#[test]
fn a_health_check_that_hangs() {
    let said = Site::new()
        .with("server.health", "/slow?ms=60000")
        .with("server.health_timeout", "100ms")
        .with("server.health_tries", 2)
        .fails();
    assert!(said.contains("(asked 2 times): no answer within 100ms"), "{said}");
}
