//! kill -9 of any process, under load: it costs what that one process had in hand, and no more. What
//! becomes of a killed manager stands in `manager.rs`.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use shiftwork_sys::signal;

use crate::support::http::{Broken, Client, post};
use crate::support::load::{Counts, Load};
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site, Status};
use crate::support::wait::within;

fn is_whole(status: &Status) -> bool {
    let serving = |role| status.role(role).iter().filter(|it| it.state == "serving").count();
    serving("worker") == 2
        && serving("task_worker") == 1
        && status.role("template").iter().any(|it| it.state == "ready")
}

/// The port was open at every moment, and no more was lost than what was in hand.
#[track_caller]
fn assert_lost_at_most(counts: &Counts, most: u64) {
    assert!(!counts.reasons.iter().any(|it| it.contains("Refused")), "{counts:#?}");
    assert!(counts.failed <= most, "{counts:#?}");
}

#[test]
fn a_worker_costs_its_own_connections_only() {
    let shop = Shop::start();
    let mut idle: Vec<Client> = (0..12).map(|_| shop.client()).collect();
    let owners: Vec<i32> =
        idle.iter_mut().map(|it| it.get("/hello").unwrap().worker_pid()).collect();
    let load = Load::per_request(shop.web(), 4);
    load.wait_more(50);
    let victim = owners[0];
    send(victim, signal::KILL);
    wait_gone(victim);
    shop.until("it is replaced", is_whole);
    load.wait_more(50);
    assert_lost_at_most(&load.finish(), 4);
    for (client, owner) in idle.iter_mut().zip(owners) {
        let answer = client.get("/hello");
        assert_eq!(answer.is_ok(), owner != victim, "{answer:?}");
    }
    shop.stop();
}

#[test]
fn worker_task_worker_and_template_at_once() {
    let shop = Shop::start();
    let orders = Load::orders(shop.web(), 2, 0);
    let load = Load::per_request(shop.web(), 4);
    for _ in 0..3 {
        load.wait_more(50);
        let status = shop.until("all are there", is_whole);
        let generation = status.generation;
        let victims = [
            status.pids("template", generation)[0],
            status.pids("worker", generation)[0],
            status.pids("task_worker", generation)[0],
        ];
        victims.iter().for_each(|victim| send(*victim, signal::KILL));
        victims.into_iter().for_each(wait_gone);
    }
    shop.until("all are there again", is_whole);
    load.wait_more(50);
    orders.wait_more(5);
    assert_lost_at_most(&load.finish(), 3 * 4);
    assert_lost_at_most(&orders.finish(), 3 * 2);
    assert_eq!(shop.reload().generation, 2);
    shop.stop();
}

#[test]
fn an_idle_template_costs_nothing() {
    let shop = Shop::start();
    let loads = [Load::keep_alive(shop.web(), 4), Load::orders(shop.web(), 2, 0)];
    for _ in 0..3 {
        let template = shop.status().one("template");
        send(template, signal::KILL);
        wait_gone(template);
        shop.until("another one is there", |status| {
            is_whole(status) && status.one("template") != template
        });
        let victim = shop.status().pids("worker", 1)[0];
        send(victim, signal::TERM);
        wait_gone(victim);
    }
    for load in loads {
        load.wait_more(5);
        load.finish().assert_flawless();
    }
    shop.stop();
}

#[test]
fn a_template_in_mid_fork_costs_nothing() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    load.wait_more(20);
    let before = shop.status();
    let (template, worker) = (before.one("template"), before.pids("worker", 1)[0]);
    // It does not get to the fork that it is asked for.
    send(template, signal::STOP);
    send(worker, signal::TERM);
    shop.wait_log("retires: TERM was received");
    send(template, signal::KILL);
    wait_gone(template);
    wait_gone(worker);
    let after = shop.until("another template has forked", is_whole);
    assert!(!after.pids("worker", 1).contains(&worker));
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.reload();
    shop.stop();
}

#[test]
fn a_template_in_preload_fails_its_reload_and_costs_nothing() {
    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    shop.put("app.fault", "slow_preload=20000");
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&[]));
        let status = shop.until("it preloads", |status| {
            status.role("template").iter().any(|it| it.state == "loading")
        });
        send(status.pids("template", 2)[0], signal::KILL);
        reload.join().unwrap()
    });
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "aborted"), "{reloaded:?}");
    assert!(reloaded.reason.unwrap_or_default().contains("signal 9"));
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.put("app.fault", "none");
    shop.reload();
    shop.stop();
}

