//! Manager and master become another program, under their pids, and clients notice nothing.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use serde_json::Value;
use shiftwork_sys::signal;

use crate::support::binary;
use crate::support::command::run;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Reloaded, Shop, Site, Status};
use crate::support::wait::{LONG, within};

fn upgrade_with(shop: &Shop, arguments: &[&str]) -> Reloaded {
    let ended = shop.site.run(&[&["upgrade", "--json"], arguments].concat());
    let mut upgraded: Reloaded = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error} in the outcome: {ended:?}"));
    upgraded.code = ended.code;
    upgraded
}

#[track_caller]
fn upgrade(shop: &Shop) -> Reloaded {
    let upgraded = upgrade_with(shop, &[]);
    assert_eq!((upgraded.code, upgraded.outcome.as_str()), (0, "committed"), "{upgraded:?}");
    upgraded
}

/// What a process executes.
fn executable(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn open_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// An upgrade that must fail and change nothing; gives the reason.
#[track_caller]
fn refused(shop: &Shop) -> String {
    let before = shop.status();
    let master = executable(before.pid);
    let load = Load::keep_alive(shop.web(), 2);
    load.wait_more(5);
    let upgraded = upgrade_with(shop, &[]);
    assert_eq!((upgraded.code, upgraded.outcome.as_str()), (1, "aborted"), "{upgraded:?}");
    assert_eq!(upgraded.generation, before.generation);
    let after = shop.until("all is as it was", |status| status.state == "serving");
    for role in ["master", "template", "worker", "task_worker"] {
        let pids = |status: &Status| status.role(role).iter().map(|it| it.pid).collect::<Vec<_>>();
        assert_eq!(pids(&before), pids(&after), "{role}");
    }
    assert_eq!(executable(after.pid), master);
    load.wait_more(5);
    load.finish().assert_flawless();
    upgraded.reason.unwrap_or_default()
}

/// A shop that takes the impostor for its next release.
fn deceived(mode: &str) -> Shop {
    let site = Site::new().with("server.start_timeout", "2s");
    let mut command = site.command(&["start"]);
    command.env("IMPOSTOR", mode).env("IMPOSTOR_FOLDER", site.path(""));
    let mut shop = site.start_by(command, true);
    shop.site.type_apart();
    shop.site.release("impostor", &binary::impostor());
    shop
}

#[test]
fn under_load_nothing_is_lost_and_the_pids_stay() {
    let shop = Shop::start();
    let before = shop.status();
    let mut idle = shop.client();
    idle.get("/hello").unwrap();
    let loads = [
        Load::keep_alive(shop.web(), 4),
        Load::pipelined(shop.web(), 2),
        Load::per_request(shop.web(), 2),
        Load::orders(shop.web(), 2, 0),
    ];
    let (first, second) = (binary::first(), binary::second());
    for generation in 2..=5 {
        loads[0].wait_more(20);
        let (name, release) =
            if generation % 2 == 0 { ("second", &second) } else { ("first", &first) };
        shop.site.release(name, release);
        assert_eq!(upgrade(&shop).generation, generation);
        let status = shop.status();
        assert_eq!((status.pid, status.one("manager")), (before.pid, before.one("manager")));
        let folder = shop.site.path("releases").join(name);
        for pid in [status.pid, status.one("manager")] {
            assert!(executable(pid).starts_with(&folder), "{pid}: {:?}", executable(pid));
        }
    }
    for load in loads {
        load.finish().assert_flawless();
    }
    assert_eq!(idle.get("/hello").unwrap().generation(), 5);
    let sums = shop.get("/orders").unwrap().json();
    assert_eq!(sums["paid"], sums["shipped"], "{sums}");
    assert_eq!(shop.status().totals["restarts"], 0);
    shop.stop();
}

#[test]
fn it_leaves_no_descriptor_behind() {
    let shop = Shop::start();
    let count = |shop: &Shop| {
        let status = shop.until("only one generation lives", |status| {
            status.state == "serving" && status.is_of_one_generation()
        });
        // The status itself comes over a connection, which may be open still.
        (open_descriptors(status.pid) / 4, open_descriptors(status.one("manager")) / 4)
    };
    // From the second one on there is an earlier release that is kept.
    upgrade(&shop);
    upgrade(&shop);
    let before = count(&shop);
    for _ in 0..6 {
        upgrade(&shop);
    }
    let after = count(&shop);
    assert!(
        after.0 <= before.0 + 1 && after.1 <= before.1 + 1,
        "descriptors / 4 of master and manager: {before:?}, then {after:?}"
    );
    shop.stop();
}

#[test]
fn signals_in_the_middle_are_heard_afterwards() {
    let mut shop = Shop::start();
    for _ in 0..3 {
        let before = shop.status().generation;
        thread::scope(|scope| {
            let upgraded = scope.spawn(|| upgrade(&shop));
            for _ in 0..50 {
                shop.signal(signal::USR1);
                thread::yield_now();
            }
            upgraded.join().unwrap();
        });
        shop.signal(signal::USR1);
        shop.until("a reload has followed", |status| {
            status.state == "serving" && status.generation >= before + 2
        });
    }
    thread::scope(|scope| {
        let site = &shop.site;
        scope.spawn(move || site.run(&["upgrade", "--json"]));
        within(LONG, "the upgrade begins", || site.log().matches("upgrading").nth(3).map(|_| ()));
        shop.signal(signal::TERM);
    });
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}

#[test]
fn whoever_speaks_to_the_control_socket_is_answered() {
    let shop = Shop::start();
    let mut half = UnixStream::connect(shop.site.path("run/shop.sock")).unwrap();
    half.write_all(br#"{"verb":"#).unwrap();
    // Another one waits for a drain that takes longer than the upgrade.
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("the request is in hand", |status| {
        status.role("worker").iter().any(|worker| worker.in_flight == 1)
    });
    thread::scope(|scope| {
        let drained = scope.spawn(|| shop.reload_with(&["--wait"]));
        shop.until("the reload drains", |status| {
            status.generation == 2 && status.state == "serving"
        });
        upgrade(&shop);
        let drained = drained.join().unwrap();
        assert_eq!((drained.code, drained.generation), (0, 2), "{drained:?}");
    });
    half.write_all(b"\"status\"}\n").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["generation"], 3, "{answer}");
    assert_eq!(slow.receive().unwrap().text(), "done");
    shop.stop();
}

#[test]
fn what_is_no_program_of_this_kind_is_refused() {
    let mut shop = Shop::start();
    shop.site.type_apart();
    let garbage = shop.site.path("garbage");
    fs::write(&garbage, b"\x7fELF and so on").unwrap();
    run(std::process::Command::new("chmod").arg("+x").arg(&garbage)).expect(0);
    shop.site.release("garbage", &garbage);
    let reason = refused(&shop);
    assert!(reason.contains("cannot be executed"), "{reason}");

    shop.site.release("false", "/bin/false".as_ref());
    let reason = refused(&shop);
    assert!(reason.contains("instead of answering") || reason.contains("not answered"), "{reason}");

    fs::remove_file(shop.site.path("current")).unwrap();
    let reason = refused(&shop);
    assert!(reason.contains("cannot open the executable"), "{reason}");
    let said = shop.site.run(&["upgrade"]).expect(1).stderr;
    let sentence = "upgrade aborted, generation 1 goes on: cannot open the executable";
    assert!(said.contains(sentence), "{said}");
    shop.wait_log(sentence);
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    shop.stop();
}

#[test]
fn the_reload_that_follows_may_fail_and_the_new_program_stays() {
    let mut shop = Shop::start();
    let folder = shop.site.path("releases").join("second");
    shop.site.release("second", &binary::second());
    shop.put("app.fault", "exit_at_start");
    let said = shop.site.run(&["upgrade"]).expect(1).stderr;
    for words in [
        "warning: manager and master are the new program all the same",
        "reload aborted, generation 1 goes on: ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(executable(shop.pid).starts_with(&folder));
    shop.stop();
}

#[test]
fn a_probe_that_hangs_is_given_up() {
    let shop = deceived("hangs_as_probe");
    let reason = refused(&shop);
    assert!(reason.contains("has not answered the probe"), "{reason}");
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    shop.stop();
}

#[test]
fn a_manager_that_cannot_go_on_is_followed_by_one_of_the_old_program() {
    let shop = deceived("fails_as_manager");
    let old = executable(shop.pid);
    let reason = refused(&shop);
    assert!(reason.contains("manager"), "{reason}");
    assert_eq!(executable(shop.status().one("manager")), old);
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    shop.stop();
}

#[test]
fn a_master_that_cannot_go_on_becomes_the_old_program_again_and_so_does_the_manager() {
    let shop = deceived("fails_as_master");
    let old = executable(shop.pid);
    let reason = refused(&shop);
    assert!(reason.contains("cannot read the master's state"), "{reason}");
    shop.until("the manager is of the old program, too", |status| {
        status.role("manager").first().is_some_and(|it| executable(it.pid) == old)
    });
    assert_eq!(shop.reload_fails().generation, 1);
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    shop.stop();
}

#[test]
fn a_manager_killed_in_the_middle_leaves_the_old_program() {
    let shop = deceived("hangs_as_probe");
    let load = Load::keep_alive(shop.web(), 2);
    let upgraded = thread::scope(|scope| {
        let upgraded = scope.spawn(|| upgrade_with(&shop, &[]));
        let status = shop.until("the upgrade stands", |status| status.state == "upgrading");
        let phase = status.progress.as_ref().map(|it| it.phase.as_str());
        assert_eq!(phase, Some("upgrading_probing"));
        let manager = status.one("manager");
        send(manager, signal::KILL);
        wait_gone(manager);
        upgraded.join().unwrap()
    });
    assert_eq!((upgraded.code, upgraded.generation), (1, 1), "{upgraded:?}");
    assert!(upgraded.reason.unwrap_or_default().contains("died"));
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn a_daemon_can_be_upgraded_and_its_log_goes_on() {
    let shop = Site::new().daemon();
    shop.site.release("second", &binary::second());
    upgrade(&shop);
    shop.wait_log("the master is the new program");
    fs::rename(shop.site.path("run/shop.log"), shop.site.path("run/old.log")).unwrap();
    shop.signal(signal::rtmin());
    within(LONG, "the log is opened anew", || {
        shop.site.path("run/shop.log").exists().then_some(())
    });
    upgrade(&shop);
    shop.wait_log("the master is the new program");
    shop.stop();
}
