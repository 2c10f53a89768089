//! Shiftwork's master and manager: everything that starts, watches and replaces processes, and
//! nothing that knows what a worker runs.

pub mod protocol;
pub mod settings;
