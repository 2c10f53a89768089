//! Signals to the master and the manager.

use std::fs;

use shiftwork_sys::signal;

use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};

#[test]
fn usr1_reloads() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    for generation in 2..=3 {
        load.wait_more(20);
        shop.signal(signal::USR1);
        shop.until("the new generation serves", |status| status.generation == generation);
    }
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn hup_reloads_a_daemon() {
    let mut shop = Site::new().daemon();
    shop.put("app.release", "after-hup");
    shop.signal(signal::HUP);
    shop.until("the new generation serves", |status| status.generation == 2);
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("after-hup"));
    shop.stop();
}

#[test]
fn many_usr1_in_a_row_are_few_reloads_and_no_loss() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    load.wait_more(20);
    for _ in 0..50 {
        shop.signal(signal::USR1);
    }
    shop.until("a new generation serves", |status| status.generation >= 2);
    let outcome = shop.reload();
    assert!(outcome.generation < 50, "{outcome:?}");
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn usr2_replaces_task_workers_alone() {
    let shop = Shop::start();
    let orders = Load::orders(shop.web(), 8, 0);
    orders.wait_more(10);
    let before = shop.status();
    let workers = before.pids("worker", 1);
    let old = before.role("task_worker")[0].pid;
    shop.signal(signal::USR2);
    wait_gone(old);
    orders.wait_more(20);
    let after = shop.until("the new task worker serves", |status| {
        status.role("task_worker").iter().any(|task_worker| task_worker.pid != old)
    });
    let mut same: Vec<i32> = after.role("worker").iter().map(|worker| worker.pid).collect();
    let mut workers = workers;
    workers.sort_unstable();
    same.sort_unstable();
    assert_eq!(workers, same, "USR2 leaves workers alone");
    orders.wait_more(20);
    orders.finish().assert_flawless();
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"]);
    shop.reload();
    shop.stop();
}

#[test]
fn rtmin_reopens_the_log() {
    let shop = Site::new().daemon();
    let log = shop.site.path("run/shop.log");
    let old = shop.site.path("run/shop.log.1");
    fs::rename(&log, &old).unwrap();
    shop.signal(signal::rtmin());
    crate::support::wait::until("the new log is there", || log.exists());
    let everywhere = || {
        shop.status().processes.iter().all(|process| {
            fs::read_link(format!("/proc/{}/fd/2", process.pid)).is_ok_and(|link| link == log)
        })
    };
    crate::support::wait::until("every process has the new log", everywhere);
    let length = fs::metadata(&old).unwrap().len();
    shop.reload();
    assert_eq!(fs::metadata(&old).unwrap().len(), length, "the old log still grows");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    shop.stop();
}

#[test]
fn a_signal_to_the_manager_is_a_wish_to_the_master() {
    let shop = Site::new().daemon();
    let log = shop.site.path("run/shop.log");
    let manager = shop.status().one("manager");
    let load = Load::keep_alive(shop.web(), 2);
    load.wait_more(20);
    send(manager, signal::USR1);
    shop.until("the new generation serves", |status| status.generation == 2);
    send(manager, signal::TTIN);
    shop.until("a third worker serves", |status| status.pids("worker", 2).len() == 3);
    send(manager, signal::TTOU);
    shop.until("two workers are left", |status| status.pids("worker", 2).len() == 2);
    fs::remove_file(&log).unwrap();
    send(manager, signal::rtmin());
    crate::support::wait::until("the new log is there", || log.exists());
    load.wait_more(20);
    load.finish().assert_flawless();
    assert_eq!(shop.status().one("manager"), manager);
    shop.stop();
}

#[test]
fn a_signal_to_any_other_process_harms_nobody() {
    let shop = Shop::start();
    let before = shop.status();
    let load = Load::orders(shop.web(), 2, 0);
    load.wait_more(20);
    for role in ["template", "worker", "task_worker"] {
        for process in before.role(role) {
            let meant = [signal::HUP, signal::USR1, signal::USR2, signal::INT, signal::QUIT];
            for signo in meant.into_iter().chain([signal::TTIN, signal::TTOU, signal::rtmin()]) {
                send(process.pid, signo);
            }
        }
    }
    load.wait_more(50);
    load.finish().assert_flawless();
    let after = shop.status();
    assert_eq!(after.one("manager"), before.one("manager"));
    for role in ["template", "worker", "task_worker"] {
        assert_eq!(after.pids(role, 1), before.pids(role, 1), "{role}");
    }
    shop.reload();
    shop.stop();
}