#[test]
fn a_template_that_comes_back_and_dies_in_preload_again_costs_nothing() {
    let shop = Site::new().with("app.fault", "slow_preload=600").start();
    let load = Load::keep_alive(shop.web(), 4);
    for _ in 0..3 {
        let template = shop
            .until("a template preloads or is ready", |status| {
                status
                    .role("template")
                    .iter()
                    .any(|it| ["loading", "ready"].contains(&it.state.as_str()))
            })
            .one("template");
        send(template, signal::KILL);
        wait_gone(template);
    }
    let worker = shop.status().pids("worker", 1)[0];
    send(worker, signal::TERM);
    wait_gone(worker);
    shop.until("all are there", is_whole);
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}

/// Kills the master of a shop with something in hand, and waits until its port is free: within a
/// second. Gives what is in hand.
fn kill_master(shop: &mut Shop, ms: u64) -> Client {
    let mut slow = shop.client();
    slow.send(format!("GET /slow?ms={ms} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes()).unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    shop.signal(signal::KILL);
    let web = shop.web();
    within(Duration::from_secs(1), "the port is free", || free(web).then_some(()));
    slow
}

fn free(address: SocketAddr) -> bool {
    matches!(Client::connect(address), Err(Broken::Refused)) && TcpListener::bind(address).is_ok()
}

#[test]
fn the_master_leaves_nothing_and_what_is_in_hand_finishes() {
    let mut shop = Site::new().with("server.max_wait_time", "5s").start();
    let load = Load::per_request(shop.web(), 2);
    let orders = Load::orders(shop.web(), 4, 0);
    load.wait_more(20);
    orders.wait_more(4);
    let begun = Instant::now();
    let mut slow = kill_master(&mut shop, 1_500);
    assert_eq!(slow.receive().unwrap().text(), "done");
    let counts = load.finish();
    let refused = counts.reasons.iter().filter(|it| it.contains("Refused")).count();
    assert_eq!(refused, counts.reasons.len(), "nothing but refused: {counts:#?}");
    let counts = orders.finish();
    assert!(counts.failed == 0, "orders in hand were carried out: {counts:#?}");
    within(Duration::from_secs(8), "all processes go", || {
        shop.site.processes().is_empty().then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    shop.wait();
    // The books balance, and the leftovers are taken over.
    std::fs::metadata(shop.site.path("run/shop.pid")).unwrap();
    shop.site.run(&["start", "-d"]).expect(0);
    shop.site.run(&["stop"]).expect(0);
}

#[test]
fn the_next_start_takes_over_while_the_old_workers_drain() {
    let mut shop = Shop::start();
    shop.put("listen.web.address", shop.web().to_string());
    let mut slow = kill_master(&mut shop, 3_000);
    let old = shop.site.processes();
    assert!(!old.is_empty());
    shop.wait();
    shop.site.run(&["start", "-d"]).expect(0);
    let mut client = shop.client();
    let new = client.get("/hello").unwrap().worker_pid();
    assert!(!old.contains(&new));
    let load = Load::per_request(shop.web(), 2);
    let response = slow.receive().unwrap();
    assert_eq!(response.text(), "done");
    assert!(old.contains(&response.worker_pid()));
    old.into_iter().for_each(wait_gone);
    load.wait_more(20);
    load.finish().assert_flawless();
    assert_eq!(client.get("/hello").unwrap().worker_pid(), new);
    shop.site.run(&["reload"]).expect(0);
    shop.site.run(&["stop"]).expect(0);
    shop.site.assert_nothing_left();
}

/// A worker whose thread is blocked cannot close what it listens at.
#[test]
fn the_port_is_free_although_a_worker_does_not_turn() {
    let mut site = Site::new().with("server.worker_num", 1).with("server.max_wait_time", "2s");
    site.put("server.guard_time", "1s");
    let mut shop = site.start();
    shop.put("listen.web.address", shop.web().to_string());
    shop.put("listen.till.address", shop.till().to_string());
    let _blocked = shop.block(60_000);
    let old = shop.site.processes();
    shop.signal(signal::KILL);
    let (web, till) = (shop.web(), shop.till());
    within(Duration::from_secs(1), "the ports are free", || {
        (free(web) && free(till)).then_some(())
    });
    shop.wait();
    shop.site.run(&["start", "-d"]).expect(0);
    assert_eq!(shop.get("/hello").unwrap().status, 200);
    old.into_iter().for_each(wait_gone);
    shop.site.run(&["stop"]).expect(0);
}

#[test]
fn master_and_manager_at_once_leave_nothing() {
    let mut shop = Shop::start();
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=700 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    // Paid, and shipped after master and manager are gone.
    let mut order = shop.client();
    order.send(&post("/orders", r#"{"item":"lamp","quantity":1}"#)).unwrap();
    shop.signal(signal::KILL);
    let web = shop.web();
    within(Duration::from_secs(1), "the port is free", || free(web).then_some(()));
    assert_eq!(order.receive().unwrap().status, 201);
    assert_eq!(slow.receive().unwrap().text(), "done");
    within(Duration::from_secs(10), "all processes go", || {
        shop.site.processes().is_empty().then_some(())
    });
    shop.wait();
}
