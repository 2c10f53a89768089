//! The open connections of a worker: what they are, what they are doing, and the orders they get.
//!
//! Every connection, whatever its protocol, has one [`Conn`] in the worker's [`Registry`]. Its driver
//! writes what it is doing into it and reads its orders from it; the worker sweeps, drains, cuts and
//! counts through the registry. Nothing of it costs a system call, and on the path of a request only
//! a few relaxed atomics and one uncontended lock.

mod counters;
mod entry;
mod in_hand;
mod orders;
pub mod panics;
mod phase;
mod registry;
mod stream;
mod work;

pub use counters::{Counters, Totals};
pub use entry::Conn;
pub use orders::Orders;
pub use phase::{Phase, Protocol};
pub use registry::{Drain, Registry, SweepLimits};
pub use stream::Stream;
pub use work::{Cut, Work};

pub use crate::session::Peer;
