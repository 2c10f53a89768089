//! Back to the release before, by hand.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use shiftwork_sys::signal;

use crate::support::kept::Kept;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};

#[test]
fn it_is_not_felt_and_brings_code_and_settings_back() {
    let mut shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    let comers = Load::per_request(shop.web(), 2);
    let mut kept = Kept::open(&shop);
    kept.works();
    shop.put("app.release", "2");
    shop.put("server.worker_num", 3);
    shop.reload();
    // It is parked at once; its workers drain meanwhile.
    let status = shop.until("the old one is parked, its workers have gone", |status| {
        !status.parked.is_empty() && status.role("worker").len() == 3
    });
    assert_eq!(status.parked[0].generation, Some(1), "{status:#?}");
    kept.works();
    let back = shop.rollback();
    assert_eq!((back.code, back.outcome.as_str(), back.generation), (0, "rolled_back", 1));
    assert_eq!(kept.works(), 1);
    let response = shop.get("/hello").unwrap();
    assert_eq!((response.header("x-release"), response.generation()), (Some("1"), 1));
    let status = shop.until("the left one is gone", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it <= 1))
    });
    assert_eq!((status.role("worker").len(), status.parked.len()), (2, 0), "{status:#?}");
    assert_eq!(status.totals["restarts"], 0, "nobody has died");
    // A later reload reads the disk, where the other release lies still.
    shop.reload();
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("2"));
    kept.works();
    let ended = shop.site.run(&["rollback", "--wait"]).expect(0);
    assert!(ended.stdout.starts_with("generation 1 serves again after"), "{ended:?}");
    assert_eq!(kept.works(), 1);
    load.wait_more(50);
    comers.wait_more(50);
    load.finish().assert_flawless();
    comers.finish().assert_flawless();
    shop.stop();
}

#[test]
fn there_may_be_nothing_to_go_back_to() {
    let shop = Site::new().with("server.keep_releases", 0).start();
    shop.reload();
    let back = shop.rollback();
    assert_eq!((back.code, back.outcome.as_str(), back.generation), (1, "aborted", 2));
    let reason = back.reason.unwrap_or_default();
    assert!(reason.contains("nothing to go back to") && reason.contains("keep_releases 0"));
    let ended = shop.site.run(&["rollback"]).expect(1);
    assert!(ended.stderr.contains("not rolled back, generation 2 goes on"), "{ended:?}");
    let status = shop.until("nothing old is left", |status| status.role("template").len() == 1);
    assert!(status.parked.is_empty(), "{status:#?}");
    shop.stop();
}

#[test]
fn as_many_releases_are_kept_as_are_wished_for() {
    let shop = Site::new().with("server.keep_releases", 2).start();
    (0..3).for_each(|_| drop(shop.reload()));
    for generation in [3, 2] {
        let back = shop.rollback();
        assert_eq!((back.code, back.generation), (0, generation), "{back:?}");
        assert_eq!(shop.get("/hello").unwrap().generation(), generation);
    }
    assert_eq!(shop.rollback().code, 1);
    shop.stop();
}

#[test]
fn a_parked_template_that_was_killed_is_executed_again() {
    let shop = Shop::start();
    let load = Load::keep_alive(shop.web(), 4);
    shop.reload();
    let status = shop.until("the old one is parked", |status| !status.parked.is_empty());
    let template = status.parked[0].pid;
    send(template, signal::KILL);
    wait_gone(template);
    // What lies on the disk by now does not matter.
    std::fs::remove_file(shop.site.path("releases/first/shop")).unwrap();
    let back = back_by_socket(&shop.site.path("run/shop.sock"));
    assert!(back.contains(r#""outcome":"rolled_back","generation":1"#), "{back}");
    load.wait_more(50);
    load.finish().assert_flawless();
}

/// What the command says to the server, without the command: its program is gone.
fn back_by_socket(control: &Path) -> String {
    let mut socket = UnixStream::connect(control).unwrap();
    socket.write_all(b"{\"verb\":\"rollback\"}\n").unwrap();
    BufReader::new(socket).lines().map(Result::unwrap).last().unwrap()
}

/// A shop whose till is at a Unix socket, which it has then given up for another one.
fn moved() -> (Shop, PathBuf) {
    let mut site = Site::new();
    let till = site.path("till.sock");
    site.put("listen.till.address", format!("unix:{}", till.display()));
    let mut shop = site.daemon();
    assert_eq!(ring(&till), "1");
    let other = shop.site.path("other.sock");
    shop.put("listen.till.address", format!("unix:{}", other.display()));
    shop.put("server.pid_file", "elsewhere.pid");
    shop.reload();
    assert_eq!(ring(&other), "1");
    assert!(UnixStream::connect(&till).is_err(), "the till has moved");
    (shop, till)
}

/// What the till answers on a connection of its own.
#[track_caller]
fn ring(till: &Path) -> String {
    let mut till = BufReader::new(UnixStream::connect(till).unwrap());
    till.get_mut().write_all(b"count\n").unwrap();
    let mut answer = String::new();
    till.read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

#[test]
fn addresses_and_files_that_were_given_up_come_back() {
    let (mut shop, till) = moved();
    let (old, new) = (shop.site.path("run/shop.pid"), shop.site.path("elsewhere.pid"));
    assert!(!old.exists() && new.exists());
    let back = shop.rollback();
    assert_eq!((back.code, back.generation), (0, 1), "{back:?}");
    assert_eq!(ring(&till), "1");
    assert!(old.exists() && !new.exists());
    assert!(UnixStream::connect(shop.site.path("other.sock")).is_err());
    shop.remove("server.pid_file");
    shop.stop();
}

#[test]
fn an_address_that_somebody_else_has_by_now_is_done_without() {
    let (mut shop, till) = moved();
    let _stranger = UnixListener::bind(&till).unwrap();
    let back = shop.rollback();
    assert_eq!((back.code, back.generation), (0, 1), "{back:?}");
    shop.wait_log("generation 1 comes back without listener till");
    assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    shop.remove("server.pid_file");
    shop.stop();
}

#[test]
fn a_manager_that_dies_in_the_middle_of_it_is_followed_by_one_that_goes_on() {
    let mut shop = Site::new().with("app.fault", "slow_start=1500").start();
    let load = Load::keep_alive(shop.web(), 4);
    shop.put("app.fault", "none");
    shop.reload();
    let back = thread::scope(|scope| {
        let back = scope.spawn(|| shop.rollback());
        let status = shop.until("it is under way", |status| {
            status.state == "rolling_back" && !status.pids("worker", 1).is_empty()
        });
        send(status.one("manager"), signal::KILL);
        back.join().unwrap()
    });
    assert_eq!((back.code, back.outcome.as_str(), back.generation), (0, "rolled_back", 1));
    load.wait_more(50);
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn a_stop_does_not_wait_for_the_way_back() {
    let mut shop = Site::new().with("app.fault", "slow_start=3000").start();
    shop.put("app.fault", "none");
    shop.reload();
    let load = Load::keep_alive(shop.web(), 4);
    let back = thread::scope(|scope| {
        let back = scope.spawn(|| shop.rollback());
        shop.until("it is under way", |status| status.state == "rolling_back");
        load.wait_more(50);
        load.finish().assert_flawless();
        shop.signal(signal::TERM);
        back.join().unwrap()
    });
    assert_eq!((back.code, back.outcome.as_str(), back.generation), (1, "aborted", 2), "{back:?}");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}
