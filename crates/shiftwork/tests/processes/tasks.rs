//! Tasks: orders that are paid in a worker and shipped in a task worker.

use shiftwork_sys::signal;

use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;

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
fn without_task_workers_what_was_begun_is_finished_and_later_tasks_are_refused() {
    let mut shop = Shop::start();
    for typed in [&["--task-workers", "0"][..], &["--task-workers=-1"]] {
        let ended = shop.site.run(&[&["scale"], typed].concat());
        assert!([1, 2].contains(&ended.code), "{ended:?}");
        let advice = "set server.task_worker_num to 0 and reload";
        assert!(ended.stderr.replace('\n', " ").contains(advice), "{ended:?}");
    }
    shop.put("server.task_worker_num", 0);
    // Not for the task workers alone: those who send would not know.
    let ended = shop.site.run(&["reload", "--tasks"]).expect(1);
    assert!(ended.stderr.contains("reload the workers as well"), "{ended:?}");

    let mut orders: Vec<_> = (0..20).map(|_| shop.client()).collect();
    let order = r#"{"item":"lamp","quantity":1}"#;
    let head = format!("content-type: application/json\r\ncontent-length: {}", order.len());
    let request = format!("POST /orders HTTP/1.1\r\nhost: shop\r\n{head}\r\n\r\n{order}");
    for client in &mut orders {
        client.send(request.as_bytes()).unwrap();
    }
    until("all are paid", || shop.get("/orders").unwrap().json()["paid"] == 20);
    shop.reload();
    for client in &mut orders {
        assert_eq!(client.receive().unwrap().status, 201);
    }
    assert_balance(&shop);
    let refused = shop.client().post("/orders", order).unwrap();
    assert!(refused.status >= 500 && refused.text().contains("task_worker_num"), "{refused:?}");
    shop.until("the old ones are gone", |status| status.role("task_worker").is_empty());
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
    until("the books balance", || {
        let sums = shop.get("/orders").unwrap().json();
        sums["paid"] == sums["shipped"]
    });
    shop.stop();
}
