//! System calls for Shiftwork: the only crate with `unsafe`.
//!
//! Sockets that carry descriptors, signals as descriptors, forks, listening sockets that survive
//! their workers, the shared slab. No decisions: those are the supervisor's.

pub mod activation;
pub mod clock;
pub mod cpu;
pub mod daemon;
pub mod fd;
pub mod file;
pub mod limits;
pub mod listen;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod peer;
pub mod process;
pub mod signal;
pub mod slab;
pub mod socket;
pub mod stack;
pub mod umask;
pub mod user;
pub mod wait;
