//! A shop on a terminal: Ctrl-C, and a terminal that goes away.
//!
//! The terminal is made by script(1), which most systems have; without it there is nothing to test.

use std::io::Write;
use std::process::Command;

use shiftwork_sys::signal;

use crate::support::not_tried;
use crate::support::processes::send;
use crate::support::shop::{Shop, Site};

/// A shop that was started in the foreground of a terminal of its own, by `script`.
fn on_a_terminal(site: Site) -> Option<Shop> {
    if Command::new("script").arg("--version").output().is_err() {
        not_tried("script(1) is not there");
        return None;
    }
    let typed = format!(
        "exec '{}' start --config '{}'",
        site.path("current/shop").display(),
        site.config().display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &typed, "/dev/null"]);
    script.current_dir(site.path(""));
    Some(site.start_by(script, false))
}

#[test]
fn ctrl_c_is_one_graceful_stop() {
    let Some(mut shop) = on_a_terminal(Site::new()) else { return };
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=700 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    let mut keyboard = shop.child.as_mut().unwrap().stdin.take().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    assert_eq!(slow.receive().unwrap().text(), "done");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}

#[test]
fn a_terminal_that_goes_away_is_a_graceful_stop() {
    let Some(mut shop) = on_a_terminal(Site::new()) else { return };
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=700 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    let script = shop.child.as_mut().unwrap();
    send(i32::try_from(script.id()).unwrap(), signal::KILL);
    script.wait().unwrap();
    // Whatever is logged from now on cannot be written, which must not matter.
    assert_eq!(slow.receive().unwrap().text(), "done");
    shop.site.assert_nothing_left();
}

#[test]
fn every_role_writes_in_colour() {
    let site = Site::new().with("limits.request_timeout", "200ms");
    let Some(mut shop) = on_a_terminal(site) else { return };
    assert_eq!(shop.get("/slow?ms=60000").unwrap().status, 503);
    shop.wait_log("a handler was cut");
    let log = shop.site.log();
    let lines = ["\x1b[32mINFO \x1b[0m master", "\x1b[32mINFO \x1b[0m manager"];
    for line in lines.iter().chain(&["\x1b[33mWARN \x1b[0m worker"]) {
        assert!(log.contains(line), "{line:?} in {log:?}");
    }
    shop.signal(signal::TERM);
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}
