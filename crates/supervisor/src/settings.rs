//! The settings that master and manager act on: the `[server]` table.
//!
//! Values only. Where they come from (file, environment, flags) and how a mistake in them is
//! explained is the framework's business; here they are typed, defaulted and checked against
//! each other.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use shiftwork_sys::listen::Address;

mod proving;

pub use proving::Inconclusive;

/// How the connections of an address reach its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ListenMode {
    /// One `SO_REUSEPORT` socket per worker slot: no contention, even balance.
    #[default]
    Slot,
    /// One socket for all workers: for handlers that block their thread.
    Shared,
}

/// How much is logged: this level and everything more severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs a person at once.
    Error,
    /// And what is odd.
    Warn,
    /// And what an operator wants to read afterwards.
    #[default]
    Info,
    /// And what a developer wants to read.
    Debug,
    /// Everything.
    Trace,
}

/// The `[server]` table. Names and meanings are Swoole's wherever Swoole has one.
///
/// Every field has a default; every path is absolute once the settings have been loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Worker processes, 1 to 1024. Default: the number of cores this process may use.
    pub worker_num: u32,
    /// Task worker processes, 0 to 1024. Default 0: no tasks.
    pub task_worker_num: u32,
    /// Put the server in the background. Default false.
    pub daemonize: bool,
    /// Folder of control socket, pid file and log, mode 0700. Default: the first of
    /// $RUNTIME_DIRECTORY; as root /run/NAME; $XDG_RUNTIME_DIR/NAME; NAME-UID in $TMPDIR or /tmp.
    pub run_dir: Option<PathBuf>,
    /// Where a daemon's output goes. Default: `NAME.log` in `run_dir`. Unused in the foreground. When
    /// its disk is full, lines are lost, their number is told when there is room again, and nobody
    /// waits; but an application's own `println!` panics then, as it does everywhere.
    pub log_file: Option<PathBuf>,
    /// Default `info`.
    pub log_level: LogLevel,
    /// Default: `NAME.pid` in `run_dir`.
    pub pid_file: Option<PathBuf>,
    /// Default: `NAME.sock` in `run_dir`.
    pub control_socket: Option<PathBuf>,
    /// What a reload executes. Default: the path by which the server was started, unresolved.
    pub executable: Option<PathBuf>,
    /// User of template, workers and task workers: a name or a number. Default: unchanged.
    pub user: Option<String>,
    /// Group of the same. Default: the user's own.
    pub group: Option<String>,
    /// File mode mask of all processes, octal, as `"0027"`. Default: inherited.
    pub umask: Option<String>,
    /// Length of each listener's queue of connections not yet accepted. Default 1024.
    pub backlog: u32,
    /// Default `slot`.
    pub listen_mode: ListenMode,
    /// Threads that run handlers in each worker, 1 to 256. Default 1.
    pub worker_threads: u32,
    /// Deadline of a drain: unguarded work still in hand is cut then. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub max_wait_time: Duration,
    /// From a stop that is asked for (TERM, `stop`) until it begins: the server goes on as before for
    /// so long, reloads included, so that balancers notice and send nobody any more. A second TERM,
    /// QUIT or `stop --now` ends the wait. Default 0 s.
    #[serde(with = "humantime_serde")]
    pub pre_stop_delay: Duration,
    /// What guarded sections get beyond `max_wait_time`, before the process is killed. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub guard_time: Duration,
    /// From executing a release to all of its processes being ready. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// What a new generation's first worker is asked before it may serve: a path, as `"/health"`, of
    /// the first HTTP listener, or of another one, as `"web:/health"`. A status from 200 to 299 is
    /// healthy. The application's own `Server::health` has to agree, if there is one. Not asked by
    /// `reload --tasks`. Default: not asked.
    pub health: Option<String>,
    /// Longest wait for one answer to `health`. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub health_timeout: Duration,
    /// How often `health` is asked, half a second apart, until the answer is good: 1 to 100. Default
    /// 3.
    pub health_tries: u32,
    /// How long a new generation's first worker, the canary, serves beside the old workers before
    /// the others may follow. Its failures and latency are compared with theirs in the same time.
    /// Default 0 s: as long as `canary_requests` says.
    #[serde(with = "humantime_serde")]
    pub canary_time: Duration,
    /// Requests that the canary has to serve to be judged. Without `canary_time` it is judged as soon
    /// as it has, and after 5 minutes at the latest. Default 0: no matter how many (20 are the least
    /// that can be judged); with neither there is no canary.
    pub canary_requests: u64,
    /// What becomes of a release whose canary had too few requests to be judged: `roll_back` or
    /// `commit`. Default `roll_back`: what has not proved itself does not go in.
    pub canary_inconclusive: Inconclusive,
    /// By how much the canary's share of failed requests (5xx, and failed handlers) may be beyond the
    /// old workers': 0 to 1. A single failure is never too many. Default 0.01.
    pub canary_max_errors: f64,
    /// How many times the old workers' mean time to an answer the canary's may be, at least 1. Less
    /// than 1 ms more is never too slow. 0: latency is not judged. Default 2.
    pub canary_max_slowdown: f64,
    /// How long a new generation is observed after it has taken over; until then it can return
    /// everything by itself to the generation before, whose template stays. Default 0 s: not at all.
    #[serde(with = "humantime_serde")]
    pub observe_time: Duration,
    /// Deaths of workers and task workers beyond which an observed generation is rolled back. Default
    /// 3.
    pub max_crashes: u32,
    /// Share of answers with 5xx and of failed handlers, 0 to 1, beyond which an observed generation
    /// is rolled back, once it has answered 20 requests. Default: not judged, since how many are
    /// normal only the application knows.
    pub max_error_rate: Option<f64>,
    /// Earlier releases whose template stays, idle, so that `rollback` can go back to them at any
    /// time: 0 to 16. Default 1.
    pub keep_releases: u32,
    /// Worker slots replaced at a time by a reload; 0 (the default): all.
    pub reload_parallel: u32,
    /// Generations that may live at a time, at least 2. Default 4.
    pub max_generations: u32,
    /// A serving worker whose loop has not turned for so long is stuck: the stacks of its threads
    /// go to the log, it is killed and replaced, and costs the requests that it had in hand. With
    /// several `worker_threads` it is stuck when none of them turns. A task worker is given
    /// `task_timeout`, if that is longer. At least 1 s; 0: nobody looks. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat_timeout: Duration,
    /// Memory of its own (the private pages of `/proc/PID/smaps_rollup`: what is shared with the
    /// template or with other workers does not count), beyond which a worker or task worker is
    /// replaced, and hands its connections over. Up to a tenth more, by chance, so that not all
    /// reach it at once; whatever is due, one worker (and one task worker) is replaced at a time.
    /// Looked at once a second. 0 (the default): no limit.
    pub max_memory: ByteSize,
    /// Age at which a worker or task worker is replaced, and hands its connections over; up to a
    /// tenth more, by chance. 0 (the default): never.
    #[serde(with = "humantime_serde")]
    pub max_lifetime: Duration,
    /// Requests after which a worker is replaced; 0 (the default): never.
    pub max_request: u64,
    /// Up to so many more, drawn by chance for each worker. Default: a tenth of `max_request`.
    pub max_request_grace: Option<u64>,
    /// Tasks after which a task worker is replaced; 0 (the default): never.
    pub task_max_request: u64,
    /// Up to so many more, drawn by chance. Default: a tenth of `task_max_request`.
    pub task_max_request_grace: Option<u64>,
    /// Deadline of a task, waiting included. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub task_timeout: Duration,
    /// Largest task and largest answer, encoded. Default 64 KiB, at most 128 KiB.
    pub task_max_size: ByteSize,
    /// Memory that waiting tasks of a generation may take in the kernel. Default 1 MiB.
    pub task_queue_size: ByteSize,
    /// Open connections per worker; more wait in the listener's queue. Default 10,000.
    pub max_connection: u32,
    /// In which `SESSION_VERSION` the sessions of WebSocket and raw TCP connections are written when
    /// these pass to another process, where the handler can write an older one: set to the version
    /// of the release before, it lets that one read them if it is returned to. Default: their own.
    pub session_write_version: Option<u32>,
    /// Where `GET /metrics` and `GET /status` are answered over HTTP, as `"127.0.0.1:9509"` or
    /// `"unix:/run/shop/admin.sock"` (mode 0600). Nobody is asked who he is: bind it to the loopback
    /// or to a Unix socket. Default: nowhere.
    pub admin_address: Option<String>,
    /// A folder that is the root directory of template, workers, task workers and hooks, from before
    /// `preload` runs: everything else is out of their reach. Needs root at the start; set `user` as
    /// well, since root finds a way out. Default: none.
    pub chroot: Option<PathBuf>,
    /// Whether each worker and task worker keeps to processors of its own, as many as it has
    /// `worker_threads`: those of worker 0 first, in the order of the worker ids, round and round
    /// over the processors that the server may use. Default false: the kernel moves them as it
    /// likes.
    pub cpu_affinity: bool,
    /// Processors, by number, that `cpu_affinity` leaves to others (to interrupts of a network
    /// card, for one). Default: none.
    pub cpu_affinity_ignore: Vec<u32>,
    /// Descriptors a process may hold (`RLIMIT_NOFILE`). Default: raised to the hard limit.
    pub open_files: Option<u64>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            worker_num: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            task_worker_num: 0,
            daemonize: false,
            run_dir: None,
            log_file: None,
            log_level: LogLevel::default(),
            pid_file: None,
            control_socket: None,
            executable: None,
            user: None,
            group: None,
            umask: None,
            backlog: 1024,
            listen_mode: ListenMode::default(),
            worker_threads: 1,
            max_wait_time: Duration::from_secs(30),
            pre_stop_delay: Duration::ZERO,
            guard_time: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            health: None,
            health_timeout: Duration::from_secs(5),
            health_tries: 3,
            canary_time: Duration::ZERO,
            canary_requests: 0,
            canary_inconclusive: Inconclusive::default(),
            canary_max_errors: 0.01,
            canary_max_slowdown: 2.0,
            observe_time: Duration::ZERO,
            max_crashes: 3,
            max_error_rate: None,
            keep_releases: 1,
            reload_parallel: 0,
            max_generations: 4,
            heartbeat_timeout: Duration::from_secs(30),
            max_memory: ByteSize::b(0),
            max_lifetime: Duration::ZERO,
            max_request: 0,
            max_request_grace: None,
            task_max_request: 0,
            task_max_request_grace: None,
            task_timeout: Duration::from_secs(60),
            task_max_size: ByteSize::kib(64),
            task_queue_size: ByteSize::mib(1),
            max_connection: 10_000,
            session_write_version: None,
            admin_address: None,
            chroot: None,
            cpu_affinity: false,
            cpu_affinity_ignore: Vec::new(),
            open_files: None,
        }
    }
}

