//! No descriptors, no processes, no room for the log: the server serves on with what it has, and is
//! itself again when there is more.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shiftwork_sys::signal;

use crate::support::http::{Broken, Client};
use crate::support::load::Load;
use crate::support::not_tried;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::Site;
use crate::support::wait::until;

fn ask(clients: &mut [Client]) {
    for client in clients {
        client.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    }
}

#[test]
fn without_descriptors_clients_wait_and_are_served_later() {
    let shop = Site::new().with("server.worker_num", 1).with("server.open_files", 64).start();
    let mut clients: Vec<Client> = (0..100).map(|_| shop.client()).collect();
    ask(&mut clients);
    shop.wait_log("cannot accept on listener web");
    let mut late: Vec<Client> = Vec::new();
    let mut served: Vec<Client> = Vec::new();
    for mut client in clients {
        client
            .set_patience(Duration::from_millis(if late.is_empty() { 1_000 } else { 20 }))
            .unwrap();
        match client.receive() {
            Ok(_) => served.push(client),
            Err(Broken::TimedOut) => late.push(client),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(served.len() >= 20 && late.len() >= 36, "{} and {}", served.len(), late.len());
    // Those who are in are served as ever.
    for client in &mut served {
        assert_eq!(client.get("/hello").unwrap().status, 200);
    }
    drop(served);
    for mut client in late {
        client.set_patience(Duration::from_secs(20)).unwrap();
        assert_eq!(client.receive().unwrap().status, 200);
    }
    shop.wait_log("accepting on listener web again");
    // Each time that it begins, and not each time that it is tried.
    assert!(shop.site.log().matches("cannot accept on listener web").count() <= 4);
    let load = Load::keep_alive(shop.web(), 4);
    shop.reload();
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}

/// A user of this test's own.
const USER: u32 = 61_234;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Sets how many processes the user of a process may have before it can fork no more, and gives how
/// many it was. Nobody but that user may ask for it, root included in some containers.
fn allow_processes(pid: i32, most: &str) -> String {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg("--pid").arg(pid.to_string()).args(arguments);
        if is_root() {
            command.uid(USER).gid(USER);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let before = run(&["--nproc", "--output=SOFT", "--noheadings"]);
    run(&[&format!("--nproc={most}:")]);
    before
}

#[test]
fn without_processes_the_others_serve_on_and_the_fork_is_tried_again() {
    let mut site = Site::new();
    // Root may always fork.
    if is_root() {
        site.put("server.user", USER.to_string());
        site.put("server.group", USER.to_string());
        chown(site.path(""), Some(USER), None).unwrap();
    }
    let shop = site.start();
    let status = shop.status();
    let (template, workers) = (status.one("template"), status.pids("worker", 1));
    let mut survivor = shop.client();
    let owner = survivor.get("/hello").unwrap().worker_pid();
    let victim = workers.into_iter().find(|it| *it != owner).unwrap();
    let before = allow_processes(template, "1");
    send(victim, signal::KILL);
    wait_gone(victim);
    shop.wait_log("could not be forked");
    shop.wait_log("in a row, it is replaced in");
    for _ in 0..20 {
        assert_eq!(survivor.get("/hello").unwrap().worker_pid(), owner);
    }
    let forks = shop.site.log().matches("could not be forked").count();
    assert!(forks < 30, "{forks} attempts in a moment");
    allow_processes(template, &before);
    shop.until("the worker is back", |status| {
        status.role("worker").iter().filter(|it| it.state == "serving").count() == 2
    });
    let load = Load::per_request(shop.web(), 4);
    load.wait_more(50);
    load.finish().assert_flawless();
    shop.stop();
}

/// A file system of its own that is full.
struct Full<'a> {
    folder: &'a Path,
}

impl<'a> Full<'a> {
    /// None: only root can make one.
    fn mount(folder: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(folder);
        mount.output().ok()?.status.success().then_some(Self { folder })
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.folder.join("filler")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        // The log has room up to the end of its last page.
        let mut log = fs::File::options().append(true).open(self.folder.join("shop.log")).unwrap();
        while log.write_all(b"\n").is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder).output();
    }
}

#[test]
fn without_room_for_the_log_lines_are_lost_and_nothing_else() {
    let site = Site::new().with("server.log_file", "logs/shop.log");
    let folder = site.path("logs");
    fs::create_dir(&folder).unwrap();
    let Some(disk) = Full::mount(&folder) else {
        return not_tried("this user cannot mount a small disk");
    };
    let shop = site.daemon();
    let log = || fs::read_to_string(folder.join("shop.log")).unwrap();
    let loads = [Load::keep_alive(shop.web(), 2), Load::orders(shop.web(), 2, 0)];
    disk.fill();
    let before = log();
    for generation in 2..=4 {
        assert_eq!(shop.reload().generation, generation);
    }
    let victim = shop.status().pids("worker", 4)[0];
    send(victim, signal::TERM);
    wait_gone(victim);
    loads.iter().for_each(|load| load.wait_more(10));
    assert!(!log().contains("generation 4 is committed"), "the disk was not full");
    disk.empty();
    assert_eq!(shop.reload().generation, 5);
    until("the log goes on", || log().contains("generation 5 is committed"));
    assert!(log().contains("could not be logged)"), "{}", log());
    assert!(log().starts_with(&before));
    for load in loads {
        load.finish().assert_flawless();
    }
    shop.stop();
}

/// How long the files may become that a process writes to; None: as long as they like.
fn limit_files(pid: i32, bytes: Option<u64>) {
    let bytes = bytes.map_or_else(|| "unlimited".to_owned(), |it| it.to_string());
    let mut limit = Command::new("prlimit");
    limit.arg("--pid").arg(pid.to_string()).arg(format!("--fsize={bytes}:"));
    assert!(limit.status().unwrap().success());
}

#[test]
fn neither_master_nor_manager_mind_a_log_that_may_not_grow() {
    // More than what the manager keeps in memory files.
    const FULL: u64 = 256 * 1024 * 1024;
    let site = Site::new().with("server.log_file", "full.log");
    let log = site.path("full.log");
    fs::File::create(&log).unwrap().set_len(FULL).unwrap();
    let shop = site.daemon();
    let before = shop.status();
    // Those who come later inherit it.
    before.processes.iter().for_each(|it| limit_files(it.pid, Some(FULL)));
    let length = fs::metadata(&log).unwrap().len();
    let load = Load::keep_alive(shop.web(), 4);
    shop.reload();
    shop.signal(signal::rtmin());
    shop.site.run(&["upgrade"]).expect(0);
    let after = shop.status();
    assert_eq!(after.one("manager"), before.one("manager"));
    assert_eq!(after.generation, 3);
    load.wait_more(20);
    load.finish().assert_flawless();
    assert_eq!(fs::metadata(&log).unwrap().len(), length);
    shop.stop();
}

#[test]
fn a_manager_that_cannot_write_down_what_it_knows_is_not_upgraded() {
    let shop = Site::new().daemon();
    let before = shop.status();
    let manager = before.one("manager");
    limit_files(manager, Some(1024 * 1024));
    let said = shop.site.run(&["upgrade"]).expect(1).stderr;
    assert!(said.contains("where things stand cannot be written down"), "{said}");
    let load = Load::keep_alive(shop.web(), 4);
    assert_eq!(shop.reload().generation, 2);
    assert_eq!(shop.status().one("manager"), manager);
    limit_files(manager, None);
    shop.site.run(&["upgrade"]).expect(0);
    assert_eq!(shop.status().generation, 3);
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}

#[test]
fn a_log_that_may_not_grow_ends_nobody() {
    let shop = Site::new().with("server.max_wait_time", "100ms").daemon();
    let status = shop.status();
    let pids: Vec<i32> = status.pids("worker", 1);
    pids.iter().for_each(|pid| limit_files(*pid, Some(1)));
    let load = Load::keep_alive(shop.web(), 4);
    // Something for each of them to say: what is cut at the deadline.
    let mut cut: Vec<Client> = Vec::new();
    while cut.len() < 8 {
        let mut client = shop.client();
        client.send(b"GET /slow?ms=20000 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
        cut.push(client);
    }
    shop.until("all are in hand", |status| {
        status.role("worker").iter().map(|it| it.in_flight).sum::<u64>() >= 8
    });
    shop.reload();
    pids.into_iter().for_each(wait_gone);
    load.wait_more(20);
    load.finish().assert_flawless();
    let log = shop.site.log();
    assert!(!log.contains("was ended by signal"), "they exited by themselves");
    shop.stop();
}
