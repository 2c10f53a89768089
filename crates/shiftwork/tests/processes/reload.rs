//! Reloading: nothing fails, nothing closes, and what is new is really new.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::binary;
use crate::support::http::{Client, post};
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Reloaded, Shop, Site, Status};
use shiftwork_sys::signal;

#[test]
fn twenty_reloads_under_load_lose_and_close_nothing() {
    let shop = Shop::start();
    let loads = [
        Load::keep_alive(shop.web(), 8),
        Load::pipelined(shop.web(), 2),
        Load::per_request(shop.web(), 2),
    ];
    for generation in 2..=21 {
        loads[0].wait_more(50);
        let reloaded = shop.reload();
        assert_eq!(reloaded.generation, generation);
        // A connection opened now is answered by the new generation, whichever worker takes it.
        for _ in 0..4 {
            assert_eq!(shop.get("/hello").unwrap().generation(), generation);
        }
    }
    for load in loads {
        load.wait_more(20);
        let counts = load.finish();
        counts.assert_flawless();
        assert!(counts.generations.contains_key(&21), "{counts:#?}");
    }
    shop.stop();
}

#[test]
fn idle_connections_live_on_in_the_new_generation() {
    let shop = Shop::start();
    let mut idle: Vec<Client> = (0..100).map(|_| shop.client()).collect();
    for client in &mut idle[..80] {
        assert_eq!(client.get("/hello").unwrap().generation(), 1);
    }
    // The other twenty have sent nothing yet.
    for generation in 2..=4 {
        shop.reload();
        shop.until("the new generation has all connections", |status| {
            let workers = status.role("worker");
            workers.iter().all(|worker| worker.generation == Some(generation))
                && workers.iter().map(|worker| worker.connections).sum::<u64>() == 100
        });
    }
    for client in &mut idle {
        let response = client.get("/hello").unwrap();
        assert_eq!(response.generation(), 4);
        assert!(!response.says_close());
    }
    shop.stop();
}