/// A setting whose value is not possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its name in the `[server]` table.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Longer waits than a year are mistakes, and could not be added to a time without care.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl ServerSettings {
    /// Everything that is wrong with these values, by themselves and beside each other. Empty:
    /// a server can start with them, as far as values tell (users, folders and ports are tried
    /// when it starts).
    #[must_use]
    pub fn validate(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        self.validate_numbers(&mut found);
        self.validate_durations(&mut found);
        self.validate_sizes(&mut found);
        self.validate_texts(&mut found);
        self.validate_proving(&mut found);
        found
    }

    fn validate_numbers(&self, found: &mut Vec<Invalid>) {
        let mut within = |key, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                let reason = format!("must be from {least} to {most}, not {value}");
                found.push(Invalid { key, reason });
            }
        };
        within("worker_num", self.worker_num.into(), 1, 1024);
        within("task_worker_num", self.task_worker_num.into(), 0, 1024);
        within("worker_threads", self.worker_threads.into(), 1, 256);
        within("backlog", self.backlog.into(), 1, 1 << 24);
        within("reload_parallel", self.reload_parallel.into(), 0, 1024);
        within("max_generations", self.max_generations.into(), 2, 64);
        within("max_connection", self.max_connection.into(), 1, 1 << 24);
        if let Some(files) = self.open_files {
            within("open_files", files, 64, 1 << 30);
        }
    }

    fn validate_durations(&self, found: &mut Vec<Invalid>) {
        let waits = [
            ("max_wait_time", self.max_wait_time, true),
            ("pre_stop_delay", self.pre_stop_delay, true),
            ("guard_time", self.guard_time, true),
            ("start_timeout", self.start_timeout, false),
            ("task_timeout", self.task_timeout, false),
            ("heartbeat_timeout", self.heartbeat_timeout, true),
            ("max_lifetime", self.max_lifetime, true),
            ("health_timeout", self.health_timeout, false),
            ("canary_time", self.canary_time, true),
            ("observe_time", self.observe_time, true),
        ];
        for (key, value, zero) in waits {
            if value.is_zero() && !zero {
                found.push(Invalid { key, reason: "must be longer than 0s".into() });
            }
            if value > LONGEST {
                found.push(Invalid { key, reason: "must be at most 365days".into() });
            }
        }
        // A loop that turns says so ten times a second.
        let short = Duration::from_secs(1);
        if !self.heartbeat_timeout.is_zero() && self.heartbeat_timeout < short {
            let reason = "must be 0s (off) or at least 1s".into();
            found.push(Invalid { key: "heartbeat_timeout", reason });
        }
    }

    fn validate_sizes(&self, found: &mut Vec<Invalid>) {
        if self.max_memory.0 != 0 && self.max_memory < ByteSize::mib(1) {
            let reason = format!("must be 0 (off) or at least 1MiB, not {}B", self.max_memory.0);
            found.push(Invalid { key: "max_memory", reason });
        }
        let task = self.task_max_size;
        if task < ByteSize::b(1) || task > ByteSize::kib(128) {
            let reason = format!("must be from 1B to 128KiB, not {}B", task.0);
            found.push(Invalid { key: "task_max_size", reason });
        }
        let queue = self.task_queue_size;
        if queue > ByteSize::gib(1) {
            let reason = format!("must be at most 1GiB, not {}B", queue.0);
            found.push(Invalid { key: "task_queue_size", reason });
        } else if queue < task.min(ByteSize::kib(128)) {
            let reason = format!(
                "must hold at least one task: {}B is less than task_max_size, {}B",
                queue.0, task.0
            );
            found.push(Invalid { key: "task_queue_size", reason });
        }
    }

    fn validate_texts(&self, found: &mut Vec<Invalid>) {
        if let Some(umask) = &self.umask {
            let octal = !umask.is_empty() && umask.bytes().all(|it| matches!(it, b'0'..=b'7'));
            if !octal || u32::from_str_radix(umask, 8).is_ok_and(|it| it > 0o777) || umask.len() > 9
            {
                let reason = format!("must be octal and at most 0777, as \"0027\", not {umask:?}");
                found.push(Invalid { key: "umask", reason });
            }
        }
        for (key, value) in [("user", &self.user), ("group", &self.group)] {
            if value.as_deref().is_some_and(|it| it.trim().is_empty()) {
                found.push(Invalid { key, reason: "must not be empty".into() });
            }
        }
        if let Some(address) = &self.admin_address
            && let Err(error) = Address::parse(address)
        {
            found.push(Invalid { key: "admin_address", reason: error.to_string() });
        }
        let paths = [
            ("run_dir", &self.run_dir),
            ("log_file", &self.log_file),
            ("pid_file", &self.pid_file),
            ("control_socket", &self.control_socket),
            ("executable", &self.executable),
            ("chroot", &self.chroot),
        ];
        for (key, value) in paths {
            let Some(path) = value else { continue };
            if path.as_os_str().is_empty() {
                found.push(Invalid { key, reason: "must not be empty".into() });
            } else if path.as_os_str().as_encoded_bytes().contains(&0) {
                found.push(Invalid { key, reason: "must not contain a zero byte".into() });
            } else if key == "control_socket" && path.as_os_str().len() > LONGEST_SOCKET_PATH {
                let reason = format!(
                    "must be at most {LONGEST_SOCKET_PATH} bytes long, not {}: {}",
                    path.as_os_str().len(),
                    path.display()
                );
                found.push(Invalid { key, reason });
            }
        }
    }
}

