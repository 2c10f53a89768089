//! Whose request this thread is handling.

use std::cell::Cell;

use crate::session::Peer;

thread_local! {
    static CURRENT: Cell<Option<Peer>> = const { Cell::new(None) };
}

impl Peer {
    /// The client whose HTTP request is being handled here: in the service, in what it calls and
    /// awaits, and in the body of its answer. `None` anywhere else, so also in a task or thread that
    /// the handler has spawned, a guarded section for one: hand the peer on to it.
    ///
    /// For middleware that looks for a client among a request's extensions, put it there:
    ///
    /// ```
    /// use axum::extract::{ConnectInfo, Request};
    /// use axum::{Router, middleware, routing::get};
    /// use shiftwork::{Http, Peer};
    ///
    /// async fn introduce(mut request: Request) -> Request {
    ///     if let Some(Peer::Tcp(address)) = Peer::current() {
    ///         request.extensions_mut().insert(ConnectInfo(address));
    ///     }
    ///     request
    /// }
    ///
    /// let web = Http::new(|_| {
    ///     Router::new().route("/", get(async || "hello")).layer(middleware::map_request(introduce))
    /// });
    /// # let _: Http<()> = web;
    /// ```
    #[must_use]
    pub fn current() -> Option<Peer> {
        CURRENT.get()
    }
}

/// While it is there, its peer's request is handled on this thread.
pub(super) struct Current(());

impl Current {
    #[inline]
    pub(super) fn is(peer: Peer) -> Current {
        CURRENT.set(Some(peer));
        Current(())
    }
}

/// Also if what runs meanwhile panics.
impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_current_as_long_as_it_is_said() {
        let peer = Peer::Unix { uid: 1, pid: 2 };
        assert_eq!(Peer::current(), None);
        let current = Current::is(peer);
        assert_eq!(Peer::current(), Some(peer));
        assert_eq!(std::thread::spawn(Peer::current).join().ok(), Some(None));
        drop(current);
        assert_eq!(Peer::current(), None);
    }
}
