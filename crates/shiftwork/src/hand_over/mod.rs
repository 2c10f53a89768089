//! Passing open connections to another worker, and taking them up.
//!
//! A draining worker puts each connection, as a descriptor with a passport (what is spoken on it, the
//! bytes read too far, the session), into a queue from which any serving worker takes it. The
//! [`Sender`] keeps its own copy of every socket until the adopter has acknowledged it, and the
//! adopter acknowledges before it reads a byte: if it dies in between, the connection is sent again,
//! and at no moment is it lost or read by two.
//!
//! A packet holds up to [`BATCH`] connections. Its descriptors are: the writing end of a pipe, into
//! which the adopter writes the index of each connection that it has taken; a memfd with the
//! passports, if they are too long for a packet; then the sockets.

mod format;
mod receiver;
mod sender;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;

pub use format::{FormatError, NEWEST, OLDEST, Passport, decode, encode};
pub use receiver::{Adopted, Receiver};
pub use sender::{Report, Sender, SenderTask, Traveller};

/// Most connections in one packet.
pub const BATCH: usize = 16;

/// Longest packet in bytes. Longer passports travel in a memfd beside it.
pub const LONGEST_PACKET: usize = 64 * 1024;
