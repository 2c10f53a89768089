//! `chroot`: your code sees one folder, and everything goes on as before.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use shiftwork_sys::user;

use crate::support::load::Load;
use crate::support::not_tried;
use crate::support::shop::Site;

/// A site with a jail in it, whose books belong to nobody.
fn jailed() -> Option<(Site, PathBuf)> {
    if user::effective_uid() != 0 {
        not_tried("only root can change its root directory");
        return None;
    }
    let Ok(Some(nobody)) = user::resolve(Some("nobody"), None) else {
        not_tried("there is no user nobody");
        return None;
    };
    let site = Site::new()
        .with("server.chroot", "jail")
        .with("server.user", "nobody")
        .with("app.ledger", "/books/shop.sqlite");
    let jail = site.path("jail");
    fs::create_dir_all(jail.join("books")).unwrap();
    chown(jail.join("books"), Some(nobody.uid), Some(nobody.gid)).unwrap();
    Some((site, jail))
}

#[test]
fn a_jailed_server_serves_reloads_and_fills_its_slots() {
    let Some((site, jail)) = jailed() else { return };
    let shop = site.daemon();
    let mut client = shop.client();
    assert_eq!(client.post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap().status, 201);
    assert!(jail.join("books/shop.sqlite").exists());

    let load = Load::keep_alive(shop.web(), 2);
    load.wait_more(50);
    // The executable, the settings and their folder are outside.
    shop.reload();
    load.wait_more(50);
    let status = shop.until("the old generation is gone", |it| {
        it.role("template").len() == 1 && it.role("worker").len() == 2
    });
    let victim = status.role("worker")[0].pid;
    load.finish().assert_flawless();
    let inside = fs::metadata(&jail).unwrap().ino();
    for role in ["template", "worker", "task_worker"] {
        for process in status.role(role) {
            let root = fs::metadata(format!("/proc/{}/root/", process.pid)).unwrap();
            assert_eq!(root.ino(), inside, "{process:?}");
            let cwd = fs::metadata(format!("/proc/{}/cwd/", process.pid)).unwrap();
            assert_eq!(cwd.ino(), inside, "{process:?}");
        }
    }
    let outside = fs::metadata("/").unwrap().ino();
    for role in ["master", "manager"] {
        let root = fs::metadata(format!("/proc/{}/root/", status.one(role))).unwrap();
        assert_eq!(root.ino(), outside, "{role}");
    }
    // No folder outside is held open: it would be a way out.
    for process in status.role("worker") {
        for entry in fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap() {
            let link = entry.unwrap().path();
            assert!(!fs::metadata(&link).is_ok_and(|it| it.is_dir()), "{:?}", fs::read_link(link));
        }
    }
    crate::support::processes::send(victim, shiftwork_sys::signal::KILL);
    shop.until("the slot is filled again", |status| {
        let workers = status.role("worker");
        workers.len() == 2 && workers.iter().all(|it| it.pid != victim && it.state == "serving")
    });
    assert_eq!(client.get("/hello").or_else(|_| shop.get("/hello")).unwrap().status, 200);
    shop.stop();
}

#[test]
fn what_a_jail_lacks_fails_the_start() {
    let Some((site, jail)) = jailed() else { return };
    let site = site.with("server.chroot", "no/such/folder");
    let said = site.fails();
    assert!(said.contains("server.chroot") && said.contains("no/such/folder"), "{said}");

    let site = site.with("server.chroot", "jail").with("server.max_memory", "100MiB");
    let said = site.fails();
    assert!(said.contains("server.chroot") && said.contains("max_memory"), "{said}");
    assert!(!jail.join("proc").exists());
}

#[test]
fn without_root_it_says_so() {
    if user::effective_uid() != 0 {
        let said = Site::new().with("server.chroot", ".").fails();
        assert!(said.contains("server.chroot") && said.contains("only root"), "{said}");
        return;
    }
    let Ok(Some(nobody)) = user::resolve(Some("nobody"), None) else {
        return not_tried("there is no user nobody");
    };
    let site = Site::new().with("server.chroot", ".").with("server.run_dir", "run");
    let folder = site.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = site.command(&["start", "-d"]);
    std::os::unix::process::CommandExt::uid(&mut command, nobody.uid);
    let ended = crate::support::command::run(&mut command).expect(1);
    assert!(ended.said().contains("only root can change its root directory"), "{ended:?}");
    site.assert_nothing_left();
}
