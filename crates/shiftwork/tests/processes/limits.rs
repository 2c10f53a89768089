//! Processes that have lived long enough: replaced one at a time, and no client notices.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::exposition::scrape;
use crate::support::load::Load;
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;

/// Requests go on until so many different workers have served, and nothing is lost by that.
fn replaced(shop: &Shop, workers: usize) {
    let mut idle: Vec<_> = (0..10).map(|_| shop.client()).collect();
    for client in &mut idle {
        client.get("/hello").unwrap();
    }
    let load = Load::keep_alive(shop.web(), 2);
    let mut pids: BTreeSet<i32> = BTreeSet::new();
    shop.until("so many workers have served", |status| {
        let serving = status.role("worker").iter().filter(|it| it.state == "serving").count();
        assert!(serving >= 2, "both slots are served at any time: {status:#?}");
        pids.extend(status.pids("worker", 1));
        pids.len() >= workers
    });
    load.wait_more(20);
    load.finish().assert_flawless();
    for client in &mut idle {
        assert_eq!(client.get("/hello").unwrap().generation(), 1);
    }
}

#[test]
fn of_old_age() {
    let shop = Site::new().with("server.max_lifetime", "1s").start();
    let task_worker = shop.status().pids("task_worker", 1)[0];
    replaced(&shop, 6);
    shop.wait_log("max_lifetime is reached");
    let cause = [("role", "worker"), ("cause", "max_lifetime")];
    assert!(scrape(&shop).value("shiftwork_respawns_total", &cause) >= 1.0);
    shop.until("task workers grow old, too", |status| {
        !status.pids("task_worker", 1).contains(&task_worker)
    });
    let order = shop.client().post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap();
    assert_eq!(order.status, 201, "{order:?}");
    shop.stop();
}

#[test]
fn with_too_much_memory() {
    let shop = Site::new().with("server.max_memory", "64MiB").with("app.fault", "leak=8").start();
    let before = shop.status().pids("worker", 1);
    let mut client = shop.client();
    (0..9).for_each(|_| assert_eq!(client.get("/hello").unwrap().status, 200));
    let victim = client.get("/hello").unwrap().worker_pid();
    assert!(before.contains(&victim));
    // Looked at once a second; the connection goes on in the successor.
    until("another worker answers on the same connection", || {
        shop.status().role("worker").iter().all(|it| it.pid != victim)
    });
    assert_ne!(client.get("/hello").unwrap().worker_pid(), victim);
    shop.wait_log("max_memory is reached");
    let cause = [("role", "worker"), ("cause", "max_memory")];
    assert!(scrape(&shop).value("shiftwork_respawns_total", &cause) >= 1.0);
    shop.stop();
}

#[test]
fn memory_that_is_shared_is_nobodys_own() {
    // The executable alone is larger than this; nothing of it is written to.
    let shop = Site::new().with("server.max_memory", "8MiB").start();
    let before = shop.status().pids("worker", 1);
    let load = Load::keep_alive(shop.web(), 2);
    for pid in &before {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(pages * 4 > 8 * 1024, "{pages} pages are too few to tell");
    }
    // Two looks of each.
    let begun = Instant::now();
    until("they have looked", || begun.elapsed() > Duration::from_millis(2_500));
    load.wait_more(20);
    load.finish().assert_flawless();
    assert_eq!(shop.status().pids("worker", 1), before);
    shop.stop();
}
