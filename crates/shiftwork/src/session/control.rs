//! How a worker gives orders to the driver of one connection, whatever task that driver runs in.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What the worker wants of a connection. Orders only ever add up; none is taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// The worker drains. What follows is decided by [`OnDrain`](super::OnDrain).
    pub drain: bool,
    /// Close politely at the next boundary between two messages.
    pub close: bool,
    /// Drop the connection at once, with the handler that may be running for it.
    pub cut: bool,
}

/// What a handler is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A connection was opened.
    Open,
    /// A connection has come from another process. Nothing that its client has asked for.
    Resume,
    /// A message has come in.
    Message,
    /// The connection has ended.
    Close,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Open => "open",
            Call::Resume => "resume",
            Call::Message => "message",
            Call::Close => "close",
        })
    }
}

/// The connection's side of the worker's registry.
///
/// The driver calls [`register`](Control::register) before each look at the orders, so whoever
/// changes them has to change first and wake second.
pub trait Control: Send + Sync + 'static {
    /// The orders as they stand now.
    fn orders(&self) -> Orders;
    /// Remembers whom to wake when the orders change. Only the last waker counts.
    fn register(&self, waker: &Waker);
    /// A handler was called.
    fn begin(&self, _call: Call) {}
    /// The handler is done; the connection is between two messages again.
    fn end(&self) {}
    /// The handler has panicked, or returned an error.
    fn failed(&self) {}
}

const DRAIN: u8 = 1;
const CLOSE: u8 = 2;
const CUT: u8 = 4;

/// A plain [`Control`]: for tests, and for connections that no registry knows.
///
/// ```
/// use shiftwork::session::{Control, Switch};
///
/// let switch = Switch::default();
/// switch.drain();
/// assert!(switch.orders().drain && !switch.orders().cut);
/// ```
#[derive(Debug, Default)]
pub struct Switch {
    flags: AtomicU8,
    failures: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Switch {
    /// Orders the connection to drain.
    pub fn drain(&self) {
        self.set(DRAIN);
    }

    /// Orders the connection to close at the next boundary between two messages.
    pub fn close(&self) {
        self.set(CLOSE);
    }

    /// Orders the connection to be dropped at once.
    pub fn cut(&self) {
        self.set(CUT);
    }

    /// How many calls of its handler have failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn set(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Control for Switch {
    fn orders(&self) -> Orders {
        let flags = self.flags.load(Ordering::Acquire);
        Orders { drain: flags & DRAIN != 0, close: flags & CLOSE != 0, cut: flags & CUT != 0 }
    }

    fn register(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
