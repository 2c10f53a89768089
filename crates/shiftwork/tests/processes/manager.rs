//! The manager dies: another one takes up what lives, and clients notice nothing.

use std::thread;

use shiftwork_sys::signal;

use crate::support::http::post;
use crate::support::load::Load;
use crate::support::processes::{alive, below, send, title, wait_gone};
use crate::support::shop::{Reloaded, Shop, Site};
use crate::support::wait::{LONG, until, within};

/// Kills the manager, and waits until another one answers.
#[track_caller]
fn kill_manager(shop: &Shop) -> i32 {
    let before = shop.status().one("manager");
    send(before, signal::KILL);
    wait_gone(before);
    let after = shop.until("another manager is there", |status| status.one("manager") != before);
    after.one("manager")
}

#[test]
fn an_idle_one_is_followed_by_another_that_can_do_everything() {
    let shop = Shop::start();
    let before = shop.status();
    let mut idle = shop.client();
    idle.get("/hello").unwrap();
    let loads = [
        Load::keep_alive(shop.web(), 4),
        Load::pipelined(shop.web(), 2),
        Load::per_request(shop.web(), 2),
    ];
    loads[0].wait_more(50);
    kill_manager(&shop);
    let after = shop.status();
    assert_eq!((after.generation, after.state.as_str()), (1, "serving"));
    for role in ["template", "worker", "task_worker"] {
        assert_eq!(before.pids(role, 1), after.pids(role, 1), "{role}");
    }
    assert_eq!(after.role("manager")[0].restarts, 1);
    // It replaces who dies,
    let victim = after.pids("worker", 1)[0];
    send(victim, signal::TERM);
    wait_gone(victim);
    shop.until("the worker is replaced", |status| {
        let workers = status.role("worker");
        workers.len() == 2 && workers.iter().all(|it| it.state == "serving" && it.pid != victim)
    });
    // and reloads.
    for generation in 2..=4 {
        assert_eq!(shop.reload().generation, generation);
        kill_manager(&shop);
    }
    loads[0].wait_more(50);
    for load in loads {
        load.finish().assert_flawless();
    }
    assert_eq!(idle.get("/hello").unwrap().generation(), 4);
    shop.stop();
}

#[test]
fn whatever_dies_while_there_is_no_manager_is_replaced() {
    let shop = Shop::start();
    // The second death in a row: the third manager comes a moment later.
    kill_manager(&shop);
    let status = shop.status();
    let template = status.pids("template", 1)[0];
    let worker = status.pids("worker", 1)[0];
    let task_worker = status.pids("task_worker", 1)[0];
    for pid in [status.one("manager"), template, worker, task_worker] {
        send(pid, signal::KILL);
    }
    [template, worker, task_worker].into_iter().for_each(wait_gone);
    let whole = shop.until("all are there again", |status| {
        let serving = |role| status.role(role).iter().filter(|it| it.state == "serving").count();
        serving("worker") == 2
            && serving("task_worker") == 1
            && status.role("template").iter().all(|it| it.state == "ready")
    });
    assert_eq!(whole.generation, 1);
    let order = shop.client().post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap();
    assert_eq!(order.status, 201, "{order:?}");
    shop.reload();
    shop.stop();
}

/// Begins a reload that hangs until the manager is killed, and gives what it came to.
fn killed_in_a_reload(fault: &str, stands: impl Fn(&crate::support::shop::Status) -> bool) {
    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    let workers = shop.status().pids("worker", 1);
    shop.put("app.fault", fault);
    let reloaded: Reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let before = shop.until("the reload stands where it is to be killed", |status| {
            status.state == "reloading" && stands(status)
        });
        send(before.one("manager"), signal::KILL);
        reload.join().unwrap()
    });
    assert_eq!((reloaded.code, reloaded.generation), (1, 1), "{reloaded:?}");
    let reason = reloaded.reason.unwrap_or_default();
    assert!(reason.contains("manager has died"), "{reason}");
    let after = shop.until("the new generation is gone", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it <= 1))
    });
    assert_eq!(after.pids("worker", 1), workers);
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.put("app.fault", "none");
    shop.reload();
    shop.stop();
}

#[test]
fn while_a_template_loads() {
    killed_in_a_reload("slow_start=20000", |status| !status.pids("template", 2).is_empty());
}

#[test]
fn while_new_workers_start() {
    killed_in_a_reload("hang_in_worker_start", |status| !status.pids("worker", 2).is_empty());
}

#[test]
fn while_old_workers_drain() {
    let shop = Shop::start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    shop.reload();
    kill_manager(&shop);
    let response = slow.receive().unwrap();
    assert_eq!((response.text().as_str(), response.generation()), ("done", 1));
    assert_eq!(slow.get("/hello").unwrap().generation(), 2);
    shop.until("the old generation is gone", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it == 2))
    });
    shop.stop();
}

#[test]
fn while_the_server_stops() {
    let mut shop = Shop::start();
    let mut clients: Vec<_> = (0..10).map(|_| shop.client()).collect();
    for client in &mut clients {
        client.send(&post("/orders", r#"{"item":"lamp","quantity":1}"#)).unwrap();
    }
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("requests are in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight > 0)
    });
    shop.signal(signal::TERM);
    shop.wait_log("stopping");
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 201);
    }
    assert_eq!(slow.receive().unwrap().text(), "done");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}

#[test]
fn orders_are_shipped_whoever_manages() {
    let shop = Site::new().with("server.task_worker_num", 2).start();
    let load = Load::orders(shop.web(), 6, 0);
    for _ in 0..4 {
        load.wait_more(20);
        kill_manager(&shop);
    }
    load.wait_more(20);
    load.finish().assert_flawless();
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"], "{sums}");
    shop.stop();
}

#[test]
fn one_that_dies_again_and_again_costs_no_request() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    for _ in 0..4 {
        // Whether it has taken up yet or not.
        let manager = within(LONG, "a manager is forked", || {
            let pids = shop.site.processes();
            pids.into_iter().find(|pid| title(*pid).ends_with(": manager"))
        });
        send(manager, signal::KILL);
        wait_gone(manager);
        assert!(alive(shop.pid));
        load.wait_more(20);
    }
    shop.until("a manager answers", |status| status.state == "serving");
    load.finish().assert_flawless();
    shop.reload();
    shop.stop();
}

#[test]
fn when_the_master_dies_after_it_nothing_is_left_either() {
    let mut shop = Shop::start();
    kill_manager(&shop);
    let folder = shop.site.path("");
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=700 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| status.totals["in_flight"] == 1);
    shop.signal(signal::KILL);
    assert_eq!(slow.receive().unwrap().text(), "done", "work in hand finishes");
    until("all processes go", || below(&folder).into_iter().all(|pid| pid == shop.pid));
    shop.wait();
}
