//! All connections of a worker.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::counters::{Counters, Totals};
use super::entry::{Conn, Seen, lock};
use super::orders::Orders;
use super::phase::{Phase, Protocol, phase_of};
use super::work::Cut;
use crate::session::Peer;

/// What becomes of the connections of a draining worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Others go on: connections are handed over between two requests.
    HandOver,
    /// The server stops, or the listener is gone: requests in hand are answered with
    /// `Connection: close`, idle connections closed.
    Close,
}

impl Drain {
    fn orders(self) -> Orders {
        match self {
            Drain::HandOver => Orders::HAND_OVER,
            Drain::Close => Orders::CLOSE,
        }
    }
}

/// What [`Registry::sweep`] lets pass. Zero means without limit.
#[derive(Debug, Clone, Copy)]
pub struct SweepLimits {
    /// Between two requests, or with output that the client does not take.
    pub idle: Duration,
    /// From the first byte of a request head to its last.
    pub header: Duration,
    /// From the end of the head to the beginning of the answer.
    pub request: Duration,
}

/// At a stop a connection that was made or answered a moment ago may have a request under way; that
/// is answered with `Connection: close`. One that is quiet for so long is closed.
pub(crate) const LAST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// The open connections of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    open: Mutex<HashMap<u64, Weak<Conn>>>,
    next: AtomicU64,
    /// Milliseconds of the oldest work, as of the last sweep.
    oldest_ms: AtomicU64,
    draining: Mutex<Option<Draining>>,
    pub(super) counters: Arc<Counters>,
}

/// How a worker drains.
#[derive(Debug)]
struct Draining {
    drain: Drain,
    /// Listeners that no other worker has: their connections are closed in any case.
    gone: Vec<String>,
}

impl Draining {
    fn orders(&self, listener: Option<&str>) -> Orders {
        let is_gone = |listener| self.gone.iter().any(|gone| gone == listener);
        match listener.is_some_and(is_gone) {
            true => Orders::CLOSE,
            false => self.drain.orders(),
        }
    }
}

impl Shared {
    pub(super) fn remove(&self, id: u64) {
        lock(&self.open).remove(&id);
    }
}

impl Default for Registry {
    fn default() -> Self {
        Registry::new()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::counting(Counters::default())
    }

    /// An empty registry that counts there.
    pub fn counting(counters: Counters) -> Registry {
        Registry {
            shared: Arc::new(Shared {
                open: Mutex::new(HashMap::new()),
                next: AtomicU64::new(1),
                oldest_ms: AtomicU64::new(0),
                draining: Mutex::new(None),
                counters: Arc::new(counters),
            }),
        }
    }

    /// Enters a new connection, or one that was adopted after it had been quiet for `idle_for`.
    /// Opened in a worker that drains already, it has its orders from the start.
    ///
    /// Enter it in the same breath in which it is accepted or adopted, before anything is spawned
    /// for it: a worker that drains and finds its registry empty takes itself for done.
    pub fn open(&self, protocol: Protocol, peer: Peer, idle_for: Duration) -> Arc<Conn> {
        self.enter(None, protocol, peer, idle_for)
    }

    /// As [`open`](Registry::open), with the name under which [`drain`](Registry::drain) may close
    /// the listener that the connection came by.
    pub fn open_on(
        &self,
        listener: &Arc<str>,
        protocol: Protocol,
        peer: Peer,
        idle_for: Duration,
    ) -> Arc<Conn> {
        self.enter(Some(Arc::clone(listener)), protocol, peer, idle_for)
    }

    fn enter(
        &self,
        listener: Option<Arc<str>>,
        protocol: Protocol,
        peer: Peer,
        idle_for: Duration,
    ) -> Arc<Conn> {
        let id = self.shared.next.fetch_add(1, Relaxed);
        // Held until the connection is entered, so that no order can fall in between.
        let draining = lock(&self.shared.draining);
        let orders = draining
            .as_ref()
            .map_or(Orders::default(), |draining| draining.orders(listener.as_deref()));
        let conn = Conn::new(id, protocol, peer, listener, idle_for, orders, &self.shared);
        let conn = Arc::new(conn);
        lock(&self.shared.open).insert(id, Arc::downgrade(&conn));
        conn
    }

    /// The counters, which outlive the connections.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// Requests begun and not finished, those whose client has gone included.
    pub fn in_hand(&self) -> u64 {
        self.shared.counters.in_hand()
    }

