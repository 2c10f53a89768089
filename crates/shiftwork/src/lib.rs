//! Shiftwork: an application server whose code is replaced while it runs.
//!
//! A team writes handlers and a `main` of one expression ([`Server`]); Shiftwork makes of it a
//! server with master, manager, template, workers and task workers, which goes into the background,
//! and changes its code by a signal while clients go on.

mod backtrace;
mod cli;
pub mod conn;
pub mod hand_over;
pub mod http;
mod log;
mod server;
pub mod session;
pub mod settings;
pub mod task;
pub mod tcp;
mod template;
pub mod websocket;
mod worker;

pub use conn::Peer;
pub use server::{AppSettings, Boot, Http, Listener, Server, Tcp};
pub use session::BoxError;
pub use shiftwork_supervisor::core::outcome::{Outcome, Verdict};
pub use shiftwork_supervisor::protocol::template::{HookCall, HookName, Kind, WorkerDeath};
pub use task::{OnFull, Task, TaskError};
pub use worker::{AskError, ServerHandle, Worker, worker};

/// The guide's examples, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
mod guide {}

/// The README's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