#[test]
fn half_a_request_is_finished_by_whoever_has_it_then() {
    let shop = Shop::start();
    let order = post("/echo", r#"{"a":"body in two halves"}"#);
    let heads = 10;
    let mut cuts: Vec<usize> = (1..=heads).map(|n| n * 6).collect();
    // Within the body too: that one the old worker finishes.
    cuts.push(order.len() - 5);
    let mut clients: Vec<(Client, usize)> = cuts
        .into_iter()
        .map(|cut| {
            let mut client = shop.client();
            // A whole request first, for half of them: both states of a connection.
            if cut % 12 == 0 {
                client.get("/hello").unwrap();
            }
            client.send(&order[..cut]).unwrap();
            (client, cut)
        })
        .collect();
    shop.until("all connections are accepted", |status| {
        status.role("worker").iter().map(|worker| worker.connections).sum::<u64>() == 11
    });
    shop.reload();
    for (client, cut) in &mut clients {
        client.send(&order[*cut..]).unwrap();
        let response = client.receive().unwrap();
        assert_eq!(response.text(), r#"{"a":"body in two halves"}"#);
        assert!(!response.says_close(), "{response:?}");
        let next = client.get("/hello").unwrap();
        assert_eq!(next.generation(), 2);
    }
    shop.stop();
}

#[test]
fn a_request_in_hand_is_finished_and_its_connection_goes_on() {
    let shop = Shop::start();
    let mut client = shop.client();
    client.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    let begun = Instant::now();
    shop.reload();
    assert!(begun.elapsed() < Duration::from_millis(1400), "a reload waits for no drain");
    let slow = client.receive().unwrap();
    assert_eq!((slow.text().as_str(), slow.generation()), ("done", 1));
    assert!(!slow.says_close(), "{slow:?}");
    assert_eq!(client.get("/hello").unwrap().generation(), 2);
    shop.stop();
}

#[test]
fn reloads_in_a_row_cut_no_request_of_a_generation_that_has_to_make_room() {
    let shop = Shop::start();
    let mut warned = 0;
    let mut slow = Vec::new();
    // More generations than may live, each with something in hand.
    for generation in 2..=7 {
        let mut client = shop.client();
        client.send(b"GET /slow?ms=2000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
        shop.until("the request is in hand", |status| {
            status
                .pids("worker", generation - 1)
                .iter()
                .any(|pid| status.processes.iter().any(|it| it.pid == *pid && it.in_flight > 0))
        });
        slow.push(client);
        let reloaded = shop.reload();
        assert_eq!(reloaded.generation, generation);
        warned += reloaded.warnings.len();
    }
    for mut client in slow {
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert!(warned > 0, "generations had to make room");
    assert!(!shop.site.log().contains("cut at the deadline"));
    shop.stop();
}

#[test]
fn who_comes_after_the_reload_is_served_by_the_new_generation() {
    let shop = Site::new().with("server.worker_num", 1).with("server.worker_threads", 2).start();
    for _ in 0..5 {
        // The old worker has not heard that it is to drain, and is the first that can accept.
        let old = shop.status().role("worker")[0].pid;
        send(old, signal::STOP);
        let generation = shop.reload().generation;
        let new = shop.status().pids("worker", generation)[0];
        send(new, signal::STOP);
        let mut clients: Vec<_> = (0..8).map(|_| shop.client()).collect();
        for client in &mut clients {
            client.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
        }
        send(old, signal::CONT);
        // Time to do it wrong.
        thread::sleep(Duration::from_millis(50));
        send(new, signal::CONT);
        for mut client in clients {
            assert_eq!(client.receive().unwrap().generation(), generation);
        }
    }
    shop.stop();
}

#[test]
fn a_request_beyond_the_deadline_is_cut_and_named() {
    let shop = Site::new().with("server.max_wait_time", "500ms").start();
    let old = shop.status().pids("worker", 1);
    let mut client = shop.client();
    client.send(b"GET /slow?ms=20000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    shop.reload();
    client.receive().expect_err("an answer to what was cut");
    old.into_iter().for_each(wait_gone);
    shop.wait_log("/slow");
    shop.stop();
}

#[test]
fn a_blocked_worker_is_ended_at_the_deadline() {
    let shop = Site::new()
        .with("server.worker_num", 1)
        .with("server.max_wait_time", "300ms")
        .with("server.guard_time", "300ms")
        .start();
    let old = shop.status().pids("worker", 1);
    let mut blocked = shop.block(60_000);
    shop.reload();
    old.into_iter().for_each(wait_gone);
    blocked.receive().expect_err("an answer from a worker that was killed");
    for _ in 0..10 {
        assert_eq!(shop.get("/hello").unwrap().generation(), 2);
    }
    shop.stop();
}

#[test]
fn new_code_is_really_new_and_outlives_the_disk() {
    let mut shop = Shop::start();
    let first = shop.get("/hello").unwrap().header("x-build").unwrap().to_owned();
    assert_ne!(first, binary::SECOND_BUILD);
    let load = Load::keep_alive(shop.web(), 4);
    shop.site.release("second", &binary::second());
    // Until the reload, a respawn is the old release, whatever lies on the disk by now.
    let before = shop.status();
    send(before.one("template"), signal::KILL);
    wait_gone(before.one("template"));
    for victim in before.pids("worker", 1) {
        send(victim, signal::TERM);
        wait_gone(victim);
    }
    assert_eq!(shop.get("/hello").unwrap().header("x-build"), Some(first.as_str()));

    shop.put("app.release", "two");
    shop.reload();
    let response = shop.get("/hello").unwrap();
    assert_eq!(response.header("x-build"), Some(binary::SECOND_BUILD));
    assert_eq!(response.header("x-release"), Some("two"));

    // The files go; a respawn still is what was committed.
    std::fs::remove_dir_all(shop.site.path("releases")).unwrap();
    shop.site.write_settings("broken [");
    let old = shop.get("/hello").unwrap().worker_pid();
    send(old, signal::TERM);
    wait_gone(old);
    for _ in 0..4 {
        let response = shop.get("/hello").unwrap();
        assert_ne!(response.worker_pid(), old);
        assert_eq!(response.header("x-build"), Some(binary::SECOND_BUILD));
        assert_eq!(response.header("x-release"), Some("two"));
    }
    load.finish().assert_flawless();
    shop.site.release("first", &binary::first());
    shop.put("app.release", "three");
    shop.reload();
    assert_eq!(shop.get("/hello").unwrap().header("x-build"), Some(first.as_str()));
    shop.stop();
}

#[test]
fn more_and_fewer_workers_under_load() {
    let mut shop = Shop::start();
    let loads = [Load::keep_alive(shop.web(), 6), Load::per_request(shop.web(), 2)];
    for (generation, workers) in (2..).zip([4_u32, 1, 3, 2]) {
        shop.put("server.worker_num", workers);
        shop.reload();
        let status = shop.until("the old generation is gone", Status::is_of_one_generation);
        let mut ids: Vec<_> = status.role("worker").iter().filter_map(|w| w.worker_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..workers).collect::<Vec<_>>());
        assert_eq!(status.role("task_worker")[0].worker_id, Some(workers));
        // Whatever slot a connection falls into, somebody accepts it.
        for _ in 0..30 {
            assert_eq!(shop.get("/hello").unwrap().generation(), generation);
        }
    }
    for load in loads {
        load.wait_more(20);
        load.finish().assert_flawless();
    }
    shop.stop();
}

#[test]
fn a_listener_moves_and_comes_back() {
    let mut shop = Shop::start();
    let (web, till) = (shop.web(), shop.till());
    let mut kept = shop.client();
    kept.get("/hello").unwrap();

    let socket = shop.site.path("till.sock");
    shop.put("listen.till.address", format!("unix:{}", socket.display()));
    shop.put("listen.web.address", "127.0.0.1:0");
    shop.reload();
    let status = shop.status();
    assert_eq!(status.address("web"), web, "an unchanged address keeps its socket");
    assert!(socket.exists());
    Client::connect(till).err().expect("the old till is closed");
    assert_eq!(kept.get("/hello").unwrap().generation(), 2);

    shop.put("listen.till.address", till.to_string());
    shop.reload();
    assert_eq!(shop.status().address("till"), till);
    Client::connect(till).expect("the till is back");
    shop.stop();
}

#[test]
fn an_address_that_is_taken_fails_the_reload() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().to_string();
    let mut shop = Shop::start();
    shop.put("listen.till.address", taken.as_str());
    let reloaded = shop.reload_fails();
    let told = format!("{reloaded:?}");
    assert!(told.contains(&taken) && told.contains("in use"), "{told}");
    shop.stop();
}

#[test]
fn reloads_asked_for_during_a_reload_get_the_true_outcome() {
    let mut shop = Shop::start();
    shop.put("app.fault", "slow_start=700");
    let shop = &shop;
    let outcomes: Vec<Reloaded> = thread::scope(|scope| {
        let first = scope.spawn(|| shop.reload());
        shop.until("the first is under way", |status| {
            status.processes.iter().any(|process| process.generation == Some(2))
        });
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| shop.reload())).collect();
        std::iter::once(first).chain(others).map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(outcomes[0].generation, 2);
    // One run covers all who waited.
    for outcome in &outcomes[1..] {
        assert_eq!(outcome.generation, 3, "{outcome:?}");
    }
    assert_eq!(shop.status().generation, 3);
}

#[test]
fn a_failing_reload_during_a_reload_fails_alone() {
    let mut shop = Shop::start();
    shop.put("app.fault", "slow_start=700");
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| shop.reload());
        shop.until("the first is under way", |status| {
            status.processes.iter().any(|process| process.generation == Some(2))
        });
        let second = scope.spawn(|| shop.reload_with(&["--set", "app.fault=exit_at_start"]));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!(first.generation, 2);
    assert_eq!(second.code, 1, "{second:?}");
    assert_ne!(second.outcome, "committed");
    assert_eq!(shop.get("/hello").unwrap().generation(), 2);
    shop.put("app.fault", "none");
    shop.reload();
    shop.stop();
}

#[test]
fn a_reload_in_parts_keeps_its_workers_serving() {
    let shop = Site::new().with("server.worker_num", 3).with("server.reload_parallel", 1).start();
    let load = Load::keep_alive(shop.web(), 6);
    for _ in 0..3 {
        load.wait_more(50);
        shop.reload();
    }
    load.wait_more(50);
    load.finish().assert_flawless();
    shop.stop();
}
