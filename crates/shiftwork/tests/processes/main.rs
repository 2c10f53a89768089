//! The real server, started, signalled, reloaded and stopped: whole processes of `examples/shop`.
//!
//! One file per theme. Every test has a folder, ports and processes of its own, so all can run
//! side by side, and none leaves a process behind, passed or failed. When a test fails, what its
//! server said is printed.

#![allow(clippy::unwrap_used)]

mod admin;
mod adoption;
mod affinity;
mod callbacks;
mod chaos;
mod connections;
mod containers;
mod daemon;
mod faults;
mod framings;
mod held;
mod history;
mod jail;
mod kills;
mod limits;
mod manager;
mod metrics;
mod moves;
mod observing;
mod page;
mod privileges;
mod progress;
mod proving;
mod reload;
mod rollback;
mod scale;
mod scarcity;
mod sessions;
mod settings;
mod shop;
mod signals;
mod start;
mod status;
mod stop;
mod stuck;
mod support;
mod systemd;
mod tasks;
mod terminal;
mod top;
mod upgrade;
mod workers;
