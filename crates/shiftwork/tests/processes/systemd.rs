//! Under a service manager, of which this test plays the part: the notify socket, sockets that it
//! opens, sockets that it keeps.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shiftwork_sys::signal;
use shiftwork_sys::socket::Channel;

use crate::support::http::Client;
use crate::support::load::Load;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, until, within};

/// What listens on the notify socket.
struct Manager {
    socket: Channel,
    name: OsString,
    said: Vec<Said>,
}

/// A datagram.
#[derive(Debug)]
struct Said {
    at: Instant,
    text: String,
    fds: Vec<OwnedFd>,
}

impl Said {
    fn value(&self, key: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Manager {
    fn at_path(site: &Site) -> Self {
        let path = site.path("notify");
        Self::of(UnixDatagram::bind(&path).unwrap(), path.into())
    }

    fn by_name(name: &str) -> Self {
        let name = format!("shiftwork-{name}-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        Self::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}").into())
    }

    fn of(socket: UnixDatagram, name: OsString) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self { socket: Channel::from_fd(socket.into()), name, said: Vec::new() }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(received) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..received.len].to_vec()).unwrap();
            self.said.push(Said { at: Instant::now(), text, fds: received.fds });
        }
    }

    /// Waits for a datagram that begins so, after the first `from` ones; gives its number.
    #[track_caller]
    fn wait(&mut self, from: usize, beginning: &str) -> usize {
        within(LONG, &format!("it says {beginning}"), || {
            self.read();
            (from..self.said.len()).find(|index| self.said[*index].text.starts_with(beginning))
        })
    }

    /// Starts a shop that has `sockets`, under these names, from its third descriptor on.
    fn start(&self, site: Site, sockets: Vec<(&str, OwnedFd)>, store: u32) -> Shop {
        let own = site.command(&["start"]);
        let mut command = Command::new("sh");
        let (names, mut sockets): (Vec<&str>, Vec<OwnedFd>) = sockets.into_iter().unzip();
        assert!(sockets.len() <= 3, "they go by stdin, stdout and stderr");
        let mut script = String::from("exec ");
        (0..sockets.len()).for_each(|it| script.push_str(&format!("{}<&{it} ", it + 3)));
        script.push_str("0</dev/null 1>terminal 2>&1; LISTEN_PID=$$ exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(own.get_program()).args(own.get_args());
        command.current_dir(site.path(""));
        command.env("NOTIFY_SOCKET", &self.name).env("LISTEN_FDS", sockets.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":")).env("FDSTORE", store.to_string());
        command.env("WATCHDOG_USEC", "1000000");
        let mut next = || (!sockets.is_empty()).then(|| Stdio::from(sockets.remove(0)));
        command.stdin(next().unwrap_or_else(Stdio::null));
        command.stdout(next().unwrap_or_else(Stdio::null));
        command.stderr(next().unwrap_or_else(Stdio::null));
        site.started(command, true)
    }
}

fn now_us() -> u64 {
    shiftwork_sys::clock::monotonic_us()
}

