//! What hyper's side of a connection and our side of it know together.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Uri};

use super::UpgradeTo;
use crate::conn::{Conn, Orders, Phase};

/// Shared by the socket's wrapper, the handler, both bodies and the driver of one hyper connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: Arc<Conn>,
    /// Request bodies that are not read to their end.
    open_bodies: AtomicU32,
    /// A body was given up before its end, so hyper will close the connection.
    unread_body: AtomicBool,
    /// hyper has dispatched a request.
    is_touched: AtomicBool,
    upgrade: Mutex<Option<UpgradeTo>>,
}

impl Link {
    pub(super) fn new(conn: Arc<Conn>) -> Arc<Link> {
        Arc::new(Link {
            conn,
            open_bodies: AtomicU32::new(0),
            unread_body: AtomicBool::new(false),
            is_touched: AtomicBool::new(false),
            upgrade: Mutex::new(None),
        })
    }

    /// Whether hyper may read from the socket. A worker that hands over reads nothing more, or a
    /// pipelining client would decide how long that takes; but a body that was begun is finished.
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        let orders = self.conn.orders();
        !orders.any(Orders::HAND_OVER)
            || orders.any(Orders::CLOSE)
            || self.open_bodies.load(Acquire) > 0
    }

    /// The client has sent something: the beginning of a request, unless it belongs to a body.
    #[inline]
    pub(super) fn bytes_came(&self) {
        match self.open_bodies.load(Acquire) {
            0 => self.conn.head_bytes(),
            _ => self.conn.progress(),
        }
    }

    /// Whether all requests are answered and all answers have left this process, as far as this side
    /// can tell. hyper has the last word.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.conn.phase() != Phase::InHand
            && self.open_bodies.load(Acquire) == 0
            && !self.conn.has_unsent()
    }

    /// Whether hyper has not dispatched any request.
    pub(super) fn is_untouched(&self) -> bool {
        !self.is_touched.load(Relaxed)
    }

    /// A body will not be read.
    pub(super) fn give_up_body(&self) {
        self.unread_body.store(true, Relaxed);
    }

    /// Whether the client may still be sending a body that nobody reads.
    #[inline]
    pub(super) fn has_unread_body(&self) -> bool {
        self.unread_body.load(Relaxed)
    }

    pub(super) fn set_upgrade(&self, upgrade: UpgradeTo) {
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    pub(super) fn take_upgrade(&self) -> Option<UpgradeTo> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A request or its body is done: while draining this may be the moment to leave.
    #[inline]
    fn less_in_hand(&self) {
        if self.conn.orders().draining() {
            self.conn.wake();
        }
    }
}

/// Held by the handler of a request and then by the body of its answer: the request is in hand.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Link>);

impl Ticket {
    #[inline]
    pub(super) fn new(link: &Arc<Link>, method: &Method, uri: &Uri) -> Ticket {
        link.is_touched.store(true, Relaxed);
        link.conn.begin_request(method, uri);
        Ticket(Arc::clone(link))
    }

    #[inline]
    pub(super) fn link(&self) -> &Link {
        &self.0
    }

    #[inline]
    pub(super) fn conn(&self) -> &Arc<Conn> {
        &self.0.conn
    }
}

impl Drop for Ticket {
    #[inline]
    fn drop(&mut self) {
        // hyper has the whole answer now, and has not written all of it yet.
        self.0.conn.set_unsent(true);
        self.0.conn.end();
        self.0.less_in_hand();
    }
}

/// Held by a request body until it is read to its end or given up.
#[derive(Debug)]
pub(super) struct BodyGuard(Option<Arc<Link>>);

impl BodyGuard {
    /// For a body with something in it.
    pub(super) fn open(link: &Arc<Link>) -> BodyGuard {
        link.open_bodies.fetch_add(1, AcqRel);
        BodyGuard(Some(Arc::clone(link)))
    }

    /// For an empty one.
    pub(super) fn none() -> BodyGuard {
        BodyGuard(None)
    }

    /// Whether there is something left to read.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The body was read to its end.
    pub(super) fn finished(&mut self) {
        if let Some(link) = self.0.take() {
            link.open_bodies.fetch_sub(1, AcqRel);
            link.less_in_hand();
        }
    }
}

impl Drop for BodyGuard {
    #[inline]
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.give_up_body();
            self.finished();
        }
    }
}
