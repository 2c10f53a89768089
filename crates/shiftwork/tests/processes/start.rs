//! Starting: when it works, and what is said when it cannot.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::support::processes::{alive, send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;
use shiftwork_sys::signal;

#[test]
fn a_start_in_the_foreground_logs_to_the_terminal() {
    let shop = Shop::start();
    let status = shop.status();
    assert_eq!(status.name, "shop");
    assert_eq!(status.pid, shop.pid);
    assert_eq!(status.generation, 1);
    assert_eq!(status.release, "1");
    let terminal = fs::read_to_string(shop.site.path("terminal")).unwrap();
    assert!(!terminal.trim().is_empty(), "the terminal is empty");
    assert_eq!(
        fs::read_to_string(shop.site.path("run/shop.pid")).unwrap().trim(),
        shop.pid.to_string()
    );
    shop.stop();
}

#[test]
fn a_busy_port_fails_the_start_by_name() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let said = Site::new().with("listen.web.address", address.as_str()).fails();
    assert!(said.contains(&address), "{said}");
    assert!(said.contains("in use"), "{said}");
}

#[test]
fn a_second_server_of_the_same_user_cannot_steal_the_port() {
    let shop = Shop::start();
    let address = shop.web().to_string();
    let said = Site::new().with("listen.web.address", address.as_str()).fails();
    assert!(said.contains(&address), "{said}");
    assert!(said.contains("in use"), "{said}");
    for _ in 0..20 {
        assert_eq!(shop.get("/hello").unwrap().status, 200);
    }
    shop.stop();
}

#[test]
fn an_unknown_user_fails_the_start() {
    let said = Site::new().with("server.user", "nobody-of-this-name").fails();
    assert!(said.contains("nobody-of-this-name"), "{said}");
}

#[test]
fn a_missing_folder_of_the_ledger_fails_the_start_with_the_applications_words() {
    let said = Site::new().with("app.ledger", "missing/shop.sqlite").fails();
    assert!(said.contains("cannot open the ledger"), "{said}");
    assert!(said.contains("missing/shop.sqlite"), "{said}");
}

#[test]
fn a_missing_folder_of_the_log_fails_the_start() {
    let said = Site::new().with("server.log_file", "missing/shop.log").fails();
    assert!(said.contains("missing/shop.log"), "{said}");
}

#[test]
fn a_listener_without_a_handler_fails_the_start() {
    let said = Site::new().with("listen.kiosk.address", "127.0.0.1:0").run(&["start", "-d"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.said().contains("kiosk"), "{said:?}");
}

#[test]
fn a_second_start_says_who_runs() {
    let shop = Shop::start();
    for arguments in [&["start", "-d"][..], &["start"][..]] {
        let second = shop.site.run(arguments).expect(1);
        assert!(second.said().contains(&shop.pid.to_string()), "{second:?}");
    }
    let told = shop.site.run(&["start", "--json"]).expect(1);
    assert!(told.said().contains("\"outcome\":\"failed\""), "{told:?}");
    assert_eq!(shop.status().pid, shop.pid);
    assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    shop.stop();
}

#[test]
fn a_stale_pid_file_is_taken_over() {
    let site = Site::new();
    let first = site.start();
    let Shop { pid, .. } = first;
    send(pid, signal::KILL);
    wait_gone(pid);
    let run = first.site.path("run");
    until("the other processes go", || {
        crate::support::processes::below(&run.parent().unwrap().canonicalize().unwrap())
            .into_iter()
            .all(|pid| !alive(pid))
    });
    assert!(run.join("shop.pid").exists(), "killed, so its pid file must be left");
    let again = first.site.run(&["start", "-d"]).expect(0);
    let recorded = fs::read_to_string(run.join("shop.pid")).unwrap();
    assert!(again.said().contains(recorded.trim()), "{again:?} {recorded}");
    assert_ne!(recorded.trim(), pid.to_string());
    first.site.run(&["stop"]).expect(0);
    first.site.assert_nothing_left();
}

#[test]
fn start_timeout_ends_a_start_that_hangs() {
    let begun = std::time::Instant::now();
    let said = Site::new()
        .with("app.fault", "slow_start=20000")
        .with("server.start_timeout", "500ms")
        .fails();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(said.contains("start_timeout") || said.contains("500ms"), "{said}");
}

#[test]
fn commands_without_a_server_exit_with_3() {
    let site = Site::new();
    for command in ["status", "stop", "reload"] {
        let ended = site.run(&[command]).expect(3);
        assert!(!ended.stderr.is_empty(), "{command} says nothing");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let site = Site::new();
    site.run(&["strat"]).expect(2);
    site.run(&["start", "--no-such-flag"]).expect(2);
}

#[test]
fn a_start_after_one_that_has_failed_finds_nothing_of_it() {
    let mut site = Site::new();
    for _ in 0..5 {
        site.put("app.fault", "panic_in_worker_start");
        site.run(&["start", "-d"]).expect(1);
        site.put("app.fault", "none");
        site.run(&["start", "-d"]).expect(0);
        site.run(&["stop"]).expect(0);
    }
    site.assert_nothing_left();
}
