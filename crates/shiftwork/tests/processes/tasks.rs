//! Tasks: orders that are paid in a worker and shipped in a task worker.

use shiftwork_sys::signal;

use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};

#[track_caller]
fn assert_balance(shop: &Shop) -> u64 {
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"], "{sums}");
    sums["paid"].as_u64().unwrap()
}

#[test]
fn orders_are_shipped_over_reloads() {
    let shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 8, 0);
    for _ in 0..5 {
        orders.wait_more(20);
        shop.reload();
    }
    let counts = orders.finish();
    counts.assert_flawless();
    assert_eq!(assert_balance(&shop), counts.answered);
    shop.stop();
}

#[test]
fn a_killed_task_worker_loses_no_order() {
    let shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 8, 0);
    for _ in 0..4 {
        orders.wait_more(10);
        let victim = shop.status().pids("task_worker", 1)[0];
        send(victim, signal::KILL);
        wait_gone(victim);
    }
    orders.wait_more(10);
    let counts = orders.finish();
    counts.assert_flawless();
    assert_eq!(assert_balance(&shop), counts.answered);
    shop.stop();
}

#[test]
fn term_to_task_workers_loses_no_order() {
    let shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 8, 0);
    for _ in 0..3 {
        orders.wait_more(10);
        for victim in shop.status().pids("task_worker", 1) {
            send(victim, signal::TERM);
            wait_gone(victim);
        }
    }
    orders.wait_more(10);
    let counts = orders.finish();
    counts.assert_flawless();
    assert_eq!(assert_balance(&shop), counts.answered);
    shop.stop();
}

#[test]
fn task_max_request_recycles_task_workers() {
    let shop = Site::new()
        .with("server.task_max_request", 5)
        .with("server.task_max_request_grace", 0)
        .start();
    let first = shop.status().role("task_worker")[0].pid;
    let orders = Load::orders(shop.web(), 4, 0);
    orders.wait_more(30);
    wait_gone(first);
    let counts = orders.finish();
    counts.assert_flawless();
    assert_eq!(assert_balance(&shop), counts.answered);
    shop.stop();
}

#[test]
fn clients_that_hang_up_leave_whole_orders() {
    let shop = Shop::start();
    let orders = Load::orders(shop.web(), 2, 20);
    orders.wait_more(20);
    shop.reload();
    orders.wait_more(20);
    orders.finish();
    // What the last who hung up had begun is still being finished.
    crate::support::wait::until("the books balance", || {
        let sums = shop.get("/orders").unwrap().json();
        sums["paid"] == sums["shipped"]
    });
    shop.stop();
}
