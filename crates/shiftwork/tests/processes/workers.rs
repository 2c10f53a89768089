//! Single workers: retired, recycled, killed.

use std::collections::BTreeSet;

use shiftwork_sys::signal;

use crate::support::exposition::scrape;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;

#[test]
fn term_retires_a_worker_and_loses_nothing() {
    let shop = Shop::start();
    let mut idle: Vec<_> = (0..20).map(|_| shop.client()).collect();
    for client in &mut idle {
        client.get("/hello").unwrap();
    }
    let loads = [Load::keep_alive(shop.web(), 6), Load::per_request(shop.web(), 2)];
    for _ in 0..4 {
        let victims = shop.status().pids("worker", 1);
        loads[0].wait_more(50);
        for victim in victims {
            send(victim, signal::TERM);
            wait_gone(victim);
        }
    }
    shop.until("two workers serve", |status| {
        status.role("worker").iter().filter(|worker| worker.state == "serving").count() == 2
    });
    for load in loads {
        load.wait_more(20);
        load.finish().assert_flawless();
    }
    for client in &mut idle {
        assert_eq!(client.get("/hello").unwrap().generation(), 1);
    }
    shop.stop();
}

#[test]
fn term_to_all_workers_at_once_loses_nothing() {
    let shop = Shop::start();
    let loads = [Load::keep_alive(shop.web(), 6), Load::per_request(shop.web(), 2)];
    for _ in 0..4 {
        loads[0].wait_more(50);
        let victims = shop.status().pids("worker", 1);
        victims.iter().for_each(|victim| send(*victim, signal::TERM));
        victims.into_iter().for_each(wait_gone);
    }
    for load in loads {
        load.wait_more(20);
        load.finish().assert_flawless();
    }
    shop.stop();
}

#[test]
fn max_request_recycles_without_a_loss() {
    let shop =
        Site::new().with("server.max_request", 200).with("server.max_request_grace", 50).start();
    let load = Load::keep_alive(shop.web(), 6);
    let mut pids: BTreeSet<i32> = BTreeSet::new();
    until("eight workers have served", || {
        load.wait_more(100);
        pids.insert(shop.get("/hello").unwrap().worker_pid());
        pids.len() >= 8
    });
    load.finish().assert_flawless();
    assert_eq!(shop.status().generation, 1);
    let recycled = [("role", "worker"), ("cause", "max_request")];
    assert!(scrape(&shop).value("shiftwork_respawns_total", &recycled) >= 6.0);
    shop.stop();
}

#[test]
fn a_killed_worker_is_replaced_and_the_port_never_refuses() {
    let shop = Shop::start();
    let load = Load::per_request(shop.web(), 2);
    for _ in 0..5 {
        load.wait_more(50);
        let before = shop.status().pids("worker", 1);
        send(before[0], signal::KILL);
        wait_gone(before[0]);
        shop.until("its successor serves", |status| {
            status.role("worker").iter().filter(|w| w.state == "serving").count() == 2
                && !status.pids("worker", 1).contains(&before[0])
        });
    }
    let counts = load.finish();
    assert!(!counts.reasons.iter().any(|reason| reason.contains("Refused")), "{counts:#?}");
    // At most what the killed one had in hand: each client one request a time.
    assert!(counts.failed <= 10, "{counts:#?}");
    shop.stop();
}

#[test]
fn a_crash_costs_its_own_request_only() {
    let shop = Shop::start();
    let mut other = shop.client();
    let survivor = other.get("/hello").unwrap().worker_pid();
    let mut crashes = 0;
    while crashes < 3 {
        let mut client = shop.client();
        if client.get("/hello").unwrap().worker_pid() == survivor {
            continue;
        }
        client.get("/crash").expect_err("an answer from a crashed worker");
        crashes += 1;
        shop.until("its successor serves", |status| {
            status.role("worker").iter().filter(|w| w.state == "serving").count() == 2
        });
    }
    assert_eq!(other.get("/hello").unwrap().worker_pid(), survivor);
    shop.stop();
}

#[test]
fn a_killed_template_costs_no_worker() {
    let shop = Shop::start();
    let before = shop.status();
    let template = before.one("template");
    send(template, signal::KILL);
    wait_gone(template);
    assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    let victim = before.pids("worker", 1)[0];
    send(victim, signal::KILL);
    let after = shop.until("two workers serve", |status| {
        status.role("worker").iter().filter(|w| w.state == "serving").count() == 2
            && status.role("worker").iter().all(|w| w.pid != victim)
    });
    assert_eq!(after.generation, 1);
    shop.reload();
    shop.stop();
}

#[test]
fn templates_ignore_what_is_not_for_them() {
    let shop = Shop::start();
    let template = shop.status().one("template");
    for signo in [signal::TERM, signal::INT, signal::HUP] {
        send(template, signo);
    }
    shop.reload();
    assert_eq!(shop.get("/hello").unwrap().generation(), 2);
    shop.stop();
}
