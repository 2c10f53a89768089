//! Shiftwork's master and manager: everything that starts, watches and replaces processes, and
//! nothing that knows what a worker runs.

pub mod core;
pub mod protocol;
pub mod settings;

/// Format of the shared slab that this library writes.
pub fn slab_format() -> u8 {
    1
}
