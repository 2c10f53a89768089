//! The real server, started, signalled, reloaded and stopped: whole processes of `examples/shop`.
//!
//! One file per theme. Every test has a folder, ports and processes of its own, so all can run
//! side by side, and none leaves a process behind, passed or failed. When a test fails, what its
//! server said is printed.

#![allow(clippy::unwrap_used)]

mod connections;
mod daemon;
mod faults;
mod manager;
mod moves;
mod privileges;
mod reload;
mod scale;
mod settings;
mod shop;
mod signals;
mod start;
mod status;
mod stop;
mod support;
mod tasks;
mod terminal;
mod upgrade;
mod workers;
