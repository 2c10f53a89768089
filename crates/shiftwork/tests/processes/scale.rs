//! More and fewer workers and task workers, while clients ask.

use std::time::{Duration, Instant};

use serde_json::Value;
use shiftwork_sys::signal;

use crate::support::http::Client;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site, Status};

fn ids(status: &Status, role: &str) -> Vec<u32> {
    let mut ids: Vec<u32> = status
        .role(role)
        .iter()
        .filter(|process| process.state == "serving")
        .filter_map(|process| process.worker_id)
        .collect();
    ids.sort_unstable();
    ids
}

#[track_caller]
fn scale(shop: &Shop, arguments: &[&str]) -> Value {
    let ended = shop.site.run(&[&["scale", "--json"], arguments].concat()).expect(0);
    let outcome: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(outcome["outcome"], "committed", "{outcome}");
    outcome
}

/// A kept connection to this worker.
#[track_caller]
fn client_of(shop: &Shop, worker: u64) -> Client {
    loop {
        let mut client = shop.client();
        if client.get("/hello").unwrap().number("x-worker-id") == worker {
            return client;
        }
    }
}

#[test]
fn up_and_down_again_under_load_loses_nothing() {
    let shop = Shop::start();
    let mut idle: Vec<_> = (0..20).map(|_| shop.client()).collect();
    for client in &mut idle {
        client.get("/hello").unwrap();
    }
    let loads = [
        Load::keep_alive(shop.web(), 4),
        Load::per_request(shop.web(), 2),
        Load::pipelined(shop.web(), 2),
        Load::orders(shop.web(), 2, 0),
    ];
    for (typed, workers, tasks) in [
        (&["4"][..], 4, 1),
        (&["1", "--task-workers", "2"], 1, 2),
        (&["+2"], 3, 2),
        (&["-2", "--task-workers", "1"], 1, 1),
        (&["2"], 2, 1),
    ] {
        loads.iter().for_each(|load| load.wait_more(10));
        let outcome = scale(&shop, typed);
        assert_eq!(outcome["scaled"]["workers"], workers, "{outcome}");
        assert_eq!(outcome["scaled"]["task_workers"], tasks, "{outcome}");
        // All of them serve when the command returns.
        let status = shop.status();
        assert_eq!(ids(&status, "worker"), (0..workers).collect::<Vec<_>>());
        assert_eq!(ids(&status, "task_worker"), (workers..workers + tasks).collect::<Vec<_>>());
        assert_eq!(status.generation, 1);
    }
    for load in loads {
        load.wait_more(20);
        load.finish().assert_flawless();
    }
    for client in &mut idle {
        assert_eq!(client.get("/hello").unwrap().generation(), 1);
    }
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"]);
    shop.stop();
}

#[test]
fn those_who_wait_for_a_worker_that_goes_are_served_by_the_others() {
    let shop = Shop::start();
    let mut blocked = client_of(&shop, 1);
    let began = Instant::now();
    blocked.send(b"GET /block?ms=4000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    // Half of these stand in the queue of a worker that takes nobody.
    let mut waiting: Vec<_> = (0..40).map(|_| shop.client()).collect();
    for client in &mut waiting {
        client.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    }
    scale(&shop, &["1"]);
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap().number("x-worker-id"), 0);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "they have waited for the one that goes");
    assert_eq!(blocked.receive().unwrap().text(), "done");
    // The kernel goes on choosing that queue for new connections.
    for _ in 0..40 {
        assert_eq!(shop.get("/hello").unwrap().number("x-worker-id"), 0);
    }
    shop.stop();
}

#[test]
fn it_holds_over_reloads_and_deaths_until_the_setting_changes() {
    let mut shop = Shop::start();
    scale(&shop, &["3"]);
    shop.reload();
    assert_eq!(ids(&shop.status(), "worker"), [0, 1, 2]);
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    wait_gone(manager);
    let victim = shop.status().pids("worker", 2)[2];
    send(victim, signal::KILL);
    wait_gone(victim);
    shop.until("three serve", |status| ids(status, "worker") == [0, 1, 2]);
    scale(&shop, &["4"]);
    shop.put("server.worker_num", 1);
    shop.reload();
    assert_eq!(ids(&shop.status(), "worker"), [0]);
    shop.put("server.worker_num", 2);
    shop.reload();
    assert_eq!(ids(&shop.status(), "worker"), [0, 1]);
    shop.stop();
}

#[test]
fn ttin_and_ttou_are_one_more_and_one_fewer() {
    let shop = Shop::start();
    let load = Load::per_request(shop.web(), 2);
    for (signo, workers) in
        [(signal::TTIN, 3), (signal::TTIN, 4), (signal::TTOU, 3), (signal::TTOU, 2)]
    {
        load.wait_more(10);
        shop.signal(signo);
        shop.until("as many as that", |status| {
            ids(status, "worker") == (0..workers).collect::<Vec<_>>()
        });
    }
    load.finish().assert_flawless();
    shop.signal(signal::TTOU);
    shop.until("one is left", |status| ids(status, "worker") == [0]);
    shop.signal(signal::TTOU);
    shop.wait_log("there can be 1 to 1024 workers");
    assert_eq!(ids(&shop.status(), "worker"), [0]);
    assert_eq!(shop.get("/hello").unwrap().number("x-worker-id"), 0);
    shop.stop();
}

#[test]
fn added_workers_have_tasks_done_by_task_workers_that_were_there_before() {
    let shop = Site::new().with("server.worker_num", 1).with("server.task_worker_num", 6).start();
    let stays = shop.status().pids("task_worker", 1)[5];
    // More than there were reply sockets for; the others are replaced by ones with higher ids.
    scale(&shop, &["6"]);
    assert!(shop.status().pids("task_worker", 1).contains(&stays));
    let orders = Load::orders(shop.web(), 16, 0);
    orders.wait_more(120);
    let counts = orders.finish();
    counts.assert_flawless();
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(
        (&sums["paid"], &sums["shipped"]),
        (&counts.answered.into(), &counts.answered.into())
    );
    shop.stop();
}

#[test]
fn a_worker_that_does_not_start_undoes_it_and_says_why() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 2);
    // Those that are there have it open; nobody can open it any more.
    std::fs::rename(shop.site.path("shop.sqlite"), shop.site.path("away")).unwrap();
    std::fs::create_dir(shop.site.path("shop.sqlite")).unwrap();
    let ended = shop.site.run(&["scale", "3"]).expect(1);
    assert!(ended.stderr.contains("\nnot scaled: "), "{ended:?}");
    assert!(ended.stderr.contains("2 workers and 1 task worker"), "{ended:?}");
    assert_eq!(ids(&shop.status(), "worker"), [0, 1]);
    load.wait_more(20);
    load.finish().assert_flawless();
    for wrong in [&["scale", "0"][..], &["scale"], &["scale", "1025"]] {
        shop.site.run(wrong).expect(2);
    }
    shop.site.run(&["scale", "-5"]).expect(1);
    shop.stop();
}

#[test]
fn a_change_waits_for_the_reload_that_goes_on() {
    let mut shop = Shop::start();
    shop.put("app.fault", "slow_start=700");
    let reload = shop.site.command(&["reload"]).spawn().unwrap();
    shop.until("it reloads", |status| status.state == "reloading");
    let outcome = scale(&shop, &["3"]);
    assert_eq!(outcome["generation"], 2, "{outcome}");
    assert!(reload.wait_with_output().unwrap().status.success());
    assert_eq!(shop.status().pids("worker", 2).len(), 3);
    shop.stop();
}
