//! The settings that master and manager act on: the `[server]` table.
//!
//! Values only. Where they come from (file, environment, flags) and how a mistake in them is
//! explained is the framework's business; here they are typed, defaulted and checked against
//! each other.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

mod proving;
mod validate;

pub use proving::Inconclusive;
pub use validate::{Invalid, LONGEST_SOCKET_PATH};

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
    /// File mode mask of template, workers, task workers and hooks, and for Unix sockets that are
    /// made for them, octal, as `"0027"`. Default: inherited.
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
    /// Generations that may live at a time, at least 2. If another one is needed, the oldest has 5 s left
    /// to drain, and the reload waits for that. Default 4.
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

/// Names of the settings that differ and that a reload does not reach: they belong to processes
/// that stay.
pub fn needs_restart(old: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    if old.daemonize == new.daemonize { Vec::new() } else { vec!["daemonize"] }
}
