//! What a command shows while it waits: lines in a pipe, events in JSON, a picture on a terminal.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::command::run;
use crate::support::not_tried;
use crate::support::shop::{Shop, Site};

#[test]
fn in_a_pipe_there_is_a_line_for_each_change() {
    let shop = Shop::start();
    let said = shop.site.run(&["reload"]).expect(0);
    assert!(said.stdout.starts_with("generation 2 is committed after "), "{said:?}");
    assert_eq!(said.stderr.lines().next(), Some("starting generation 2"), "{said:?}");
    for slot in ["worker 0", "worker 1", "task worker 2"] {
        for state in ["starting", "ready", "serving"] {
            assert!(said.stderr.contains(&format!("{slot} {state}")), "{slot} {state}: {said:?}");
        }
    }
    assert!(said.stderr.contains("old worker 1 draining"), "{said:?}");
    assert!(!said.stderr.contains('\x1b'), "{said:?}");

    let said = shop.site.run(&["scale", "3"]).expect(0);
    assert!(said.stderr.contains("worker 2 serving"), "{said:?}");
    shop.stop();
}

#[test]
fn in_a_pipe_nothing_is_said_twice() {
    let mut shop = Shop::start();
    // Looked at several times a second, and nobody comes.
    shop.put("server.canary_time", "1s");
    shop.put("server.canary_inconclusive", "commit");
    let said = shop.site.run(&["reload"]).expect(0);
    let waits = said.stderr.lines().filter(|it| *it == "the canary of generation 2 serves, 0/20");
    assert_eq!(waits.count(), 1, "{said:?}");
    shop.stop();
}

#[test]
fn with_json_events_go_to_stderr_and_the_outcome_alone_to_stdout() {
    let mut shop = Site::new().with("server.reload_parallel", 1).start();
    let said = shop.site.run(&["reload", "--json"]).expect(0);
    assert_eq!(said.stdout.lines().count(), 1, "{said:?}");
    let mut served = BTreeSet::new();
    let mut drained = BTreeSet::new();
    for line in said.stderr.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(event["event"], "progress", "{line}");
        for slot in event["slots"].as_array().into_iter().flatten() {
            let id = slot["worker_id"].as_u64().unwrap();
            match (slot["generation"].as_u64(), slot["state"].as_str().unwrap()) {
                (Some(2), "serving") => drop(served.insert(id)),
                (Some(1), "draining" | "gone") => drop(drained.insert(id)),
                (Some(1 | 2), "starting" | "ready") => {}
                other => panic!("{other:?}: {line}"),
            }
        }
    }
    assert_eq!(served, BTreeSet::from([0, 1, 2]));
    assert_eq!(drained, BTreeSet::from([0, 1]), "{said:?}");

    shop.put("app.fault", "panic_in_preload");
    let said = shop.site.run(&["reload", "--json"]).expect(1);
    let outcome: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(outcome["outcome"], "aborted");
    shop.stop();
}

#[test]
fn a_long_drain_says_what_it_waits_for() {
    let shop = Shop::start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=2500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker").iter().any(|it| it.in_flight == 1));
    let said = shop.site.run(&["reload", "--wait"]).expect(0);
    for words in [
        "generation 2 is committed; the old one drains\n",
        "waiting for 1 old process with 1 request in hand on 1 connection\n",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert!(said.stdout.starts_with("generation 2 is committed and the old one gone after "));
    let log = shop.site.log();
    assert_eq!(log.matches("generation 2 is committed after").count(), 1, "{log}");
    assert!(log.contains("what generation 2 has replaced is gone"), "{log}");
    assert_eq!(slow.receive().unwrap().text(), "done");
    shop.stop();
}

/// What a reload writes to a terminal of this kind.
fn on_a_terminal(shop: &Shop, term: &str, no_color: &str) -> String {
    let typed = format!(
        "'{}' reload --config '{}'",
        shop.site.path("current/shop").display(),
        shop.site.config().display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &typed, "/dev/null"]);
    script.env("TERM", term).env("NO_COLOR", no_color);
    run(script.current_dir(shop.site.path(""))).expect(0).stdout
}

#[test]
fn a_terminal_shows_every_slot() {
    if Command::new("script").arg("--version").output().is_err() {
        return not_tried("script(1) is not there");
    }
    let mut shop = Shop::start();
    // Long enough to be drawn.
    shop.put("app.fault", "slow_start=700");
    let green = "\x1b[32m";
    let drawn = on_a_terminal(&shop, "xterm", "");
    assert!(drawn.contains("starting generation 2") && drawn.contains("worker 0"), "{drawn:?}");
    assert!(drawn.contains(green) && drawn.contains("\x1b[2K"), "{drawn:?}");
    assert!(drawn.trim_end().lines().last().unwrap().contains("generation 2 is committed after "));
    let plain = on_a_terminal(&shop, "xterm", "1");
    assert!(plain.contains("worker 0") && !plain.contains(green), "{plain:?}");
    let dumb = on_a_terminal(&shop, "dumb", "");
    assert!(dumb.contains("old worker 0 draining\r\n") || dumb.contains("old worker 0 draining,"));
    assert!(!dumb.contains('\x1b'), "{dumb:?}");
    shop.stop();
}