/// Everything from the start to the stop.
fn a_life(mut manager: Manager, site: Site) {
    let mut shop = manager.start(site, Vec::new(), 0);
    let ready = manager.wait(0, "READY=1");
    assert_eq!(manager.said[ready].value("STATUS"), Some("generation 1 serves"));
    assert_eq!(manager.said[ready].value("MAINPID"), None);
    // Nobody below it takes the variables for its own.
    let template = shop.status().one("template");
    let environment = fs::read(format!("/proc/{template}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"] {
        assert!(!environment.contains(name), "{name}");
    }
    // A reload by signal, with its moment; and its end. Whoever has started it is the manager.
    let before = now_us();
    shop.signal(signal::USR1);
    let reloading = manager.wait(ready + 1, "RELOADING=1\nMONOTONIC_USEC=");
    let moment: u64 = manager.said[reloading].value("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((before..=now_us()).contains(&moment));
    let ready = manager.wait(reloading, "READY=1");
    assert_eq!(manager.said[ready].value("STATUS"), Some("generation 2 serves"));
    let history = shop.site.run(&["history"]).expect(0).stdout;
    assert!(history.contains("USR1 from the service manager"), "{history}");
    // One by command that fails.
    shop.put("app.fault", "exit_at_start");
    shop.reload_fails();
    let reloading = manager.wait(ready + 1, "RELOADING=1");
    let ready = manager.wait(reloading, "READY=1");
    let status = manager.said[ready].value("STATUS").unwrap();
    assert!(status.starts_with("generation 2 serves on: "), "{status}");
    shop.put("app.fault", "none");
    // Master and manager replaced: the same to the service manager.
    let upgraded = shop.site.run(&["upgrade"]);
    upgraded.expect(0);
    let reloading = manager.wait(ready + 1, "RELOADING=1");
    let ready = manager.wait(reloading, "READY=1");
    assert!(shop.status().generation > 2);
    // A stop that takes a while.
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=2500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker").iter().any(|it| it.in_flight == 1));
    shop.signal(signal::TERM);
    let stopping = manager.wait(ready + 1, "STOPPING=1");
    manager.wait(stopping, "EXTEND_TIMEOUT_USEC=");
    assert_eq!(slow.receive().unwrap().text(), "done");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
    manager.read();
    assert!(manager.said.iter().all(|it| it.value("MAINPID").is_none() && it.fds.is_empty()));
    assert!(!manager.said[stopping..].iter().any(|it| it.text.contains("READY=1")));
    let alive: Vec<Instant> =
        manager.said.iter().filter(|it| it.text == "WATCHDOG=1").map(|it| it.at).collect();
    assert!(alive.len() >= 5, "every half second, while draining as well: {}", alive.len());
}

#[test]
fn it_is_told_what_happens_by_a_path() {
    let site = Site::new();
    a_life(Manager::at_path(&site), site);
}

#[test]
fn it_is_told_what_happens_by_an_abstract_name() {
    a_life(Manager::by_name("life"), Site::new());
}

#[test]
fn one_that_does_not_listen_is_no_trouble() {
    let site = Site::new();
    let manager = Manager::at_path(&site);
    fs::remove_file(site.path("notify")).unwrap();
    let shop = manager.start(site, Vec::new(), 8);
    shop.reload();
    shop.stop();
}

#[test]
fn a_daemon_tells_its_pid_once() {
    let site = Site::new();
    let mut manager = Manager::at_path(&site);
    let mut command = site.command(&["start", "-d"]);
    command.env("NOTIFY_SOCKET", &manager.name);
    assert!(command.output().unwrap().status.success());
    let ready = manager.wait(0, "READY=1");
    let pid = manager.said[ready].value("MAINPID").unwrap().parse().unwrap();
    assert!(fs::read_to_string(site.path("run/shop.pid")).unwrap().trim() == format!("{pid}"));
    site.run(&["reload"]).expect(0);
    let ready = manager.wait(ready + 1, "READY=1");
    assert_eq!(manager.said[ready].value("MAINPID"), None);
    let _: i32 = pid;
    site.run(&["stop"]).expect(0);
    site.assert_nothing_left();
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn sockets_that_it_opens_are_served_by_name() {
    for store in [0, 64] {
        let site = Site::new();
        let manager = Manager::at_path(&site);
        let (web, address) = listener();
        let (foreign, _) = listener();
        let kept = web.try_clone().unwrap();
        // A client that was there before the server.
        let mut early = Client::connect(address).unwrap();
        early.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
        let sockets = vec![("nobody", foreign.into()), ("web", web.into())];
        let mut shop = manager.start(site, sockets, store);
        assert_eq!(shop.web(), address);
        assert_eq!(early.receive().unwrap().status, 200);
        let load = Load::per_request(address, 4);
        shop.reload();
        shop.put("server.worker_num", 3);
        shop.reload();
        let mut pids = std::collections::BTreeSet::new();
        until("all workers accept", || {
            pids.insert(shop.get("/hello").unwrap().worker_pid());
            shop.status().pids("worker", 3).iter().all(|pid| pids.contains(pid))
        });
        load.wait_more(50);
        load.finish().assert_flawless();
        shop.stop();
        // With the service its store is emptied.
        drop(manager);
        // It is not closed by the server, nor shut: the next start serves who comes now.
        let stranger = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        kept.accept().unwrap();
        drop(stranger);
    }
}

/// Whether a process has a socket that listens at an address.
fn listens(pid: i32, address: SocketAddr) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    // See proc(5), /proc/net/tcp: 0A is LISTEN, the tenth field the inode.
    let port = format!(":{:04X}", address.port());
    let sockets: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&port) && fields[3] == "0A")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten()
        .filter_map(|it| fs::read_link(it.path()).ok())
        .any(|it| sockets.iter().any(|socket| it.as_os_str() == socket.as_str()))
}

/// Sockets that were given to be kept, by name.
fn kept(manager: &mut Manager) -> Vec<(String, OwnedFd)> {
    manager.read();
    let mut all = Vec::new();
    for said in &mut manager.said {
        if said.text.starts_with("FDSTORE=1") {
            assert_eq!(said.value("FDPOLL"), Some("0"));
            let name = said.value("FDNAME").unwrap().to_owned();
            assert!(!name.contains(':') && name.len() < 256, "{name}");
            all.extend(said.fds.drain(..).map(|fd| (name.clone(), fd)));
        }
    }
    all
}

