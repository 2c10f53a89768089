//! A release that wants the server's own files elsewhere, or another user: no stop for that.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use shiftwork_sys::listen::{self, Address};
use shiftwork_sys::signal;

use crate::support::command::run;
use crate::support::load::Load;
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

fn pid_in(file: &Path) -> i32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Lets the server read the changed file. A signal finds it, wherever the control socket is.
#[track_caller]
fn reload_by_signal(shop: &Shop, generation: u64) {
    shop.signal(signal::USR1);
    let new = shop.until("the reload is done", |status| {
        status.state == "serving" && status.generation >= generation
    });
    assert_eq!(new.generation, generation);
}

#[test]
fn every_file_moves_with_a_reload_and_back_again() {
    let mut shop = Site::new().daemon();
    let load = Load::keep_alive(shop.web(), 2);
    let (pid, old) = (shop.pid, shop.site.path("run"));
    shop.put("server.run_dir", "elsewhere");
    reload_by_signal(&shop, 2);
    let new = shop.site.path("elsewhere");
    assert_eq!(pid_in(&new.join("shop.pid")), pid);
    for name in ["shop.pid", "shop.sock"] {
        assert!(!old.join(name).exists(), "{name} is still where it was");
    }
    // Commands find it there, and each file can have a place of its own.
    shop.put("server.pid_file", "a.pid");
    shop.put("server.log_file", "a.log");
    shop.reload();
    assert!(fs::read_to_string(old.join("shop.log")).unwrap().contains("the log goes on in"));
    let log = fs::read_to_string(new.join("shop.log")).unwrap();
    assert!(log.contains("generation 3 starts"), "{log}");
    assert_eq!(pid_in(&shop.site.path("a.pid")), pid);
    assert!(!new.join("shop.pid").exists());
    // The lock has moved, too: a second start is told who runs.
    let ended = shop.site.run(&["start", "-d"]).expect(1);
    assert!(ended.said().contains(&pid.to_string()), "{ended:?}");
    // An upgrade takes them along.
    shop.site.run(&["upgrade"]).expect(0);
    for key in ["server.pid_file", "server.log_file"] {
        shop.remove(key);
    }
    shop.put("server.run_dir", "run");
    reload_by_signal(&shop, 5);
    assert_eq!(pid_in(&old.join("shop.pid")), pid);
    for file in [new.join("shop.sock"), shop.site.path("a.pid")] {
        assert!(!file.exists(), "{} is still there", file.display());
    }
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn a_place_that_cannot_be_had_fails_the_reload() {
    let mut shop = Shop::start();
    let pid_file = shop.site.path("run/shop.pid");
    let mut refused = |key: &str, value: &str, word: &str| {
        shop.put(key, value);
        let reloaded = shop.reload_fails();
        let reason = reloaded.reason.unwrap_or_default();
        assert!(reason.contains(key) && reason.contains(word), "{reason}");
        assert_eq!(pid_in(&pid_file), shop.pid);
        shop.remove(key);
    };
    refused("server.pid_file", "missing/shop.pid", "No such file");
    let other = Shop::start();
    let held = other.site.path("run/shop.pid");
    refused("server.pid_file", held.to_str().unwrap(), &other.pid.to_string());
    other.stop();
    // A release that fails for another reason leaves nothing of what was made for it.
    shop.put("server.pid_file", "new.pid");
    shop.put("app.fault", "panic_in_worker_start");
    shop.reload_fails();
    within(LONG, "the new pid file goes", || (!shop.site.path("new.pid").exists()).then_some(()));
    shop.put("app.fault", "none");
    shop.reload();
    assert_eq!(pid_in(&shop.site.path("new.pid")), shop.pid);
    shop.stop();
}

/// The generation that the server at a control socket tells.
fn generation(shop: &Shop, control: &Path) -> u64 {
    let status = ["status", "--json", "--control", control.to_str().unwrap()];
    let told: serde_json::Value =
        serde_json::from_str(&shop.site.run(&status).expect(0).stdout).unwrap();
    told["generation"].as_u64().unwrap()
}

/// Makes a FIFO: who opens it to read waits until somebody writes, and the other way round.
fn make_fifo(path: &Path) {
    run(std::process::Command::new("mkfifo").arg(path)).expect(0);
}

#[test]
fn a_place_at_which_one_would_wait_for_ever_fails_the_reload() {
    let mut shop = Site::new().daemon();
    let (control, socket) = (shop.site.path("run/shop.sock"), shop.site.path("full.sock"));
    make_fifo(&shop.site.path("fifo"));
    // A server that takes nobody any more, and still lives.
    let full = listen::bind(&Address::Unix(socket.clone()), 1).unwrap().remove(0);
    listen::start(full.as_fd(), 0).unwrap();
    let _waits = UnixStream::connect(&socket).unwrap();
    let unix = format!("unix:{}", socket.display());
    for (key, value, word) in [
        ("server.control_socket", "full.sock", "another server listens"),
        ("server.admin_address", unix.as_str(), "another server listens"),
        ("listen.web.address", unix.as_str(), "in use"),
        ("server.log_file", "fifo", "regular file"),
        ("server.log_file", "full.sock", "regular file"),
        ("server.pid_file", "fifo", "regular file"),
    ] {
        shop.put(key, value);
        // The command does not look for the server where it is not yet.
        let ended = shop.site.run(&["reload", "--control", control.to_str().unwrap()]).expect(1);
        let named = key == "listen.web.address" || ended.said().contains(key);
        assert!(named && ended.said().contains(word), "{ended:?}");
        match key {
            "listen.web.address" => shop.put(key, "127.0.0.1:0"),
            _ => shop.remove(key),
        }
        assert_eq!(shop.status().generation, 1);
    }
    shop.reload();
    shop.stop();
}

#[test]
fn a_release_of_files_at_which_one_would_wait_for_ever_fails_the_reload() {
    let mut shop = Shop::start();
    let (program, control) = (shop.site.path("program"), shop.site.path("run/shop.sock"));
    let refused = |shop: &Shop, command: &str| {
        // The command does not need the settings file to find the server.
        let ended = shop.site.run(&[command, "--control", control.to_str().unwrap()]).expect(1);
        assert!(ended.said().contains("it is not a regular file"), "{ended:?}");
        generation(shop, &control)
    };
    fs::remove_file(shop.site.config()).unwrap();
    make_fifo(&shop.site.config());
    assert_eq!(refused(&shop, "reload"), 1);
    // Writes it anew.
    shop.put("server.executable", "program");
    make_fifo(&program);
    assert_eq!(refused(&shop, "reload"), 1);
    let link = || symlink(shop.site.path("current/shop"), &program).unwrap();
    fs::remove_file(&program).unwrap();
    link();
    shop.reload();
    let before = shop.status().generation;
    fs::remove_file(&program).unwrap();
    make_fifo(&program);
    for command in ["reload", "upgrade"] {
        assert_eq!(refused(&shop, command), before);
    }
    fs::remove_file(&program).unwrap();
    link();
    shop.reload();
    shop.stop();
}
