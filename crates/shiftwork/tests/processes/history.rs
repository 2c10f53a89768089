//! The history: who asked, what came of it, and that it outlives the manager and an upgrade.

use std::process::Stdio;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use shiftwork_sys::signal;

use crate::support::processes::{send, wait_gone};
use crate::support::shop::Shop;
use crate::support::wait::{LONG, within};

fn history(shop: &Shop) -> Vec<Value> {
    let ended = shop.site.run(&["history", "--json"]).expect(0);
    let all: Value = serde_json::from_str(&ended.stdout).unwrap();
    all["entries"].as_array().unwrap().clone()
}

#[track_caller]
fn wait_entries(shop: &Shop, number: usize) -> Vec<Value> {
    within(LONG, "the history is as long as that", || {
        let entries = history(shop);
        (entries.len() == number).then_some(entries)
    })
}

/// `what`, `from`, `to`, `outcome`.
fn summary(entry: &Value) -> (&str, u64, u64, &str) {
    let number = |key: &str| entry[key].as_u64().unwrap();
    (
        entry["what"].as_str().unwrap(),
        number("from"),
        number("to"),
        entry["outcome"].as_str().unwrap(),
    )
}

fn own_uid() -> u32 {
    shiftwork_sys::user::effective_uid()
}

#[test]
fn it_tells_who_asked_for_what_and_what_came_of_it() {
    let mut shop = Shop::start();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let entries = history(&shop);
    assert_eq!(entries.len(), 1);
    assert_eq!(summary(&entries[0]), ("start", 0, 1, "committed"));
    assert_eq!(entries[0]["requests"][0]["by"]["who"], "start");

    shop.reload_with(&["--set", "app.release=hush"]);
    let entries = history(&shop);
    let entry = &entries[1];
    assert_eq!(summary(entry), ("reload", 1, 2, "committed"));
    let request = &entry["requests"][0];
    assert_eq!(request["by"]["who"], "command");
    assert_eq!(request["by"]["uid"], own_uid());
    assert!(request["by"]["pid"].as_i64().is_some_and(|pid| pid > 1), "{request}");
    assert_eq!(request["set"], serde_json::json!(["app.release"]));
    let at = request["at_ms"].as_u64().unwrap();
    assert!((before..before + 60_000).contains(&at), "{at} after {before}");
    assert!(entry["began_ms"].as_u64().unwrap() >= at);
    assert!(entry["duration_ms"].as_u64().unwrap() > 0);

    shop.signal(signal::USR1);
    let entries = wait_entries(&shop, 3);
    let by = &entries[2]["requests"][0]["by"];
    assert_eq!((&by["who"], &by["signal"]), (&"signal".into(), &"USR1".into()));
    assert_eq!(by["pid"], std::process::id());
    assert_eq!(by["uid"], own_uid());

    let button = "POST /admin/reload HTTP/1.1\r\nhost: shop\r\norigin: http://shop\r\n\r\n";
    let mut page = shop.client();
    page.send(button.as_bytes()).unwrap();
    page.receive().unwrap();
    let entries = history(&shop);
    let by = &entries[3]["requests"][0]["by"];
    assert_eq!(by["who"], "worker", "{:?}", entries[3]);
    assert!(by["pid"].as_i64().is_some_and(|pid| pid > 1) && by["worker_id"].is_u64(), "{by}");

    shop.put("app.fault", "exit_at_start");
    shop.reload_fails();
    let entries = history(&shop);
    assert_eq!(summary(&entries[4]), ("reload", 4, 5, "aborted"));
    assert!(!entries[4]["reason"].as_str().unwrap().is_empty());
    shop.put("app.fault", "none");

    shop.signal(signal::TTIN);
    let entries = wait_entries(&shop, 6);
    assert_eq!(summary(&entries[5]), ("scale", 4, 4, "committed"));
    assert_eq!(entries[5]["requests"][0]["wish"]["workers"]["by"], 1);
    assert_eq!(entries[5]["scaled"]["workers"], 3);

    let text = shop.site.run(&["history"]).expect(0).stdout;
    let me =
        shiftwork_sys::user::name_of(own_uid()).unwrap_or_else(|| format!("user {}", own_uid()));
    for word in
        ["start", "reload --set app.release", &me, "USR1 from", "worker ", "4 → 5", "scale +1"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    assert_eq!(text.lines().count(), 7, "{text}");
    shop.stop();
}

#[test]
fn requests_of_one_run_stand_together_and_it_outlives_manager_and_upgrade() {
    let mut shop = Shop::start();
    shop.put("app.fault", "slow_start=700");
    thread::scope(|scope| {
        scope.spawn(|| shop.reload());
        shop.until("the first is under way", |status| {
            status.processes.iter().any(|process| process.generation == Some(2))
        });
        for _ in 0..3 {
            scope.spawn(|| shop.reload());
        }
    });
    let entries = history(&shop);
    assert_eq!(entries.len(), 3, "{entries:#?}");
    assert_eq!(entries[1]["requests"].as_array().unwrap().len(), 1);
    let together = entries[2]["requests"].as_array().unwrap();
    let mut pids: Vec<_> = together.iter().map(|it| it["by"]["pid"].as_i64().unwrap()).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "{together:?}");

    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    wait_gone(manager);
    assert_eq!(wait_entries(&shop, 3), entries);
    shop.put("app.fault", "none");
    shop.site.run(&["upgrade"]).expect(0);
    let after = history(&shop);
    assert_eq!(after[..3], entries[..]);
    assert_eq!(summary(&after[3]), ("upgrade", 3, 4, "committed"));
    assert_eq!(after[3]["requests"][0]["what"], "upgrade");

    // One that is under way when the manager dies keeps who has asked.
    shop.put("app.fault", "slow_start=3000");
    let asked = shop.site.command(&["reload"]).stderr(Stdio::null()).spawn().unwrap();
    shop.until("it reloads", |status| status.state == "reloading");
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    let pid = asked.id();
    assert!(!asked.wait_with_output().unwrap().status.success());
    let entries = wait_entries(&shop, 5);
    assert_eq!(summary(&entries[4]), ("reload", 4, 5, "aborted"));
    assert_eq!(entries[4]["requests"][0]["by"]["pid"], pid);
    shop.stop();
}
