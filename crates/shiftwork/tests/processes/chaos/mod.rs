//! The test of the promises: everybody uses the server, while everything happens to it.
//!
//! Each run prints its seed. `CHAOS_SEED` repeats the plan of one, `CHAOS_SECONDS` sets its length
//! (each of the two tests takes so long), `CHAOS_VERBOSE` prints each event as it comes. A long run:
//!
//! ```text
//! CHAOS_SECONDS=1800 cargo test --release -p shiftwork --test processes chaos -- --nocapture
//! ```

mod clients;
mod judge;
mod plan;
mod talkers;

use std::env;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shiftwork_sys::signal;

use self::clients::Scene;
use self::judge::{Death, Witness};
use self::plan::{Broken, Dice, Event, Victim};
use crate::support::binary;
use crate::support::command::Ended;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site, Status};
use crate::support::wait::{LONG, within};

#[test]
fn without_a_kill_nobody_notices_anything() {
    chaos(false);
}

#[test]
fn with_kills_only_what_one_worker_had_in_hand_is_lost() {
    chaos(true);
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

fn chaos(kills: bool) {
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos() as u64);
    let seed = variable("CHAOS_SEED").unwrap_or_else(clock);
    let length = Duration::from_secs(variable("CHAOS_SECONDS").unwrap_or(30));
    println!("CHAOS_SEED={seed}");
    let mut dice = Dice::new(seed);
    let site = Site::new()
        .with("server.worker_num", 3)
        .with("server.task_worker_num", 2)
        .with("server.max_generations", 8)
        .with("server.max_request", 20_000)
        // Which of two is slower is decided by the machine, that runs all this at once.
        .with("server.canary_max_slowdown", 0.0)
        .with("limits.idle_timeout", "10m");
    site.release("second", &binary::second());
    let mut shop = site.start();
    shop.site.type_apart();
    let witness = Arc::new(Witness::default());
    let scene = Scene { web: shop.web(), till: shop.till(), witness: witness.clone() };
    let _over = Over(witness.clone());
    let clients = clients::employ(&scene, &mut dice);
    let mut world = World { shop, witness, workers: 3, set: 3, releases: 1, story: Vec::new() };
    let begun = Instant::now();
    while begun.elapsed() < length {
        let event = plan::next(&mut dice, kills);
        world.story.push(event.to_string());
        if env::var_os("CHAOS_VERBOSE").is_some() {
            println!("{:9.3} {event}", begun.elapsed().as_secs_f64());
        }
        world.perform(&event);
        world.everybody_is_served();
        world.judge(kills);
    }
    world.witness.end();
    for client in clients {
        client.join().expect("a client panicked");
    }
    world.judge(kills);
    println!(
        "CHAOS_SEED={seed}: {} events, {} deaths of workers, {} failures; answers: {:?}",
        world.story.len(),
        world.witness.deaths(),
        world.witness.failures(),
        world.witness.answers()
    );
    let shop = &world.shop;
    within(LONG, "all that was paid is shipped", || {
        let sums = shop.get("/orders").ok()?.json();
        (sums["paid"] == sums["shipped"]).then_some(())
    });
    world.shop.stop();
}

