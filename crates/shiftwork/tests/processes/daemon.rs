//! In the background: detached, logged, titled.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::processes::{parent, title};
use crate::support::shop::{Shop, Site, Status};

/// A field of a process's stat, counted from its state on.
fn stat(pid: i32, field: usize) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(field).unwrap().parse().unwrap()
}

/// Process group of a process.
fn group(pid: i32) -> i32 {
    stat(pid, 2)
}

/// Session of a process.
fn session(pid: i32) -> i32 {
    stat(pid, 3)
}

fn descriptor(pid: i32, number: i32) -> String {
    fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap().to_string_lossy().into_owned()
}

#[test]
fn the_command_returns_when_the_daemon_serves() {
    let site = Site::new();
    let started = site.run(&["start", "-d"]).expect(0);
    let pid: i32 = fs::read_to_string(site.path("run/shop.pid")).unwrap().trim().parse().unwrap();
    assert!(started.stdout.contains(&pid.to_string()), "{started:?}");
    // An address that was printed answers at once.
    let address = started
        .stdout
        .split(|c: char| !(c.is_ascii_alphanumeric() || ".:".contains(c)))
        .filter_map(|word| word.trim_end_matches([':', '.']).parse().ok())
        .find(|address| {
            crate::support::http::Client::connect(*address)
                .is_ok_and(|mut client| client.get("/hello").is_ok_and(|r| r.status == 200))
        });
    assert!(address.is_some(), "no address that answers in {started:?}");
    site.run(&["stop"]).expect(0);
    site.assert_nothing_left();
}

#[test]
fn a_daemon_has_left_its_terminal() {
    let shop = Site::new().daemon();
    let status = shop.status();
    assert_ne!(session(shop.pid), session(std::process::id() as i32));
    let log = shop.site.path("run/shop.log").canonicalize().unwrap();
    for process in &status.processes {
        assert_eq!(descriptor(process.pid, 0), "/dev/null", "{process:?}");
        for number in [1, 2] {
            assert_eq!(Path::new(&descriptor(process.pid, number)), log, "{process:?}");
        }
    }
    shop.stop();
}

#[test]
fn a_restarted_daemon_adds_to_its_log() {
    let shop = Site::new().daemon();
    let site = &shop.site;
    let log = site.path("run/shop.log");
    site.run(&["stop"]).expect(0);
    let before = fs::read_to_string(&log).unwrap();
    site.run(&["start", "-d"]).expect(0);
    let after = fs::read_to_string(&log).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    site.run(&["stop"]).expect(0);
    site.assert_nothing_left();
}

#[test]
fn titles_tell_role_and_generation() {
    let shop = Shop::start();
    shop.reload();
    let status = shop.until("one generation is left", Status::is_of_one_generation);
    for process in &status.processes {
        let title = title(process.pid);
        assert!(title.starts_with("shop: "), "{title}");
        assert!(title.contains(&process.role.replace('_', " ")), "{title}");
        if process.role != "master" && process.role != "manager" {
            assert!(title.contains("gen 2"), "{title}");
        }
        if let Some(id) = process.worker_id {
            assert!(title.contains(&format!("worker {id}")), "{title}");
        }
    }
    shop.stop();
}

#[test]
fn the_tree_has_its_parents_right() {
    let shop = Shop::start();
    let status = shop.status();
    let manager = status.one("manager");
    assert_eq!(parent(manager), Some(shop.pid));
    // What a terminal or a shell sends to the master's group reaches nobody else.
    for process in status.processes.iter().filter(|it| it.pid != shop.pid) {
        assert_eq!(group(process.pid), manager, "{process:?}");
    }
    for role in ["template", "worker", "task_worker"] {
        for process in status.role(role) {
            assert_eq!(parent(process.pid), Some(manager), "{process:?}");
        }
    }
    assert_eq!(status.role("worker").len(), 2);
    assert_eq!(status.role("task_worker").len(), 1);
    assert_eq!(status.role("task_worker")[0].worker_id, Some(2));
    shop.stop();
}

#[test]
fn a_worker_has_only_its_own_descriptors() {
    let shop = Shop::start();
    let status = shop.status();
    // As many listening sockets as it serves: a slot of web, a slot of till.
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening: Vec<&str> = sockets
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("0A"))
        .filter_map(|line| line.split_whitespace().nth(9))
        .collect();
    for worker in status.role("worker") {
        let own: Vec<String> = fs::read_dir(format!("/proc/{}/fd", worker.pid))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        let held = own
            .iter()
            .filter_map(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
            .filter(|inode| listening.contains(inode))
            .count();
        assert_eq!(held, 2, "{own:?}");
        assert!(own.len() < 40, "{own:?}");
    }
    // Nor any end of what is its template's.
    let sockets = |pid: i32| -> BTreeSet<String> {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let links = links.map(|link| link.to_string_lossy().into_owned());
        links.filter(|link| link.starts_with("socket:")).collect()
    };
    let of_template = sockets(status.one("template"));
    assert!(!of_template.is_empty());
    for process in status.role("worker").into_iter().chain(status.role("task_worker")) {
        assert!(sockets(process.pid).is_disjoint(&of_template), "{process:?}");
    }
    for role in ["template", "task_worker", "manager"] {
        for process in status.role(role) {
            let held = fs::read_dir(format!("/proc/{}/fd", process.pid))
                .unwrap()
                .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
                .filter(|link| {
                    let link = link.to_string_lossy();
                    listening.iter().any(|inode| *link == *format!("socket:[{inode}]"))
                })
                .count();
            assert!(role == "manager" || held == 0, "{role} holds {held} listeners");
        }
    }
    shop.stop();
}
