//! What a worker has done and is doing, as numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use shiftwork_sys::clock::Anchor;
use shiftwork_sys::slab::{Row, Slab};

use super::in_hand::Kind;

/// Counters of one worker: they lie where other processes see them, so that they are true even while
/// a handler blocks the worker.
#[derive(Debug)]
pub struct Counters {
    place: Place,
    clock: Anchor,
}

#[derive(Debug)]
enum Place {
    /// Nobody else looks.
    Own(Box<Row>),
    /// This worker's row of the shared slab.
    Slab(Arc<Slab>, u32),
}

/// What [`Registry::totals`](super::Registry::totals) found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests (messages, for protocols that have those) begun since the worker started.
    pub requests: u64,
    /// Requests begun and not finished, those whose client has gone included.
    pub in_hand: u64,
    /// Connections open now.
    pub connections: u64,
    /// Answers with a status of 500 or above since the worker started.
    pub failures: u64,
    /// Age of the oldest request in hand, as of the last sweep.
    pub oldest: Option<Duration>,
}

/// How a request was answered: by the first digit of its status; 0: not (yet).
pub(super) type Class = u8;

pub(super) fn class_of(status: StatusCode) -> Class {
    u8::try_from(status.as_u16() / 100).unwrap_or(0)
}

impl Default for Counters {
    fn default() -> Self {
        Self { place: Place::Own(Box::default()), clock: Anchor::now() }
    }
}

impl Counters {
    /// Counts in the row `number` of `slab`, which has to be this process's.
    pub fn shown(slab: Arc<Slab>, number: u32) -> Self {
        Self { place: Place::Slab(slab, number), clock: Anchor::now() }
    }

    #[inline]
    fn row(&self) -> &Row {
        match &self.place {
            Place::Own(row) => row,
            Place::Slab(slab, number) => slab.row(*number),
        }
    }

    /// Requests begun since the worker started.
    pub fn requests(&self) -> u64 {
        self.row().counts.requests() + self.in_hand()
    }

    /// Requests begun and not finished.
    pub fn in_hand(&self) -> u64 {
        self.row().in_flight()
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.row().connections()
    }

    /// Answers with a status of 500 or above since the worker started.
    pub fn failures(&self) -> u64 {
        self.row().counts.failures()
    }

    pub(super) fn opened(&self) {
        self.row().one_more_connection();
    }

    pub(super) fn closed(&self) {
        self.row().one_fewer_connection();
    }

    /// The time by which requests are measured: microseconds of the monotonic clock.
    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.us_at(Instant::now())
    }

    #[inline]
    pub(super) fn us_at(&self, instant: Instant) -> u64 {
        self.clock.us_at(instant)
    }

    /// Something begins now; gives when that is.
    #[inline]
    pub(super) fn begun(&self) -> u64 {
        let now_us = self.now_us();
        let row = self.row();
        if row.one_more_in_flight() == 0 {
            // A blocked worker does not sweep: this is the oldest until then.
            row.set_oldest_ms(now_us / 1000);
        }
        now_us
    }

    /// What has begun then is over now.
    #[inline]
    pub(super) fn over(&self, kind: Kind, class: Class, since_us: u64) {
        let row = self.row();
        let counts = &row.counts;
        counts.latency.record(self.now_us().saturating_sub(since_us));
        match (kind, class) {
            (Kind::Request, 1) => counts.add_informational(1),
            (Kind::Request, 2) => counts.add_successes(1),
            (Kind::Request, 3) => counts.add_redirects(1),
            (Kind::Request, 4) => counts.add_client_errors(1),
            (Kind::Request, 5..) => counts.add_failures(1),
            // Cut, or left by its client with nobody to finish it.
            (Kind::Request, 0) => {}
            _ => counts.add_calls(1),
        }
        if row.one_fewer_in_flight() == 1 {
            row.set_oldest_ms(0);
        }
    }

    pub(super) fn handler_failed(&self) {
        self.row().counts.add_handler_errors(1);
    }

    /// A connection was taken by another worker.
    pub(crate) fn handed_over(&self) {
        self.row().counts.add_handed_over(1);
    }

    /// A connection was taken from another worker.
    pub(crate) fn adopted(&self) {
        self.row().counts.add_adopted(1);
    }

    /// Connections were closed because nobody could take them.
    pub(crate) fn not_handed_over(&self, connections: usize) {
        self.row().counts.add_hand_over_failures(connections as u64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::conn::{Peer, Protocol, Registry};
    use crate::session::Call;

    const PEER: Peer = Peer::Unix { uid: 0, pid: 0 };

    #[test]
    fn every_request_is_in_one_class_and_in_the_distribution() {
        let slab = Arc::new(Slab::create(4).unwrap());
        let registry = Registry::counting(Counters::shown(Arc::clone(&slab), 3));
        let conn = registry.open(Protocol::Http1, PEER, Duration::ZERO);
        let get = || conn.begin_request(&http::Method::GET, &http::Uri::from_static("/"));
        for status in [101, 200, 204, 301, 404, 500, 503] {
            get();
            assert!(slab.row(3).in_flight() == 1 && slab.row(3).oldest_ms() > 0);
            conn.answered(StatusCode::from_u16(status).unwrap());
            conn.end();
        }
        // Cut before its answer; the one before must not lend it its class.
        get();
        conn.end();
        conn.begin_call(Call::Message);
        conn.end();
        conn.handler_failed();
        // A connection that comes over asks for nothing.
        conn.begin_call(Call::Resume);
        assert_eq!(slab.row(3).in_flight(), 0);
        conn.end();
        let row = slab.row(3);
        let sums = row.counts.read();
        assert_eq!((row.in_flight(), row.oldest_ms(), row.connections()), (0, 0, 1));
        assert_eq!((sums.requests(), sums.latency.count(), sums.calls), (9, 9, 1));
        assert_eq!((sums.informational, sums.successes, sums.redirects), (1, 2, 1));
        assert_eq!((sums.client_errors, sums.failures, sums.handler_errors), (1, 2, 1));
        drop(conn);
        assert_eq!(row.connections(), 0);
    }

    #[test]
    fn several_threads_lose_no_count() {
        let slab = Arc::new(Slab::create(1).unwrap());
        let registry = Registry::counting(Counters::shown(Arc::clone(&slab), 0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let conn = registry.open(Protocol::Tcp, PEER, Duration::ZERO);
                    for _ in 0..10_000 {
                        conn.begin_call(Call::Message);
                        conn.end();
                    }
                });
            }
        });
        let sums = slab.row(0).counts.read();
        assert_eq!((sums.requests(), sums.calls, sums.latency.count()), (40_000, 40_000, 40_000));
        assert_eq!((slab.row(0).in_flight(), slab.row(0).connections()), (0, 0));
    }
}