/// What the kernel has room for in a Unix socket's address, in bytes.
pub const LONGEST_SOCKET_PATH: usize = 107;

/// Names of the settings that differ and that a reload does not reach: they belong to processes
/// that stay.
pub fn needs_restart(old: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    differing([("daemonize", old.daemonize != new.daemonize)])
}

/// Names of the settings that differ and that a reload brings to the release's processes, but not to
/// master and manager, which stay.
pub fn stays_above(old: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    differing([("log_level", old.log_level != new.log_level), ("umask", old.umask != new.umask)])
}

fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(change: impl FnOnce(&mut ServerSettings)) -> Vec<&'static str> {
        let mut settings = ServerSettings::default();
        change(&mut settings);
        settings.validate().into_iter().map(|it| it.key).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ServerSettings::default().validate(), Vec::new());
    }

    #[test]
    fn both_ends_of_every_range() {
        assert_eq!(keys(|it| it.worker_num = 0), ["worker_num"]);
        assert_eq!(keys(|it| it.worker_num = 1024), [""; 0]);
        assert_eq!(keys(|it| it.worker_num = 1025), ["worker_num"]);
        assert_eq!(keys(|it| it.task_worker_num = 0), [""; 0]);
        assert_eq!(keys(|it| it.task_worker_num = 1025), ["task_worker_num"]);
        assert_eq!(keys(|it| it.worker_threads = 0), ["worker_threads"]);
        assert_eq!(keys(|it| it.worker_threads = 257), ["worker_threads"]);
        assert_eq!(keys(|it| it.max_generations = 1), ["max_generations"]);
        assert_eq!(keys(|it| it.backlog = 0), ["backlog"]);
        assert_eq!(keys(|it| it.max_connection = 0), ["max_connection"]);
        assert_eq!(keys(|it| it.open_files = Some(3)), ["open_files"]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::b(0)), ["task_max_size"]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::kib(128)), [""; 0]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::b(131_073)), ["task_max_size"]);
        assert_eq!(keys(|it| it.task_queue_size = ByteSize::kib(1)), ["task_queue_size"]);
    }

    #[test]
    fn durations_texts_and_paths() {
        assert_eq!(keys(|it| it.start_timeout = Duration::ZERO), ["start_timeout"]);
        assert_eq!(keys(|it| it.task_timeout = Duration::ZERO), ["task_timeout"]);
        assert_eq!(keys(|it| it.max_wait_time = Duration::ZERO), [""; 0]);
        assert_eq!(keys(|it| it.guard_time = Duration::MAX), ["guard_time"]);
        assert_eq!(keys(|it| it.heartbeat_timeout = Duration::ZERO), [""; 0]);
        assert_eq!(
            keys(|it| it.heartbeat_timeout = Duration::from_millis(999)),
            ["heartbeat_timeout"]
        );
        assert_eq!(keys(|it| it.max_memory = ByteSize::kib(64)), ["max_memory"]);
        assert_eq!(keys(|it| it.umask = Some("0027".into())), [""; 0]);
        for wrong in ["", "8", "1000", "+7", "0o27", "77777777777777777777"] {
            assert_eq!(keys(|it| it.umask = Some(wrong.into())), ["umask"], "{wrong}");
        }
        assert_eq!(keys(|it| it.user = Some(" ".into())), ["user"]);
        assert_eq!(keys(|it| it.admin_address = Some("127.0.0.1:0".into())), [""; 0]);
        assert_eq!(keys(|it| it.admin_address = Some("unix:/a".into())), [""; 0]);
        for wrong in ["", "9509", "example.org:80", "unix:"] {
            assert_eq!(keys(|it| it.admin_address = Some(wrong.into())), ["admin_address"]);
        }
        assert_eq!(keys(|it| it.pid_file = Some("".into())), ["pid_file"]);
        assert_eq!(keys(|it| it.control_socket = Some("/x".repeat(54).into())), ["control_socket"]);
    }

    #[test]
    fn several_mistakes_are_found_at_once() {
        let found = keys(|it| {
            it.worker_num = 0;
            it.umask = Some("9".into());
            it.start_timeout = Duration::ZERO;
        });
        assert_eq!(found, ["worker_num", "start_timeout", "umask"]);
    }
}
