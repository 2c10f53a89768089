//! One connection as its worker sees it.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, Uri};

use super::counters::{Counters, class_of};
use super::in_hand::{InHand, Kind};
use super::orders::Orders;
use super::phase::{Phase, Protocol, phase_of, progressed};
use super::registry::Shared;
use super::work::{Cut, Work};
use crate::session::{self, Call, Peer};

/// One connection of a worker: what it does, and the orders for its driver.
///
/// Made by [`Registry::open`](super::Registry::open); leaves the registry when the last reference to
/// it is dropped, so hold it exactly as long as the connection (or a handler that survived it) lives.
pub struct Conn {
    pub(super) id: u64,
    peer: Peer,
    listener: Option<Arc<str>>,
    protocol: AtomicU8,
    orders: AtomicU32,
    /// The [`Phase`], and a number that every sign of progress raises.
    phase: AtomicU64,
    /// The waker of the driver's task. Not taken out by a wake, so it is set once.
    waker: Mutex<Option<Waker>>,
    in_hand: InHand,
    /// How what is in hand was answered: a [`Class`](super::counters::Class).
    answer: AtomicU8,
    /// Output may be waiting in this process: written, and not flushed yet.
    unsent: AtomicBool,
    /// The connection itself has ended; only a handler goes on.
    detached: AtomicBool,
    pub(super) seen: Mutex<Seen>,
    /// What the application puts on answers that are not its own.
    marks: OnceLock<Arc<HeaderMap>>,
    registry: Weak<Shared>,
    counters: Arc<Counters>,
}

/// What the sweeper saw when it last looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) phase: u64,
    /// Since when, at the earliest. Late by up to one sweep, never early.
    pub(super) since: Instant,
}

impl Conn {
    pub(super) fn new(
        id: u64,
        protocol: Protocol,
        peer: Peer,
        listener: Option<Arc<str>>,
        idle_for: Duration,
        orders: Orders,
        registry: &Arc<Shared>,
    ) -> Conn {
        let now = Instant::now();
        registry.counters.opened();
        Conn {
            id,
            peer,
            listener,
            protocol: AtomicU8::new(protocol as u8),
            orders: AtomicU32::new(orders.0),
            phase: AtomicU64::new(Phase::Idle as u64),
            waker: Mutex::new(None),
            in_hand: InHand::nothing(),
            answer: AtomicU8::new(0),
            unsent: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            seen: Mutex::new(Seen {
                phase: Phase::Idle as u64,
                since: now.checked_sub(idle_for).unwrap_or(now),
            }),
            marks: OnceLock::new(),
            registry: Arc::downgrade(registry),
            counters: Arc::clone(&registry.counters),
        }
    }

    /// A number that is unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The listener that it came by, if that was told.
    pub fn listener(&self) -> Option<&str> {
        self.listener.as_deref()
    }

    /// Headers for the answers that Shiftwork gives in the application's place. Once.
    pub fn set_marks(&self, marks: Arc<HeaderMap>) {
        let _ = self.marks.set(marks);
    }

    pub(crate) fn marks(&self) -> Option<&HeaderMap> {
        self.marks.get().map(Arc::as_ref)
    }

    /// What is spoken on it now.
    pub fn protocol(&self) -> Protocol {
        match self.protocol.load(Relaxed) {
            0 => Protocol::Http1,
            1 => Protocol::WebSocket,
            _ => Protocol::Tcp,
        }
    }

