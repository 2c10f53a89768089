//! Connections that live long and keep a session: what WebSocket and raw TCP have in common.
//!
//! Both are a stream of messages in two directions, with one typed value (the session) that belongs
//! to the connection. One driver serves both ([`drive`](self)): it reads, calls the handler with one
//! message at a time and in order, writes, and obeys the worker's orders between two messages.
//! Everything that must travel when a connection passes to another process is plain data here:
//! unread bytes, the half-read message of the framing, the session, and the idle clock.

mod control;
mod drive;
mod erased;
mod finish;
mod form;
mod guard;
mod limits;
mod link;
mod mailbox;
mod reason;
mod shared;
mod start;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub use control::{Call, Control, Orders, Switch};
pub use erased::{ErasedHandler, serve};
pub use form::{LONGEST_SESSION, decode, encode};
pub use limits::StreamLimits;
pub use link::{Peer, SendError};
pub use mailbox::Sender;
pub use reason::{CloseReason, Violation};
pub use start::{Begin, OnDrain, Outcome, Parcel, Saved, Start};
pub use wire::Transport;

pub(crate) use drive::Service;
pub(crate) use form::Form;
pub(crate) use link::{Framing, Incoming, Link};

/// An error of the application, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
