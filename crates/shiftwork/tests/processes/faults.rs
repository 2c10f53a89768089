//! A release that does not work: it cannot start, and as a reload it changes nothing.

use std::time::{Duration, Instant};

use crate::support::load::Load;
use crate::support::shop::{Shop, Site};

/// Starts with the fault, which must fail; then reloads a good server to it, which must fail too.
fn fails_start_and_reload(fault: &str, cause: &str, timeout: &str) {
    let said = Site::new().with("app.fault", fault).with("server.start_timeout", timeout).fails();
    assert!(said.contains(cause), "the start says {said}");

    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    load.wait_more(100);
    shop.put("app.fault", fault);
    // For the release that fails alone: the others take as long as a busy machine makes them.
    shop.put("server.start_timeout", timeout);
    let reloaded = shop.reload_fails();
    assert_eq!(reloaded.generation, 1, "the generation that serves: {reloaded:?}");
    let told = format!(
        "{} {}",
        reloaded.reason.as_deref().unwrap_or_default(),
        reloaded.output.as_deref().unwrap_or_default()
    );
    assert!(told.contains(cause), "the reload tells {told}");
    // On a terminal it is told as well.
    let ended = shop.site.run(&["reload"]).expect(1);
    assert!(ended.said().contains(cause), "{ended:?}");

    load.wait_more(100);
    let counts = load.finish();
    counts.assert_flawless();
    assert_eq!(counts.generations.keys().copied().collect::<Vec<_>>(), [1]);

    // And the way back is open.
    shop.put("app.fault", "none");
    shop.remove("server.start_timeout");
    let mended = shop.reload();
    assert_eq!(shop.get("/hello").unwrap().generation(), mended.generation);
    shop.stop();
}

#[test]
fn exit_in_preload() {
    fails_start_and_reload("exit_at_start", "3", "10s");
}

#[test]
fn panic_in_preload() {
    fails_start_and_reload("panic_in_preload", "fault: panic_in_preload", "10s");
}

#[test]
fn second_thread_in_preload() {
    fails_start_and_reload("thread_in_preload", "thread", "10s");
}

#[test]
fn panic_in_worker_start() {
    fails_start_and_reload("panic_in_worker_start", "fault: panic_in_worker_start", "10s");
}

#[test]
fn hang_in_worker_start() {
    fails_start_and_reload("hang_in_worker_start", "start_timeout", "700ms");
}

#[test]
fn hang_in_preload() {
    // Longer than a test waits for a command: a deadline that is not kept fails it.
    fails_start_and_reload("slow_preload=120000", "start_timeout", "700ms");
}

#[test]
fn unhealthy() {
    let cause =
        r#"not healthy (asked 3 times): /health answered 503: {"error":"fault: unhealthy"}"#;
    fails_start_and_reload("unhealthy", cause, "10s");
}

#[test]
fn a_slow_start_commits() {
    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    shop.put("app.fault", "slow_start=600");
    let reloaded = shop.reload();
    assert!(reloaded.duration_ms >= 600, "{reloaded:?}");
    assert_eq!(shop.get("/hello").unwrap().generation(), 2);
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn a_crash_loop_backs_off_and_the_way_back_is_open() {
    let mut shop = Shop::start();
    shop.put("app.fault", "crash_after=1");
    shop.reload();
    let begun = Instant::now();
    let mut crashes = 0_u32;
    while begun.elapsed() < Duration::from_secs(3) {
        // Every request kills its worker; a connection may wait for the next one.
        if shop.get("/hello").is_err() {
            crashes += 1;
        }
    }
    assert!(crashes > 0, "no worker crashed");
    assert!(crashes < 100, "{crashes} crashes in 3 s are a tight loop");
    let status = shop.status();
    // Of the processes themselves there may be none at this moment.
    assert!(status.totals["restarts"].as_u64().is_some_and(|n| n > 0), "{status:#?}");

    shop.put("app.fault", "none");
    shop.reload();
    for _ in 0..20 {
        assert_eq!(shop.get("/hello").unwrap().generation(), 3);
    }
    shop.stop();
}

#[test]
fn a_file_that_is_no_program_fails_the_reload() {
    let shop = Shop::start();
    let junk = shop.site.path("junk");
    std::fs::write(&junk, "not a program\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&junk, mode).unwrap();
    shop.site.release("junk", &junk);
    // The command itself must be a shop that works.
    let mut command = std::process::Command::new(shop.site.path("releases/first/shop"));
    command.args(["reload", "--config"]).arg(shop.site.config());
    let ended = crate::support::command::run(&mut command).expect(1);
    assert!(!ended.said().trim().is_empty());
    assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    shop.site.release("first", &crate::support::binary::first());
    shop.reload();
    shop.stop();
}
