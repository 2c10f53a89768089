//! What containers ask for: the server as the first process, and a pause before a stop.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use shiftwork_sys::signal;

use crate::support::load::Load;
use crate::support::not_tried;
use crate::support::processes::{alive, parent, send, title};
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;

/// Puts a program into a pid namespace of its own. None: this user may not.
fn namespace() -> Option<Command> {
    let made = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command
    };
    let may = made().arg("true").output().is_ok_and(|it| it.status.success());
    may.then(made)
}

/// The children of a process, zombies as well.
fn children(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.filter(|it| parent(*it) == Some(pid)).collect()
}

#[test]
fn it_is_the_first_process_and_reaps_what_is_nobodys() {
    let Some(mut command) = namespace() else {
        return not_tried("this user cannot make a pid namespace");
    };
    let site = Site::new();
    let own = site.command(&["start"]);
    command.arg(own.get_program()).args(own.get_args()).current_dir(site.path(""));
    let mut shop = site.start_by(command, false);
    assert_eq!(shop.pid, 1);
    let outside = shop.child.as_ref().unwrap().id() as i32;
    let master = children(outside)[0];
    let load = Load::keep_alive(shop.web(), 2);
    let orders = Load::orders(shop.web(), 2, 0);
    shop.reload();
    // Somebody leaves children behind, one of them dead already.
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &master.to_string(), "--pid", "--mount", "sh", "-c"]);
    enter.arg("(sleep 0.2 & true) & (sleep 0 & sleep 0.1) & exit 0");
    assert!(enter.status().unwrap().success());
    until("only the manager is left below it", || children(master).len() == 1);
    // The manager dies, and what was its own finds another one.
    let manager = children(master)[0];
    send(manager, signal::KILL);
    until("another one is there", || {
        let own = |pid: &i32| *pid != manager && title(*pid).ends_with(": manager");
        children(master).iter().any(own)
    });
    shop.site.run(&["upgrade"]).expect(0);
    assert_eq!(shop.status().pid, 1);
    load.wait_more(20);
    orders.wait_more(4);
    load.finish().assert_flawless();
    orders.finish().assert_flawless();
    send(master, signal::TERM);
    assert_eq!(shop.wait(), 0);
    assert!(!alive(master));
}

#[test]
fn before_it_stops_it_goes_on_for_a_while() {
    let mut shop = Site::new().with("server.pre_stop_delay", "1500ms").start();
    let load = Load::per_request(shop.web(), 2);
    let kept = Load::keep_alive(shop.web(), 2);
    load.wait_more(20);
    let begun = Instant::now();
    shop.signal(signal::TERM);
    shop.wait_log("pre_stop_delay");
    assert_eq!(shop.status().state, "serving");
    let victim = shop.status().pids("worker", 1)[0];
    send(victim, signal::TERM);
    shop.reload();
    load.wait_more(20);
    kept.wait_more(20);
    assert!(begun.elapsed() < Duration::from_millis(1_400), "too slow to tell");
    for load in [load, kept] {
        load.finish().assert_flawless();
    }
    assert_eq!(shop.wait(), 0);
    let took = begun.elapsed();
    assert!((1_500..4_000).contains(&took.as_millis()), "{took:?}");
    shop.site.assert_nothing_left();
}

#[test]
fn a_second_term_ends_the_pause_and_lets_work_finish() {
    let mut shop = Site::new().with("server.pre_stop_delay", "60s").start();
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=2500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker").iter().any(|it| it.in_flight == 1));
    let begun = Instant::now();
    shop.signal(signal::TERM);
    until("a second has passed", || begun.elapsed() > Duration::from_millis(1_100));
    assert_eq!(shop.status().state, "serving");
    shop.signal(signal::TERM);
    assert_eq!(slow.receive().unwrap().text(), "done");
    assert_eq!(shop.wait(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn quit_does_not_pause() {
    let mut shop: Shop = Site::new().with("server.pre_stop_delay", "60s").start();
    shop.signal(signal::TERM);
    shop.wait_log("pre_stop_delay");
    shop.signal(signal::QUIT);
    shop.wait();
    shop.site.assert_nothing_left();
}
