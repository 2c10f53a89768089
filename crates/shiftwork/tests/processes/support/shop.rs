//! A shop of a test's own: started, spoken to, and stopped.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::command::run;
use super::http::{Broken, Client};
use super::processes;
pub(crate) use super::site::Site;
pub(crate) use super::told::{Process, Reloaded, Status};
use super::wait::{LONG, within};

/// From a site to a shop.
impl Site {
    /// Starts in the foreground and returns when the shop serves.
    #[track_caller]
    pub(crate) fn start(self) -> Shop {
        let command = self.command(&["start"]);
        self.start_by(command, true)
    }

    /// As [`start`](Self::start), by a command that may be another program, which then is not the
    /// master itself.
    #[track_caller]
    pub(crate) fn start_by(self, mut command: Command, itself: bool) -> Shop {
        let output = File::create(self.path("terminal")).expect("a file for the output");
        command.stdin(if itself { Stdio::null() } else { Stdio::piped() });
        command.stdout(output.try_clone().expect("the same file")).stderr(output);
        self.started(command, itself)
    }

    /// As [`start_by`](Self::start_by), with the command's own stdin, stdout and stderr.
    #[track_caller]
    pub(crate) fn started(self, mut command: Command, itself: bool) -> Shop {
        let child = command.spawn().expect("start the shop");
        // The command holds descriptors of its own until it is dropped.
        drop(command);
        let pid = if itself { child.id() as i32 } else { 0 };
        Shop::begun(self, Some(child), pid)
    }

    /// Starts in the background; the command returns when the shop serves.
    #[track_caller]
    pub(crate) fn daemon(self) -> Shop {
        let command = self.command(&["start", "-d"]);
        self.daemon_by(command)
    }

    /// As [`daemon`](Self::daemon), by this command.
    #[track_caller]
    pub(crate) fn daemon_by(self, mut command: Command) -> Shop {
        run(&mut command).expect(0);
        Shop::begun(self, None, 0)
    }
}

/// A shop that has been started.
pub(crate) struct Shop {
    pub(crate) site: Site,
    /// The command that started it, if that is still there.
    pub(crate) child: Option<Child>,
    /// Pid of the master.
    pub(crate) pid: i32,
    web: Option<SocketAddr>,
    till: Option<SocketAddr>,
}

