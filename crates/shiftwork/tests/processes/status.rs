//! The status: its fixed shape, its figures, and the tree for people.

use crate::support::load::Load;
use crate::support::shop::{Process, Shop, Site, Status};

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
        assert!(process.memory_bytes > 100_000, "{process:?}");
        assert!(process.uptime_ms <= status.uptime_ms + 1000, "{process:?}");
        assert_eq!(process.restarts, 0, "{process:?}");
        assert!(!process.state.is_empty(), "{process:?}");
    }
    let requests = sum(&status, |worker| worker.requests);
    assert_eq!(status.role("task_worker")[0].tasks, 1);
    assert_eq!(sum(&status, |worker| worker.connections), 1);
    assert!(status.totals["requests"].as_u64().is_some_and(|n| n >= requests), "{status:#?}");

    client.receive().unwrap();
    // A reload retires processes, not their figures.
    shop.reload();
    let after =
        shop.until("the old generation is gone", |status| status.role("template").len() == 1);
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