    /// Connections open now, and handlers whose connection has gone.
    pub fn len(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Whether nothing is open and nothing in hand.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All counts at once.
    pub fn totals(&self) -> Totals {
        let counters = &self.shared.counters;
        let oldest = match self.shared.oldest_ms.load(Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        };
        Totals {
            requests: counters.requests(),
            in_hand: counters.in_hand(),
            connections: counters.connections(),
            failures: counters.failures(),
            oldest,
        }
    }

    /// How the worker drains, if it does.
    pub fn draining(&self) -> Option<Drain> {
        lock(&self.shared.draining).as_ref().map(|draining| draining.drain)
    }

    /// Gives every connection, and every one that is opened from now on, its orders for a drain.
    /// `Close` may follow `HandOver`, and then stands above it.
    pub fn drain_all(&self, drain: Drain) {
        self.drain(drain, &[]);
    }

    /// As [`drain_all`](Registry::drain_all); but connections that came by one of the listeners
    /// `gone` (see [`open_on`](Registry::open_on)) are closed as at a stop, since nobody could take
    /// them.
    pub fn drain(&self, drain: Drain, gone: &[String]) {
        {
            let mut draining = lock(&self.shared.draining);
            let drain = match draining.as_ref() {
                Some(Draining { drain: Drain::Close, .. }) => Drain::Close,
                _ => drain,
            };
            *draining = Some(Draining { drain, gone: gone.to_vec() });
        }
        for conn in self.all() {
            let draining = lock(&self.shared.draining);
            let orders = draining.as_ref().map(|draining| draining.orders(conn.listener()));
            drop(draining);
            conn.order(orders.unwrap_or_default());
        }
    }

    /// Drops every connection with what is in hand on it, and tells what that was. Guarded sections
    /// run in tasks of their own and are not touched.
    pub fn cut_all(&self) -> Vec<Cut> {
        self.all().iter().filter_map(|conn| conn.cut()).collect()
    }

    /// What is in hand, oldest first: for the log.
    pub fn in_hand_list(&self) -> Vec<Cut> {
        let mut list: Vec<Cut> = self.all().iter().filter_map(|conn| conn.in_hand()).collect();
        list.sort_by_key(|cut| std::cmp::Reverse(cut.age));
        list
    }

    /// Looks at every connection and orders those that are over a limit to end. To be called a few
    /// times a second; limits are kept to within one interval, never broken early.
    pub fn sweep(&self, now: Instant, limits: SweepLimits) {
        let now_us = self.shared.counters.us_at(now);
        let mut oldest: Option<Duration> = None;
        for conn in self.all() {
            let raw = conn.raw_phase();
            let since = observe(&conn, raw, now);
            let phase = phase_of(raw);
            if phase == Phase::InHand {
                let is_http = conn.protocol() == Protocol::Http1;
                let limit = limits.request;
                let is_over = |age| is_http && !limit.is_zero() && age >= limit;
                oldest = oldest.max(conn.judge_work(now_us, is_over));
            }
            // The other protocols look after their own silence.
            if conn.protocol() != Protocol::Http1 {
                continue;
            }
            let idle = match conn.orders().any(Orders::CLOSE) && phase == Phase::Idle {
                true => LAST_REQUEST_GRACE,
                false => limits.idle,
            };
            if phase == Phase::Head && over(limits.header, since, now) {
                conn.order(Orders::HEADER_EXPIRED);
            } else if (phase == Phase::Idle || conn.has_unsent()) && over(idle, since, now) {
                conn.order(Orders::IDLE_EXPIRED);
            }
        }
        let age = oldest.map_or(0, |age| age.as_millis().clamp(1, u64::MAX.into()));
        self.shared.oldest_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Relaxed);
    }

    /// Taken out of the lock first: the last reference to one of them may be dropped meanwhile, and
    /// that takes the lock too.
    fn all(&self) -> Vec<Arc<Conn>> {
        lock(&self.shared.open).values().filter_map(Weak::upgrade).collect()
    }
}

/// Since when the connection is in this phase without progress, as far as sweeps have seen.
fn observe(conn: &Conn, raw: u64, now: Instant) -> Instant {
    let mut seen = lock(&conn.seen);
    if seen.phase != raw {
        *seen = Seen { phase: raw, since: now };
    }
    seen.since
}

fn over(limit: Duration, since: Instant, now: Instant) -> bool {
    !limit.is_zero() && now.saturating_duration_since(since) >= limit
}