impl Shop {
    /// Two workers, one task worker, in the foreground.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Site::new().start()
    }

    /// One that a site's command has begun to start: returns when it serves.
    #[track_caller]
    fn begun(site: Site, child: Option<Child>, pid: i32) -> Self {
        let mut shop = Self { site, child, pid, web: None, till: None };
        shop.learn();
        shop
    }

    /// Waits until it serves, and notes pid and addresses.
    #[track_caller]
    fn learn(&mut self) {
        let begun = Instant::now();
        let status = loop {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().expect("look after the shop")
            {
                panic!("the shop ended with {status}");
            }
            if self.site.path("run/shop.sock").exists()
                && let Some(status) = self.try_status()
                && status.generation > 0
                && !status.listeners.is_empty()
                && status.state != "starting"
            {
                break status;
            }
            assert!(begun.elapsed() < LONG, "the shop does not become ready");
            std::thread::sleep(Duration::from_millis(5));
        };
        if self.pid != 0 {
            assert_eq!(status.pid, self.pid, "the status tells another pid");
        }
        self.pid = status.pid;
        let address = |name| {
            status.listeners.iter().find(|l| l.name == name).and_then(|l| l.address.parse().ok())
        };
        (self.web, self.till) = (address("web"), address("till"));
    }

    #[track_caller]
    pub(crate) fn web(&self) -> SocketAddr {
        self.web.expect("a web listener on TCP")
    }

    #[track_caller]
    pub(crate) fn till(&self) -> SocketAddr {
        self.till.expect("a till on TCP")
    }

    /// A new connection to the web listener.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.web()).expect("connect")
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Result<super::http::Response, Broken> {
        Client::connect(self.web())?.get(path)
    }

    /// Blocks the only worker for so long, and returns when it answers nobody any more.
    #[track_caller]
    pub(crate) fn block(&self, ms: u64) -> Client {
        let mut blocked = self.client();
        let request = format!("GET /block?ms={ms} HTTP/1.1\r\nhost: shop\r\n\r\n");
        blocked.send(request.as_bytes()).expect("ask for a block");
        within(LONG, "the worker is blocked", || {
            let mut probe = self.client();
            probe.set_patience(Duration::from_millis(100)).expect("a timeout");
            (probe.get("/hello").err() == Some(Broken::TimedOut)).then_some(())
        });
        blocked
    }

    fn try_status(&self) -> Option<Status> {
        let ended = self.site.run(&["status", "--json"]);
        (ended.code == 0).then(|| {
            let mut status: Status = serde_json::from_str(&ended.stdout)
                .unwrap_or_else(|error| panic!("{error} in the status: {}", ended.stdout));
            status.parked = status.processes.extract_if(.., |it| it.state == "parked").collect();
            status
        })
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        self.try_status().expect("a status")
    }

    /// Waits until the status is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Status {
        within(LONG, what, || self.try_status().filter(|status| holds(status)))
    }

    /// Writes a setting to the file; a reload will read it.
    pub(crate) fn put(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.site.put(key, value);
    }

    /// Takes a setting out of the file.
    pub(crate) fn remove(&mut self, key: &str) {
        self.site.remove(key);
    }

    /// The command `reload --json`, with more arguments.
    #[track_caller]
    pub(crate) fn reload_with(&self, arguments: &[&str]) -> Reloaded {
        self.outcome_of(&[&["reload", "--json"], arguments].concat())
    }

    /// The command `rollback --json`.
    #[track_caller]
    pub(crate) fn rollback(&self) -> Reloaded {
        self.outcome_of(&["rollback", "--json"])
    }

    #[track_caller]
    fn outcome_of(&self, arguments: &[&str]) -> Reloaded {
        let ended = self.site.run(arguments);
        let mut reloaded: Reloaded = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error} in the outcome: {ended:?}"));
        reloaded.code = ended.code;
        reloaded
    }

    /// A reload that must be committed.
    #[track_caller]
    pub(crate) fn reload(&self) -> Reloaded {
        let reloaded = self.reload_with(&[]);
        assert_eq!((reloaded.code, reloaded.outcome.as_str()), (0, "committed"), "{reloaded:?}");
        reloaded
    }

    /// A reload that must fail and change nothing: same generation, same workers.
    #[track_caller]
    pub(crate) fn reload_fails(&self) -> Reloaded {
        // What an earlier reload has left behind is not what this one is about.
        let before = self.until("only one generation is left", |status| {
            let of = status.generation;
            status.processes.iter().all(|p| p.generation.is_none_or(|g| g == 0 || g == of))
        });
        let reloaded = self.reload_with(&[]);
        assert_eq!(reloaded.code, 1, "{reloaded:?}");
        assert_ne!(reloaded.outcome, "committed", "{reloaded:?}");
        let generation = before.generation;
        let after = self.until("only the old generation is left", |status| {
            status.processes.iter().all(|p| p.generation.is_none_or(|g| g == 0 || g == generation))
        });
        assert_eq!(after.generation, generation);
        for role in ["master", "manager", "template", "worker", "task_worker"] {
            let pids = |status: &Status| {
                let mut pids: Vec<_> = status.role(role).iter().map(|p| p.pid).collect();
                pids.sort_unstable();
                pids
            };
            assert_eq!(pids(&before), pids(&after), "{role}");
        }
        for _ in 0..4 {
            assert_eq!(self.get("/hello").expect("an answer").generation(), generation);
        }
        reloaded
    }

    /// Sends a signal to the master.
    pub(crate) fn signal(&self, signo: i32) {
        processes::send(self.pid, signo);
    }

    /// Waits for the command that started it in the foreground to end: its exit status, -1 if a signal ended it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let child = self.child.as_mut().expect("a shop in the foreground");
        let status =
            within(LONG, "the shop ends", || child.try_wait().expect("look after the shop"));
        status.code().unwrap_or(-1)
    }

    /// Stops it by command; exit status 0, nothing left.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.site.run(&["stop"]).expect(0);
        assert!(!processes::alive(self.pid), "stop has returned, and the master is there");
        if self.child.is_some() {
            assert_eq!(self.wait(), 0, "exit status of the master");
        }
        self.site.assert_nothing_left();
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub(crate) fn wait_log(&self, what: &str) {
        within(LONG, &format!("the log says {what:?}"), || {
            self.site.log().contains(what).then_some(())
        });
    }
}

impl Shop {
    /// The site of a shop whose master has ended, for another start; what still drains goes on.
    pub(crate) fn leave_site(mut self) -> Site {
        self.child = None;
        std::mem::replace(&mut self.site, Site::empty())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        processes::kill_all(self.site.folder());
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}
