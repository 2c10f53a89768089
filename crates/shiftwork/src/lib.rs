//! An application server whose code is replaced while it runs, and nobody notices.
//!
//! You write handlers and a `main` of one expression. Shiftwork makes of it a server with master,
//! manager, template, workers and task workers, which goes into the background, answers to commands
//! and signals, and reloads without failing a request.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use axum::{Router, routing::get};
//! use shiftwork::{Http, Server};
//!
//! async fn hello() -> String {
//!     format!("hello from worker {}\n", shiftwork::worker().id())
//! }
//!
//! fn main() -> ExitCode {
//!     Server::new("hello")
//!         .default_setting("listen.web.address", "127.0.0.1:8080")
//!         .listen("web", Http::new(|_| Router::new().route("/", get(hello))))
//!         .run()
//! }
//! ```
//!
//! ```text
//! hello                 serve, in the foreground      hello reload    new code and settings
//! hello start -d        in the background             hello status    the processes
//! hello stop            finish what is in hand        hello check     the settings, and their sources
//! ```
//!
//! # Where to go from here
//!
//! | | |
//! |---|---|
//! | [`Server`] | the builder: name, settings, callbacks, listeners, tasks |
//! | [`Http`], [`Tcp`] | what is served at an address: any tower service, an axum `Router` mostly; lines or bytes |
//! | [`websocket`] | a route answers with [`websocket::upgrade`], a [`websocket::WebSocket`] takes over |
//! | [`Worker`], [`worker()`] | the process that a handler is in: ids, settings, timers, spawned and guarded work, tasks |
//! | [`Task`], [`TaskError`] | work for the task workers, and what can become of it |
//! | [`ServerHandle`] | reload, stop and status from inside |
//! | [`settings`] | where settings come from; [`settings::Limits`] has the limits |
//!
//! In the repository, `docs/guide.md` leads from nothing to a reload under load, and says what happens
//! to connections, requests and tasks when something is replaced or dies; `docs/settings.md` has every
//! setting, `docs/signals-and-commands.md` every signal and command; `examples/shop` is a whole
//! application.
//!
//! The other modules ([`conn`], [`http`], [`hand_over`], [`session`], most of [`task`] and [`tcp`]) are
//! the parts that a worker is made of. They are public for tests and benchmarks; an application needs
//! none of them.

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
