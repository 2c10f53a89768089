//! Shiftwork's master and manager: everything that starts, watches and replaces processes, and
//! nothing that knows what a worker runs.
//!
//! [`core`] decides, [`manager`] and [`master`] do, [`protocol`] is what processes say to each
//! other, [`control`] what commands say to the master.

pub mod control;
pub mod core;
pub mod envelope;
pub mod identity;
mod journal;
mod line;
pub mod log_level;
pub mod manager;
pub mod master;
pub mod metrics;
mod pairs;
mod passing;
pub mod places;
pub mod probe;
pub mod protocol;
pub mod role;
pub mod settings;
mod versions;

/// Set for all processes if a service manager keeps the listening sockets when this server's master
/// dies: then whoever drains leaves what waits in their queues to the next server.
pub const KEPT_LISTENERS: &str = "SHIFTWORK_LISTENERS_KEPT";

/// Format of the shared slab that this library writes.
pub fn slab_format() -> u8 {
    shiftwork_sys::slab::VERSION
}