/// The clients go home even if the test fails.
struct Over(Arc<Witness>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The server, and what has happened to it.
struct World {
    shop: Shop,
    witness: Arc<Witness>,
    /// How many there are to be.
    workers: usize,
    /// How many the settings say.
    set: usize,
    releases: usize,
    story: Vec<String>,
}

impl World {
    fn perform(&mut self, event: &Event) {
        match event {
            Event::Workers(count) => {
                self.shop.put("server.worker_num", *count as i64);
                self.committed(&["reload"]);
                // What was scaled holds until the setting changes.
                if *count == self.set && *count != self.workers {
                    self.committed(&["scale", &count.to_string()]);
                }
                (self.set, self.workers) = (*count, *count);
            }
            Event::Scale(count) => {
                self.committed(&["scale", &count.to_string()]);
                self.workers = *count;
            }
            Event::Proof { canary, observed } => {
                let requests = if *canary { 20 } else { 0 };
                self.shop.put("server.canary_requests", requests);
                self.shop.put("server.observe_time", if *observed { "300ms" } else { "0s" });
                self.committed(&["reload"]);
            }
            Event::Rollback => {
                self.committed(&["reload"]);
                self.committed(&["rollback"]);
            }
            Event::Release => {
                self.install();
                self.committed(&["reload"]);
            }
            Event::Upgrade => {
                self.install();
                self.committed(&["upgrade"]);
            }
            Event::Broken(how) => self.broken(*how),
            Event::Kill(victim) => self.kill(*victim),
            Event::KillInReload(victim, after) => {
                let site = &self.shop.site;
                thread::scope(|scope| {
                    scope.spawn(|| site.run(&["reload", "--json"]));
                    // The moment is the dice's; whatever the reload is at by then is right.
                    thread::sleep(Duration::from_millis(*after));
                    self.kill(*victim);
                });
            }
            Event::Together(events) => {
                let this = &*self;
                thread::scope(|scope| {
                    for event in events {
                        scope.spawn(move || this.simple(event));
                    }
                });
            }
            simple => self.simple(simple),
        }
    }

    /// What needs nothing but the server as it is.
    fn simple(&self, event: &Event) {
        match event {
            Event::Signals(count) => {
                for _ in 0..*count {
                    self.shop.signal(signal::USR1);
                }
            }
            Event::TaskWorkers => self.shop.signal(signal::USR2),
            Event::Retire => {
                if let Some(pid) = serving(&self.shop.status(), "worker").first() {
                    send(*pid, signal::TERM);
                }
            }
            Event::Upgrade => drop(self.committed(&["upgrade"])),
            _ => drop(self.committed(&["reload"])),
        }
    }

    fn committed(&self, command: &[&str]) -> Ended {
        let ended = self.shop.site.run(command);
        assert_eq!(ended.code, 0, "{command:?} after {:?}: {ended:?}", self.last());
        ended
    }

    /// Installs the other release.
    fn install(&mut self) {
        self.releases += 1;
        let site = &self.shop.site;
        match self.releases % 2 {
            0 => site.release("first", &binary::first()),
            _ => site.release("second", &binary::second()),
        }
    }

    /// A release that cannot be fails, and the next one is right again.
    fn broken(&mut self, how: Broken) {
        let current = fs::read_link(self.shop.site.path("current")).expect("a release");
        match how {
            Broken::Fault(fault) => self.shop.put("app.fault", fault),
            Broken::Settings => self.shop.site.write_settings("[server\nworker_num = 2"),
            Broken::Executable => {
                let garbage = self.shop.site.path("garbage");
                fs::write(&garbage, "nothing that could be executed").expect("a file");
                self.shop.site.release("garbage", &garbage);
            }
        }
        let command = if self.releases.is_multiple_of(2) { "reload" } else { "upgrade" };
        // The settings file cannot lead to the server when it cannot be read.
        let socket = self.shop.site.path("run/shop.sock");
        let socket = socket.to_str().expect("a path in UTF-8");
        let ended = self.shop.site.run(&[command, "--json", "--control", socket]);
        assert_eq!(ended.code, 1, "{how:?} after {:?}: {ended:?}", self.last());
        self.shop.put("app.fault", "none");
        let name = current.file_name().and_then(|it| it.to_str()).expect("a name").to_owned();
        let release = if name == "second" { binary::second() } else { binary::first() };
        self.shop.site.release(&name, &release);
    }

    fn kill(&self, victim: Victim) {
        let status = self.shop.status();
        let (role, whole) = match victim {
            Victim::Worker => ("worker", None),
            Victim::TaskWorker => ("task_worker", None),
            Victim::Template => {
                ("template", status.pids("template", status.generation).first().copied())
            }
            Victim::Manager => ("manager", Some(status.one("manager"))),
        };
        let Some(pid) = whole.or_else(|| serving(&status, role).first().copied()) else { return };
        if victim == Victim::Worker {
            let held = status.processes.iter().find(|it| it.pid == pid);
            let connections = held.map_or(0, |it| it.connections);
            self.witness.died(Death { at: Instant::now(), pid, connections });
        }
        send(pid, signal::KILL);
        wait_gone(pid);
    }

    /// Waits until all processes are there, nothing is under way, and each kind of client has got an
    /// answer since.
    fn everybody_is_served(&self) {
        let what = format!("the server is whole again after {:?}", self.last());
        self.shop.until(&what, |status| {
            let all = |role, number: usize| serving(status, role).len() >= number;
            status.state == "serving"
                && status.role("manager").len() == 1
                && all("worker", self.workers)
                && all("task_worker", 2)
        });
        let before = self.witness.answers();
        within(LONG, "every client is answered", || {
            let now = self.witness.answers();
            let more = now.iter().filter(|(name, count)| before.get(*name) < Some(count)).count();
            (more == now.len() && more > 0).then_some(())
        });
    }

    fn judge(&self, kills: bool) {
        let wrong = self.witness.unexplained();
        assert!(wrong.is_empty(), "after {:?}: {} {wrong:#?}", self.last(), wrong.len());
        assert!(kills || self.witness.failures() == 0);
    }

    fn last(&self) -> &[String] {
        &self.story[self.story.len().saturating_sub(5)..]
    }
}

/// Pids of those of a role that serve. Task workers can be of a later generation than workers.
fn serving(status: &Status, role: &str) -> Vec<i32> {
    let serves = |it: &&crate::support::shop::Process| it.role == role && it.state == "serving";
    status.processes.iter().filter(serves).map(|it| it.pid).collect()
}
