//! The decisions, tested without a process.
#![allow(clippy::unwrap_used)]

mod explore;
mod observations;
mod proofs;
mod reloads;
mod returns;
mod scales;
mod single;
mod stops;
mod take_ups;
mod upgrades;
mod walk;
mod world;
