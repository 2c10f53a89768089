//! The status: its fixed shape, its figures, and the tree for people.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use shiftwork_sys::signal;

use crate::support::binary;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Process, Shop, Site, Status};

/// How many requests or tasks were timed.
fn timed(process: &Process) -> u64 {
    process.latency.as_ref().map_or(0, |it| it.buckets.iter().sum())
}

#[test]
fn the_status_has_its_fixed_shape_and_true_figures() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 2);
    load.wait_more(100);
    let counts = load.finish();
    let mut client = shop.client();
    client.post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap();
    client.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    let sum = |status: &Status, of: fn(&Process) -> u64| -> u64 {
        status.role("worker").into_iter().map(of).sum()
    };
    let status = shop.until("the order is done and the slow request is in hand", |status| {
        sum(status, |worker| worker.requests) == counts.answered + 1
            && sum(status, |worker| worker.in_flight) == 1
            // Measured once a second at most; at first some have only just been executed.
            && status.processes.iter().all(|process| process.memory_bytes > 100_000)
    });

    assert_eq!((status.name.as_str(), status.generation), ("shop", 1));
    let protocols: Vec<_> =
        status.listeners.iter().map(|l| (l.name.as_str(), l.protocol.as_str())).collect();
    assert!(protocols.contains(&("web", "http")) && protocols.contains(&("till", "tcp")));
    for (role, number) in
        [("master", 1), ("manager", 1), ("template", 1), ("worker", 2), ("task_worker", 1)]
    {
        assert_eq!(status.role(role).len(), number, "{role}: {status:#?}");
    }
    for process in &status.processes {
        assert!(process.uptime_ms <= status.uptime_ms + 1000, "{process:?}");
        assert_eq!(process.restarts, 0, "{process:?}");
        assert!(!process.state.is_empty(), "{process:?}");
    }
    let requests = sum(&status, |worker| worker.requests);
    assert_eq!(status.role("task_worker")[0].tasks, 1);
    assert_eq!(sum(&status, timed), counts.answered + 1);
    let worker = status.role("worker").into_iter().find(|it| it.requests > 10).unwrap();
    let latency = worker.latency.clone().unwrap();
    assert!(latency.p50_us.is_some_and(|it| it > 0) && latency.p99_us >= latency.p50_us);
    // The task waits for 20 ms.
    let task = status.role("task_worker")[0].latency.clone().unwrap();
    assert!(task.p50_us.is_some_and(|it| it >= 25_000), "{task:?}");
    assert_eq!(status.role("master")[0].latency, None);
    assert!(status.totals["latency"]["p99_us"].is_u64(), "{:?}", status.totals);
    assert_eq!(status.totals["task_latency"]["p50_us"], serde_json::json!(task.p50_us));
    assert_eq!(sum(&status, |worker| worker.connections), 1);
    assert!(status.totals["requests"].as_u64().is_some_and(|n| n >= requests), "{status:#?}");

    client.receive().unwrap();
    // A reload retires processes, not their figures.
    shop.reload();
    let after = shop.until("the old generation is gone", Status::is_of_one_generation);
    assert!(after.totals["requests"].as_u64().is_some_and(|n| n >= requests), "{after:#?}");
    shop.stop();
}

#[test]
fn without_json_the_status_is_a_tree_to_read() {
    let shop = Shop::start();
    let tree = shop.site.run(&["status"]).expect(0).stdout;
    for word in ["master", "manager", "template", "worker 0", "worker 1", "task worker 2"] {
        assert!(tree.contains(word), "{word}: {tree}");
    }
    for process in shop.status().processes {
        assert!(tree.contains(&process.pid.to_string()), "{process:?}: {tree}");
    }
    assert!(tree.contains(&shop.web().to_string()), "{tree}");
    shop.stop();
}

#[test]
fn a_stuck_worker_shows_what_it_has_in_hand() {
    let shop = Site::new().with("server.worker_num", 1).start();
    let mut blocked = shop.block(3000);
    let status = shop.status();
    assert_eq!(status.role("worker")[0].in_flight, 1, "{status:#?}");
    assert_eq!(blocked.receive().unwrap().text(), "done");
    shop.stop();
}

/// As sha256sum(1) has it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn every_living_generation_has_its_release() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let before = now();
    let mut shop = Site::new().with("server.worker_num", 1).start();
    let (first, second) = (sha256(&binary::first()), sha256(&binary::second()));
    assert_ne!(first, second);
    let digested = |status: &Status| status.releases.iter().all(|it| it.digest.is_some());
    let status = shop.until("the digest is known", digested);
    let [release] = &status.releases[..] else { panic!("{status:#?}") };
    assert_eq!((release.generation, release.release.as_str()), (1, "1"));
    assert_eq!((release.state.as_str(), release.digest.as_ref()), ("serving", Some(&first)));
    assert_eq!(release.executable, shop.site.path("current/shop"));
    assert!((before..=now()).contains(&release.started_ms), "{release:?} from {before} on");

    // Another executable, while the first one still has something in hand.
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=3000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker")[0].in_flight == 1);
    shop.site.release("second", &binary::second());
    shop.put("app.release", "2");
    shop.reload();
    let status = shop.until("the digests are known", digested);
    let seen: Vec<_> = (status.releases.iter())
        .map(|it| (it.generation, it.release.as_str(), it.state.as_str(), it.digest.as_deref()))
        .collect();
    let expected = [(1, "1", "draining", Some(&*first)), (2, "2", "serving", Some(&*second))];
    assert_eq!(seen, expected);
    let tree = shop.site.run(&["status"]).expect(0).stdout;
    for word in [&first[..12], &second[..12], "current/shop", "release \"2\"  serving"] {
        assert!(tree.contains(word), "{word}: {tree}");
    }
    assert_eq!(slow.receive().unwrap().text(), "done");

    // Another manager knows all that again, when each was started included.
    let manager = status.one("manager");
    send(manager, signal::KILL);
    wait_gone(manager);
    let after = shop.until("it is known again", digested);
    let (before, after) = (&status.releases[1], after.releases.last().unwrap());
    assert_eq!((after.generation, after.digest.as_ref()), (2, Some(&second)));
    assert_eq!(after.started_ms, before.started_ms);
    shop.stop();
}

/// As `socat` and `nc -N` ask: they write, shut down their side, and read.
#[test]
fn whoever_asks_and_says_no_more_is_answered_and_whoever_hangs_up_is_heard() {
    let shop = Shop::start();
    let control = shop.site.path("run/shop.sock");
    let mut asker = UnixStream::connect(&control).unwrap();
    asker.write_all(b"{\"verb\":\"status\"}\n").unwrap();
    asker.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    asker.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"generation\":1"), "{answer}");

    let mut hasty = UnixStream::connect(&control).unwrap();
    hasty.write_all(b"{\"verb\":\"reload\"}\n").unwrap();
    drop(hasty);
    shop.until("what was asked is done", |status| status.generation == 2);
    let silent = UnixStream::connect(&control).unwrap();
    drop(silent);
    shop.stop();
}
