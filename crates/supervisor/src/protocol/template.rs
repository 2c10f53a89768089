//! Manager ↔ template, over the one socket the template inherits.
//!
//! The template is found through the environment variable [`ROLE_VARIABLE`], whose value is
//! `template:FD:INODE`: believed only if FD is open and has that inode, and removed at once.
//! Anything that speaks this protocol can be a template.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::places::Places;
use crate::settings::ServerSettings;

/// Names the role a process was executed for; absent when a user typed the command.
pub const ROLE_VARIABLE: &str = "SHIFTWORK_ROLE";

/// What a release is configured with, read once per generation and kept: a respawn uses this and
/// never what lies on the disk by then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where the command was typed, absolute; relative paths without a file start here.
    pub directory: PathBuf,
    /// The settings file, absolute and unresolved, and its text. None: there is no file.
    pub file: Option<(PathBuf, String)>,
    /// `KEY=VALUE` of every `--set`, oldest first; later ones win.
    pub overrides: Vec<String>,
}

/// What kind of process is forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Accepts and serves.
    Worker,
    /// Runs tasks.
    TaskWorker,
}

/// The callbacks that run in a short-lived process of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookName {
    /// Once, before the first worker; an error fails the start.
    OnStart,
    /// Once, when the manager has started.
    OnManagerStart,
    /// After a worker died unasked.
    OnWorkerError,
    /// Once, when all workers are gone.
    OnShutdown,
}

/// What a hook is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// Which callback.
    pub name: HookName,
    /// Pid of the master.
    pub master_pid: i32,
    /// Pid of the manager.
    pub manager_pid: i32,
    /// For [`HookName::OnWorkerError`]: who died and how.
    pub died: Option<WorkerDeath>,
}

/// A worker or task worker that died unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDeath {
    /// Worker or task worker.
    pub kind: Kind,
    /// Its worker id.
    pub worker_id: u32,
    /// Its pid.
    pub pid: i32,
    /// Exit status, if it exited.
    pub exit_code: Option<i32>,
    /// Signal number, if a signal ended it.
    pub signal: Option<i32>,
}

/// An address the application serves, as the effective settings have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSpec {
    /// The name under which the application registered its handler.
    pub name: String,
    /// `127.0.0.1:9501`, `[::1]:0`, or `unix:/absolute/path`.
    pub address: String,
    /// `http`, `tcp`: for people.
    pub protocol: String,
}

/// The range of a format that a release can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// Oldest readable version.
    pub oldest: u8,
    /// Newest readable version, which is the one it would like to write.
    pub newest: u8,
}

/// What a template says of its release before it runs `preload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Formats of connections under way between workers.
    pub hand_over: Formats,
    /// Formats of the shared slab.
    pub slab: Formats,
    /// Formats of tasks.
    pub task: Formats,
    /// The application's own name for this release.
    pub release: String,
    /// The effective settings.
    pub settings: ServerSettings,
    /// The addresses to bind.
    pub listeners: Vec<ListenerSpec>,
    /// Hooks that the application has registered.
    pub hooks: Vec<HookName>,
    /// Whether a worker can be asked for its health.
    #[serde(default)]
    pub health: bool,
    /// Where it wants the server's own files; None: where they are.
    #[serde(default)]
    pub places: Option<Places>,
}

/// Manager → template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTemplate {
    /// First message. Descriptors: the [`Snapshot`] (JSON, in a memfd), the log.
    Start {
        /// Number of the generation.
        generation: u64,
        /// Pid of the master.
        master_pid: i32,
        /// Pid of the manager.
        manager_pid: i32,
    },
    /// Run `preload`: the addresses are bound.
    Load,
    /// Fork a worker. Descriptors: its control socket, its output pipe.
    Fork {
        /// Echoed in [`FromTemplate::Forked`].
        child: u64,
        /// What it will be.
        kind: Kind,
        /// Its worker id.
        worker_id: u32,
    },
    /// Fork a process for a hook. Descriptors: its output pipe.
    Hook {
        /// Echoed in [`FromTemplate::Forked`].
        child: u64,
        /// Which, and what it is told.
        call: HookCall,
    },
    /// Take this descriptor for stdout and stderr: the log was reopened.
    Log,
    /// Nothing more will be asked: exit 0.
    Exit,
}

/// Template → manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromTemplate {
    /// Answer to [`ToTemplate::Start`].
    Hello(Box<Hello>),
    /// Answer to [`ToTemplate::Load`]: `preload` has returned.
    Loaded,
    /// This release cannot start, and why (settings, a missing handler, `preload`). Exits next.
    Failed {
        /// One sentence or more, for the operator.
        reason: String,
    },
    /// Answer to `Fork` and `Hook`.
    Forked {
        /// As asked.
        child: u64,
        /// The new process, whose parent is the manager already.
        pid: i32,
    },
    /// Refusal of `Fork` or `Hook`.
    NotForked {
        /// As asked.
        child: u64,
        /// For example a second thread.
        reason: String,
    },
}