#[test]
fn a_master_that_dies_loses_no_listener_and_no_client_that_waits() {
    let mut site = Site::new().with("server.worker_num", 1);
    let mut manager = Manager::at_path(&site);
    let (probe, web) = listener();
    drop(probe);
    site.put("listen.web.address", web.to_string());
    let mut shop = manager.start(site, Vec::new(), 64);
    let load = Load::per_request(web, 4);
    load.wait_more(50);
    let mut slow = shop.client();
    slow.send(b"GET /slow?ms=1500 HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker").iter().any(|it| it.in_flight >= 1));
    let stored = kept(&mut manager);
    assert_eq!(stored.len(), 2, "one each of web and till: {stored:?}");
    let old = shop.status().one("worker");
    shop.signal(signal::KILL);
    shop.wait();
    until("the old worker's door is closed", || !listens(old, web));
    // The port is open still; who comes now waits.
    let mut waiting = Client::connect(web).unwrap();
    waiting.send(b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    let again = shop.leave_site();
    let names: Vec<(&str, OwnedFd)> = stored
        .iter()
        .map(|(name, fd)| (name.as_str(), fd.as_fd().try_clone_to_owned().unwrap()))
        .collect();
    let shop = manager.start(again, names, 64);
    assert_eq!(shop.web(), web);
    assert_ne!(waiting.receive().unwrap().worker_pid(), old);
    let done = slow.receive().unwrap();
    assert_eq!((done.text().as_str(), done.worker_pid()), ("done", old), "in hand, and finished");
    wait_gone(old);
    load.wait_more(50);
    load.finish().assert_flawless();
    assert_eq!(shop.reload().generation, 2);
    shop.stop();
}

#[test]
fn slots_that_come_later_are_kept_as_well() {
    let site = Site::new().with("server.worker_num", 1);
    let mut manager = Manager::at_path(&site);
    let mut shop = manager.start(site, Vec::new(), 64);
    let mut stored = kept(&mut manager);
    let mut are_kept = |number: usize| {
        within(LONG, &format!("{number} each of web and till are kept"), || {
            stored.extend(kept(&mut manager));
            let of = |what: &str| stored.iter().filter(|(name, _)| name.contains(what)).count();
            (of("-web-") == number && of("-till-") == number).then_some(())
        });
    };
    are_kept(1);
    shop.site.run(&["scale", "2"]).expect(0);
    are_kept(2);
    // The next program gives none of them again.
    shop.site.run(&["upgrade"]).expect(0);
    shop.put("server.worker_num", 3);
    shop.reload();
    are_kept(3);
    // As soon as somebody may wait there: while the new generation is on trial.
    shop.put("server.worker_num", 4);
    shop.put("server.observe_time", "10m");
    shop.site.run(&["reload", "--until", "replaced"]).expect(0);
    are_kept(4);
    shop.stop();
}

#[test]
fn what_is_no_listener_any_more_is_not_kept() {
    let site = Site::new().with("server.worker_num", 1);
    let mut manager = Manager::at_path(&site);
    // Kept for an address that nobody has in the settings.
    let (old, _) = listener();
    let sockets = vec![("shiftwork-gone-127.0.0.1_1", old.into())];
    let mut shop = manager.start(site, sockets, 64);
    let removed = manager.wait(0, "FDSTOREREMOVE=1");
    assert_eq!(manager.said[removed].value("FDNAME"), Some("shiftwork-gone-127.0.0.1_1"));
    let before: Vec<String> = kept(&mut manager).into_iter().map(|(name, _)| name).collect();
    let (probe, address) = listener();
    drop(probe);
    shop.put("listen.web.address", address.to_string());
    shop.reload();
    let removed = manager.wait(removed + 1, "FDSTOREREMOVE=1");
    let gone = manager.said[removed].value("FDNAME").unwrap().to_owned();
    assert!(before.contains(&gone) && gone.starts_with("shiftwork-web-"), "{gone}");
    within(LONG, "the new one is kept", || {
        let new = format!("shiftwork-web-{address}").replace(':', "_");
        kept(&mut manager).iter().any(|(name, _)| *name == new).then_some(())
    });
    shop.stop();
}

#[test]
fn after_a_graceful_stop_a_kept_socket_is_served_again() {
    let mut site = Site::new().with("server.worker_num", 1);
    let mut manager = Manager::at_path(&site);
    let (probe, web) = listener();
    drop(probe);
    site.put("listen.web.address", web.to_string());
    let mut shop = manager.start(site, Vec::new(), 64);
    let stored = kept(&mut manager);
    send(shop.pid, signal::TERM);
    assert_eq!(shop.wait(), 0);
    let site = shop.leave_site();
    let (name, fd) = stored.into_iter().find(|(name, _)| name.contains("web")).unwrap();
    let shop = manager.start(site, vec![(name.as_str(), fd)], 64);
    let load = Load::per_request(web, 2);
    load.wait_more(20);
    load.finish().assert_flawless();
    shop.stop();
}
