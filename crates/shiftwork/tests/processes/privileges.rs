//! What a server may do and show: users, modes, descriptors.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::command::run;
use crate::support::not_tried;
use crate::support::shop::{Shop, Site, Status};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A field of /proc/PID/status, in words.
fn told(pid: i32, field: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_run_folder_is_private() {
    let shop = Shop::start();
    assert_eq!(mode(&shop.site.path("run")), 0o700);
    assert_eq!(mode(&shop.site.path("run/shop.sock")), 0o600);
    shop.stop();
}

#[test]
fn a_run_folder_that_others_may_enter_is_refused() {
    let site = Site::new();
    let folder = site.path("run");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let ended = site.run(&["start", "-d"]);
    match ended.code {
        // Made private is as good as refused.
        0 => {
            assert_eq!(mode(&folder), 0o700);
            site.run(&["stop"]).expect(0);
        }
        code => {
            assert_eq!(code, 1, "{ended:?}");
            assert!(ended.said().contains("run"), "{ended:?}");
        }
    }
    site.assert_nothing_left();
}

#[test]
fn privileges_are_dropped_before_preload() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return not_tried("only root has privileges to drop");
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let Some(nobody) = passwd.lines().find(|line| line.starts_with("nobody:")) else {
        return not_tried("there is no user nobody");
    };
    let fields: Vec<&str> = nobody.split(':').collect();
    let (uid, gid) = (fields[2], fields[3]);

    let site = Site::new().with("server.user", "nobody").with("app.ledger", "books/shop.sqlite");
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let books = site.path("books");
    fs::create_dir(&books).unwrap();
    chown(&books, Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
    // Root has groups of its own, which go as well.
    let start = site.command(&["start", "-d"]);
    let mut grouped = Command::new("setpriv");
    grouped.arg("--groups=54321").arg(start.get_program()).args(start.get_args());
    grouped.current_dir(site.path(""));
    let shop = site.daemon_by(grouped);
    assert_eq!(told(shop.pid, "Groups"), ["54321"]);
    shop.reload();
    let mut client = shop.client();
    assert_eq!(client.post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap().status, 201);
    let status = shop.until("one generation is left", Status::is_of_one_generation);
    for role in ["template", "worker", "task_worker"] {
        for process in status.role(role) {
            assert_eq!(told(process.pid, "Uid"), [uid; 4], "{process:?}");
            assert_eq!(told(process.pid, "Gid"), [gid; 4], "{process:?}");
            assert!(told(process.pid, "Groups").iter().all(|group| group == gid), "{process:?}");
        }
    }
    assert_eq!(told(status.one("manager"), "Uid")[0], "0");
    assert_eq!(fs::metadata(books.join("shop.sqlite")).unwrap().uid().to_string(), uid);
    shop.stop();
}

#[test]
fn the_control_socket_answers_its_own_user_alone() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return not_tried("only root can be somebody else");
    }
    let shop = Shop::start();
    // Somebody has been generous with the folder and the socket.
    for (name, mode) in [("", 0o755), ("run", 0o755), ("run/shop.sock", 0o666)] {
        fs::set_permissions(shop.site.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for command in ["status", "reload", "stop", "history", "metrics"] {
        let ended = run(shop.site.command(&[command]).uid(54_321).gid(54_321)).expect(4);
        assert!(ended.stdout.is_empty(), "{command}: {ended:?}");
    }
    assert_eq!(shop.status().generation, 1);
    shop.stop();
}

#[test]
fn umask_holds_for_what_runs_the_code_and_goes_with_its_release() {
    let site = Site::new().with("server.umask", "0027").with("listen.till.address", "unix:till");
    let mut shop = site.start();
    let status = shop.status();
    let inherited = told(status.one("manager"), "Umask");
    let below = status.processes.iter().filter(|it| it.generation.is_some());
    below.for_each(|it| assert_eq!(told(it.pid, "Umask"), ["0027"], "{it:?}"));
    assert_eq!(mode(&shop.site.path("shop.sqlite")) & 0o027, 0);
    assert_eq!(mode(&shop.site.path("till")) & 0o777, 0o750);
    // Without the setting it is that of the start again, whatever the release before had.
    shop.remove("server.umask");
    shop.reload();
    let status = shop.until("the old ones are gone", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it == 2))
    });
    status.processes.iter().for_each(|it| assert_eq!(told(it.pid, "Umask"), inherited, "{it:?}"));
    shop.stop();
}

#[test]
fn a_daemon_keeps_no_descriptor_of_its_launcher() {
    let site = Site::new();
    let leak = site.path("leak");
    let typed = format!(
        "exec 9>'{0}' 0<'{0}'; exec '{1}' start -d --config '{2}'",
        leak.display(),
        site.path("current/shop").display(),
        site.config().display()
    );
    run(Command::new("sh").args(["-c", &typed])).expect(0);
    for pid in crate::support::processes::below(&site.path("").canonicalize().unwrap()) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let link = fs::read_link(entry.unwrap().path()).unwrap_or_default();
            assert_ne!(link, leak, "kept by {pid}");
        }
    }
    site.run(&["stop"]).expect(0);
    site.assert_nothing_left();
}
