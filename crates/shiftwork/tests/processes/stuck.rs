//! Processes that live and do nothing: found, shown, replaced.

use std::time::{Duration, Instant};

use shiftwork_sys::signal;

use crate::support::http::Broken;
use crate::support::load::Load;
use crate::support::processes::{alive, send, wait_gone};
use crate::support::shop::{Shop, Site};

#[test]
fn a_blocked_worker_is_shown_and_replaced_and_its_queue_served() {
    let shop =
        Site::new().with("server.worker_num", 1).with("server.heartbeat_timeout", "1s").start();
    let victim = shop.get("/hello").unwrap().worker_pid();
    let mut blocked = shop.block(600_000);
    // These wait in the queue of its slot.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = shop.client();
            client.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
            client
        })
        .collect();
    wait_gone(victim);
    for mut client in waiting {
        let response = client.receive().unwrap();
        assert_ne!(response.worker_pid(), victim);
        assert_eq!(response.generation(), 1);
    }
    let lost = blocked.receive().unwrap_err();
    assert!(matches!(lost, Broken::Reset | Broken::Closed), "{lost}");
    let log = shop.site.log();
    assert!(log.contains("is stuck: its loop has not turned"), "its state");
    assert!(log.contains(&format!("stack of thread {victim}:")), "addresses");
    assert!(log.contains("shop(+0x"), "addresses that addr2line understands");
    // Names take a while where the machine is busy, and are not waited for for ever.
    let named = log.contains("shop::routes::block");
    assert!(named || log.contains("killing it"), "and the name of what blocks");
    assert!(log.contains("1 requests in hand"), "and what was cut");
    assert_eq!(shop.status().role("worker")[0].restarts, 1);
    let counted = shop.site.run(&["metrics"]).expect(0).stdout;
    for (cause, number) in [("stuck", 1), ("crash", 0)] {
        let line =
            format!("shiftwork_respawns_total{{role=\"worker\",cause=\"{cause}\"}} {number}\n");
        assert!(counted.contains(&line), "{line} in {counted}");
    }
    shop.stop();
}

#[test]
fn others_do_not_feel_it() {
    let shop = Site::new().with("server.heartbeat_timeout", "1s").start();
    let mut other = shop.client();
    let survivor = other.get("/hello").unwrap().worker_pid();
    let victim = shop.status().pids("worker", 1).into_iter().find(|it| *it != survivor).unwrap();
    send(victim, signal::STOP);
    while alive(victim) {
        assert_eq!(other.get("/hello").unwrap().worker_pid(), survivor);
    }
    shop.until("two workers serve", |status| {
        status.role("worker").iter().filter(|it| it.state == "serving").count() == 2
    });
    let load = Load::per_request(shop.web(), 4);
    load.wait_more(100);
    load.finish().assert_flawless();
    shop.stop();
}

/// Stops the manager, and tells which one it was.
fn stop_manager(shop: &Shop) -> i32 {
    let manager = shop.status().one("manager");
    send(manager, signal::STOP);
    manager
}

#[test]
fn a_stopped_manager_is_followed_by_another_that_does_what_was_asked() {
    let shop = Site::new().with("server.heartbeat_timeout", "1s").start();
    let load = Load::keep_alive(shop.web(), 4);
    let stopped = stop_manager(&shop);
    // Asked of one that does not hear, and answered by the next.
    assert_eq!(shop.reload().generation, 2);
    assert!(!alive(stopped));
    assert!(shop.site.log().contains(&format!("the manager, pid {stopped}, is stuck")));
    assert_eq!(shop.status().role("manager")[0].restarts, 1);
    load.wait_more(50);
    load.finish().assert_flawless();
    // A stop is heard, too.
    stop_manager(&shop);
    shop.stop();
}

#[test]
fn a_stopped_manager_does_not_hold_up_who_is_to_leave_at_once() {
    let mut shop = Site::new().with("server.heartbeat_timeout", "0s").start();
    let stopped = stop_manager(&shop);
    shop.signal(signal::QUIT);
    assert_eq!(shop.wait(), 0);
    assert!(!alive(stopped));
    shop.leave_site().assert_nothing_left();
}

#[test]
fn with_several_threads_one_that_blocks_is_no_reason() {
    let shop = Site::new()
        .with("server.worker_num", 1)
        .with("server.worker_threads", 2)
        .with("server.heartbeat_timeout", "1s")
        .start();
    let worker = shop.get("/hello").unwrap().worker_pid();
    let ask = |ms: u64| {
        let mut client = shop.client();
        let request = format!("GET /block?ms={ms} HTTP/1.1\r\nhost: shop\r\n\r\n");
        client.send(request.as_bytes()).unwrap();
        client
    };
    let mut others: Vec<_> = (0..4).map(|_| shop.client()).collect();
    for other in &mut others {
        other.get("/hello").unwrap();
    }
    let mut one = ask(3_000);
    let asked = Instant::now();
    let mut answered = 0;
    // Whoever is connected is served on by the other thread, all the while.
    while asked.elapsed() < Duration::from_millis(2_500) {
        for other in &mut others {
            assert_eq!(other.get("/hello").unwrap().worker_pid(), worker);
            answered += 1;
        }
    }
    assert!(answered > 100, "{answered} answers while one thread was blocked");
    assert_eq!(one.receive().unwrap().worker_pid(), worker);
    assert!(asked.elapsed() >= Duration::from_secs(3), "it was blocked that long");
    assert!(!shop.site.log().contains("is stuck"));
    let _all = [ask(600_000), ask(600_000)];
    wait_gone(worker);
    assert_ne!(shop.get("/hello").unwrap().worker_pid(), worker);
    shop.stop();
}

#[test]
fn whoever_works_slowly_without_blocking_is_left_alone() {
    let shop = Site::new().with("server.heartbeat_timeout", "1s").start();
    let mut slow = shop.client();
    assert_eq!(slow.get("/slow?ms=3000").unwrap().status, 200);
    assert_eq!(shop.status().role("worker").iter().map(|it| it.restarts).sum::<u64>(), 0);
    shop.stop();
}

#[test]
fn a_stopped_task_worker_is_replaced_after_the_longest_task() {
    let shop = Site::new()
        .with("server.heartbeat_timeout", "1s")
        .with("server.task_timeout", "2s")
        .start();
    let victim = shop.status().pids("task_worker", 1)[0];
    send(victim, signal::STOP);
    wait_gone(victim);
    shop.until("another one serves", |status| {
        status.role("task_worker").iter().any(|it| it.state == "serving")
    });
    let order = shop.client().post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap();
    assert_eq!(order.status, 201, "{order:?}");
    shop.stop();
}
