//! The settings that master and manager act on: the `[server]` table.
//!
//! Values only. Where they come from (file, environment, flags) and how a mistake in them is
//! explained is the framework's business; here they are typed, defaulted and checked against
//! each other.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

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
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Worker processes, 1 to 1024. Default: the number of cores this process may use.
    pub worker_num: u32,
    /// Task worker processes, 0 to 1024. Default 0: no tasks.
    pub task_worker_num: u32,
    /// Put the server in the background. Default false.
    pub daemonize: bool,
    /// Folder of the control socket and the pid file. Default: see DESIGN 7.
    pub run_dir: Option<PathBuf>,
    /// Where a daemon's output goes. Default: `NAME.log` in `run_dir`. Unused in the foreground.
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
    /// What guarded sections get beyond `max_wait_time`, before the process is killed. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub guard_time: Duration,
    /// From executing a release to all of its processes being ready. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// Worker slots replaced at a time by a reload; 0 (the default): all.
    pub reload_parallel: u32,
    /// Generations that may live at a time, at least 2. Default 4.
    pub max_generations: u32,
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
            guard_time: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            reload_parallel: 0,
            max_generations: 4,
            max_request: 0,
            max_request_grace: None,
            task_max_request: 0,
            task_max_request_grace: None,
            task_timeout: Duration::from_secs(60),
            task_max_size: ByteSize::kib(64),
            task_queue_size: ByteSize::mib(1),
            max_connection: 10_000,
            open_files: None,
        }
    }
}

/// Names of the settings that differ and that a reload does not reach: they belong to processes
/// that stay.
pub fn needs_restart(old: &ServerSettings, new: &ServerSettings) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, key| {
        if differs {
            changed.push(key);
        }
    };
    note(old.daemonize != new.daemonize, "daemonize");
    note(old.run_dir != new.run_dir, "run_dir");
    note(old.log_file != new.log_file, "log_file");
    note(old.pid_file != new.pid_file, "pid_file");
    note(old.control_socket != new.control_socket, "control_socket");
    changed
}