    /// Another protocol has taken over the connection.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Relaxed);
    }

    /// The orders as they stand now.
    #[inline]
    pub fn orders(&self) -> Orders {
        Orders(self.orders.load(Acquire))
    }

    /// Gives orders and wakes the driver if they are new.
    pub fn order(&self, orders: Orders) {
        let before = self.orders.fetch_or(orders.0, AcqRel);
        if before | orders.0 != before {
            self.wake();
        }
    }

    /// Takes back an expiry that is no longer true.
    pub(crate) fn take_back(&self, orders: Orders) {
        self.orders.fetch_and(!orders.0, AcqRel);
    }

    /// Remembers whom to wake when orders come. Call it before the orders are read; only the last
    /// waker counts.
    pub fn register(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the connection is doing.
    #[inline]
    pub fn phase(&self) -> Phase {
        phase_of(self.phase.load(Relaxed))
    }

    pub(super) fn raw_phase(&self) -> u64 {
        self.phase.load(Relaxed)
    }

    /// Whether nothing has happened since the sweeper last looked.
    pub(crate) fn unchanged_since_sweep(&self) -> bool {
        lock(&self.seen).phase == self.raw_phase()
    }

    /// How long the connection has been in its present phase without progress; late by up to one
    /// sweep, never early.
    pub fn quiet_for(&self) -> Duration {
        let seen = *lock(&self.seen);
        match seen.phase == self.raw_phase() {
            true => seen.since.elapsed(),
            false => Duration::ZERO,
        }
    }

    #[inline]
    fn set_phase(&self, phase: Phase) {
        // One writer at a time: the driver, or the handler that outlived it.
        self.phase.store(progressed(self.phase.load(Relaxed), phase), Relaxed);
    }

    /// Bytes of the next request have come, unless one is in hand.
    #[inline]
    pub(crate) fn head_bytes(&self) {
        if self.phase() == Phase::Idle {
            self.set_phase(Phase::Head);
        }
    }

    /// The client has taken bytes or shown another sign of life, in whatever phase.
    #[inline]
    pub fn progress(&self) {
        self.set_phase(self.phase());
    }

    /// Notes whether output waits in this process.
    #[inline]
    pub(crate) fn set_unsent(&self, unsent: bool) {
        self.unsent.store(unsent, Relaxed);
    }

    /// Whether output may be waiting in this process, for a client that does not take it.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent.load(Relaxed)
    }

    /// A request begins.
    #[inline]
    pub fn begin_request(&self, method: &Method, uri: &Uri) {
        let now_us = self.counters.begun();
        self.answer.store(0, Relaxed);
        self.in_hand.request(method, uri, now_us, || self.forget_expiry());
        self.set_phase(Phase::InHand);
    }

    /// The handler of another protocol begins.
    pub fn begin_call(&self, call: Call) {
        let now_us = match Kind::of(call).is_asked_for() {
            true => self.counters.begun(),
            false => self.counters.now_us(),
        };
        self.answer.store(0, Relaxed);
        self.in_hand.call(call, now_us, || self.forget_expiry());
        self.set_phase(Phase::InHand);
    }

    /// An expiry that came too late for the request before must not hit the next one.
    #[inline]
    fn forget_expiry(&self) {
        if self.orders().any(Orders::REQUEST_EXPIRED) {
            self.take_back(Orders::REQUEST_EXPIRED);
        }
    }

    /// What has begun is done, its answer included.
    #[inline]
    pub fn end(&self) {
        let (kind, since_us) = self.in_hand.end();
        self.set_phase(Phase::Idle);
        if kind.is_asked_for() {
            self.counters.over(kind, self.answer.load(Relaxed), since_us);
        }
    }

    /// The request in hand is answered with `status`; it counts when it has ended.
    #[inline]
    pub fn answered(&self, status: StatusCode) {
        self.answer.store(class_of(status), Relaxed);
    }

    /// A handler has panicked, or returned an error.
    pub fn handler_failed(&self) {
        self.counters.handler_failed();
    }

    /// The connection has ended, a handler goes on without it.
    pub(crate) fn detach(&self) {
        if !self.detached.swap(true, AcqRel) {
            self.counters.closed();
        }
    }

    /// What is in hand, and for how long it has been.
    pub fn work(&self) -> Option<(Work, Duration)> {
        let (work, since_us) = self.in_hand.read()?;
        Some((work, Duration::from_micros(self.counters.now_us().saturating_sub(since_us))))
    }

    /// How long something has been in hand, as of `now_us`; orders it to end if `is_over` says so of
    /// that time.
    pub(super) fn judge_work(
        &self,
        now_us: u64,
        is_over: impl FnOnce(Duration) -> bool,
    ) -> Option<Duration> {
        let age = |since_us| Duration::from_micros(now_us.saturating_sub(since_us));
        let since_us = self.in_hand.judge(|since_us| {
            if is_over(age(since_us)) {
                self.order(Orders::REQUEST_EXPIRED);
            }
        })?;
        Some(age(since_us))
    }

    /// What is in hand, in words for the log.
    pub(super) fn in_hand(&self) -> Option<Cut> {
        let (work, age) = match self.work() {
            Some(in_hand) => in_hand,
            None if self.has_unsent() => (Work::Answer, self.quiet_for()),
            None => return None,
        };
        Some(Cut { id: self.id, peer: self.peer, listener: self.listener.clone(), work, age })
    }

    pub(super) fn cut(&self) -> Option<Cut> {
        let cut = self.in_hand();
        self.order(Orders::CUT);
        cut
    }
}

/// For the drivers of WebSocket and raw TCP.
impl session::Control for Conn {
    fn orders(&self) -> session::Orders {
        let orders = Conn::orders(self);
        session::Orders {
            drain: orders.draining(),
            close: orders.any(Orders::CLOSE),
            cut: orders.any(Orders::CUT),
        }
    }

    fn register(&self, waker: &Waker) {
        Conn::register(self, waker);
    }

    fn begin(&self, call: Call) {
        Conn::begin_call(self, call);
    }

    fn end(&self) {
        Conn::end(self);
    }

    fn failed(&self) {
        Conn::handler_failed(self);
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !*self.detached.get_mut() {
            self.counters.closed();
        }
        if let Some(registry) = self.registry.upgrade() {
            registry.remove(self.id);
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("protocol", &self.protocol())
            .field("phase", &self.phase())
            .field("orders", &self.orders())
            .finish_non_exhaustive()
    }
}

/// A panic while one of these was held leaves nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
