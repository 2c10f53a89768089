//! The decisions, tested without a process.
#![allow(clippy::unwrap_used)]

mod reloads;
mod scales;
mod single;
mod stops;
mod walk;
mod world;
