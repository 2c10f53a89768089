//! Stopping: what is in hand is finished, and nothing is left.

use std::time::{Duration, Instant};

use shiftwork_sys::signal;

use crate::support::http::{Broken, Client, post};
use crate::support::load::Load;
use crate::support::processes::{alive, below, send};
use crate::support::shop::{Shop, Site, Status};
use crate::support::wait::{until, within};

fn in_hand(status: &Status) -> u64 {
    status.role("worker").iter().map(|worker| worker.in_flight).sum()
}

/// Starts the same site again and compares what was paid with what was shipped.
#[track_caller]
fn assert_balance(shop: &mut Shop) -> u64 {
    shop.site.run(&["start", "-d"]).expect(0);
    let status: Status =
        serde_json::from_str(&shop.site.run(&["status", "--json"]).expect(0).stdout).unwrap();
    let sums = Client::connect(status.address("web")).unwrap().get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"], "{sums}");
    shop.site.run(&["stop"]).expect(0);
    shop.site.assert_nothing_left();
    sums["paid"].as_u64().unwrap()
}

#[test]
fn term_finishes_what_is_in_hand() {
    let mut shop = Shop::start();
    let mut clients: Vec<Client> = (0..20).map(|_| shop.client()).collect();
    for client in &mut clients {
        client.send(&post("/orders", r#"{"item":"lamp","quantity":1}"#)).unwrap();
    }
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=1000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    let mut idle = shop.client();
    idle.get("/hello").unwrap();
    shop.until("requests are in hand", |status| in_hand(status) > 0);
    shop.signal(signal::TERM);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().status, 201);
    }
    assert_eq!(slow.receive().unwrap().text(), "done");
    idle.wait_closed().expect("idle connections are closed");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
    assert_eq!(assert_balance(&mut shop), 20);
}

#[test]
fn term_answers_what_waits_in_the_accept_queue() {
    // One worker that blocks: the others' connections are accepted by the kernel alone.
    let mut shop = Site::new().with("server.worker_num", 1).start();
    let mut blocked = shop.block(1500);
    let mut waiting: Vec<Client> = (0..30).map(|_| shop.client()).collect();
    for client in &mut waiting {
        client.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    }
    shop.signal(signal::TERM);
    assert_eq!(blocked.receive().unwrap().text(), "done");
    for client in &mut waiting {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}

#[test]
fn term_under_load_balances_the_books() {
    let mut shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 12, 0);
    orders.wait_more(40);
    shop.signal(signal::TERM);
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
    let counts = orders.finish();
    // After the last answer a client meets a closed connection; within an answer, none.
    for reason in &counts.reasons {
        assert!(
            [Broken::Closed, Broken::Reset].iter().any(|end| *reason == end.to_string()),
            "{counts:#?}"
        );
    }
    let paid = assert_balance(&mut shop);
    assert!(paid >= counts.answered, "{paid} {counts:#?}");
}

#[test]
fn clients_that_hang_up_and_a_term_balance_the_books() {
    let mut shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 2, 50);
    orders.wait_more(1);
    shop.reload();
    orders.wait_more(1);
    shop.signal(signal::TERM);
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
    orders.finish();
    assert!(assert_balance(&mut shop) >= 50);
}

#[test]
fn term_to_every_process_at_once_is_one_stop() {
    let mut shop = Site::new().with("server.task_worker_num", 2).start();
    let orders = Load::orders(shop.web(), 8, 0);
    orders.wait_more(20);
    for process in &shop.status().processes {
        send(process.pid, signal::TERM);
    }
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
    orders.finish();
    assert_balance(&mut shop);
}

#[test]
fn a_second_term_a_second_later_stops_at_once() {
    let mut shop = Shop::start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=25000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| in_hand(status) == 1);
    let begun = Instant::now();
    shop.signal(signal::TERM);
    // A TERM of the same second is the same wish: once more, from whoever signals everything.
    shop.signal(signal::TERM);
    within(Duration::from_secs(5), "a second has passed", || {
        (begun.elapsed() > Duration::from_millis(1300)).then_some(())
    });
    assert!(alive(shop.pid), "the first TERM is patient");
    shop.signal(signal::TERM);
    shop.wait();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    slow.receive().expect_err("an answer to what was cut");
    shop.site.assert_nothing_left();
}

#[test]
fn quit_stops_at_once_and_says_what_was_cut() {
    let mut shop = Shop::start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=25000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| in_hand(status) == 1);
    let begun = Instant::now();
    shop.signal(signal::QUIT);
    shop.wait();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    slow.receive().expect_err("an answer to what was cut");
    shop.site.assert_nothing_left();
    assert!(shop.site.log().contains("/slow"), "what was cut is not named");
}

#[test]
fn a_stop_beyond_the_deadline_cuts_and_names() {
    let mut shop = Site::new().with("server.max_wait_time", "500ms").start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=25000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| in_hand(status) == 1);
    shop.signal(signal::INT);
    shop.wait();
    slow.receive().expect_err("an answer to what was cut");
    shop.site.assert_nothing_left();
    assert!(shop.site.log().contains("/slow"), "what was cut is not named");
}

#[test]
fn stop_returns_when_the_pid_is_gone() {
    let shop = Site::new().daemon();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=800 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| in_hand(status) == 1);
    let begun = Instant::now();
    shop.site.run(&["stop"]).expect(0);
    assert!(!alive(shop.pid), "the master is there");
    assert!(begun.elapsed() > Duration::from_millis(300), "it did not wait");
    assert_eq!(slow.receive().unwrap().text(), "done");
    shop.site.assert_nothing_left();
    shop.site.run(&["stop"]).expect(3);
}

#[test]
fn a_stop_during_a_reload_stops() {
    let mut shop = Shop::start();
    shop.put("app.fault", "slow_start=20000");
    let mut reload = shop.site.command(&["reload"]);
    let mut reload = reload
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    shop.until("the reload is under way", |status| {
        status.processes.iter().any(|process| process.generation == Some(2))
    });
    let begun = Instant::now();
    shop.signal(signal::TERM);
    assert_eq!(shop.wait(), 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_ne!(reload.wait().unwrap().code(), Some(0), "that reload was not committed");
    shop.site.assert_nothing_left();
}

#[test]
fn when_the_master_is_killed_nothing_is_left() {
    let mut shop = Shop::start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=700 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| in_hand(status) == 1);
    let (web, folder) = (shop.web(), shop.site.path(""));
    shop.signal(signal::KILL);
    within(Duration::from_millis(1000), "the port is free", || {
        matches!(Client::connect(web), Err(Broken::Refused)).then_some(())
    });
    assert_eq!(slow.receive().unwrap().text(), "done", "work in hand finishes");
    until("all processes go", || below(folder.as_path()).into_iter().all(|pid| pid == shop.pid));
    shop.wait();
}
