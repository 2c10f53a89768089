//! A connection's way through this process: from accept or adoption to its end or to another
//! worker.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::conn::{Conn, Peer, Protocol, Registry, Stream};
use crate::hand_over::{Passport, Sender, Traveller};
use crate::http::{HttpLimits, Outcome};
use crate::server::{Serving, WebSockets};
use crate::session::{
    self, Begin, BoxError, CloseReason, ErasedHandler, OnDrain, Saved, Start, StreamLimits,
};
use crate::websocket;

/// In the place of an address that nobody can ask for any more.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What connections are served with, the same for all of a worker.
pub(super) struct Service {
    pub(super) registry: Registry,
    pub(super) listeners: HashMap<String, Serving>,
    pub(super) http: HttpLimits,
    pub(super) stream: StreamLimits,
    pub(super) sender: Sender,
    /// The setting `session_write_version`.
    pub(super) write_version: Option<u32>,
}

/// A connection that begins in this process.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) passport: Passport,
}

impl Arrival {
    /// One that was accepted and not looked at.
    pub(super) fn new(listener: &str, protocol: Protocol, stream: Stream) -> Self {
        let passport = Passport {
            protocol,
            listener: listener.to_owned(),
            handler: None,
            unread: Bytes::new(),
            session: None,
            idle_for: Duration::ZERO,
        };
        Self { stream, passport }
    }
}

impl Service {
    /// What is spoken on a new connection of a listener.
    pub(super) fn protocol(&self, listener: &str) -> Protocol {
        self.listeners.get(listener).map_or(Protocol::Http1, Serving::protocol)
    }

    /// Enters a connection and has it served. Entered before anything is spawned for it: a worker
    /// that drains and finds its registry empty takes itself for done.
    pub(super) fn take_in(self: &Arc<Self>, listener: &Arc<str>, arrival: Arrival) {
        let Some(serving) = self.listeners.get(&**listener) else {
            tracing::warn!(
                "a connection of listener {listener:?} came over, which this release does not \
                 have; it is closed"
            );
            self.registry.counters().not_handed_over(1);
            return;
        };
        // A client that has gone already has no address any more. Its handler still has to hear of it,
        // if it has one.
        let peer = match arrival.stream.peer() {
            Ok(peer) => peer,
            Err(_) if arrival.passport.session.is_some() => Peer::Tcp(NOWHERE),
            Err(_) => return,
        };
        let Passport { protocol, idle_for, .. } = arrival.passport;
        let conn = self.registry.open_on(listener, protocol, peer, idle_for);
        Arc::clone(self).begin(serving.clone(), arrival, peer, conn);
    }

    /// Has a connection served until it ends, or leaves this process.
    fn begin(self: Arc<Self>, serving: Serving, arrival: Arrival, peer: Peer, conn: Arc<Conn>) {
        let Arrival { stream, mut passport } = arrival;
        match (serving, passport.protocol) {
            (serving, Protocol::WebSocket) => {
                let (start, passport) = self.adopted(stream, passport, peer, Arc::clone(&conn));
                let websockets = match serving {
                    Serving::Http { websockets, .. } => Some(websockets),
                    Serving::Tcp { .. } => None,
                };
                self.begin_websocket(websockets, start, passport, conn);
            }
            (
                Serving::Http { service, websockets, marks, cancel_on_disconnect },
                Protocol::Http1,
            ) => {
                if let Some(marks) = marks {
                    conn.set_marks(marks);
                }
                let limits = HttpLimits { cancel_on_disconnect, ..self.http };
                let unread = std::mem::take(&mut passport.unread);
                let served = Arc::clone(&conn);
                let then = move |outcome| self.after_http(outcome, passport, websockets, conn);
                service.spawn(stream, unread, served, limits, Box::new(then));
            }
            (Serving::Tcp { handler }, Protocol::Tcp) => {
                let (start, passport) = self.adopted(stream, passport, peer, Arc::clone(&conn));
                self.begin_session(handler, start, passport, conn);
            }
            (Serving::Http { .. }, Protocol::Tcp) | (Serving::Tcp { .. }, Protocol::Http1) => {
                tracing::warn!(
                    "a connection of listener {:?} came over that speaks {}; this release speaks \
                     something else there, and closes it",
                    passport.listener,
                    passport.protocol
                );
            }
        }
    }

    /// HTTP is over on a connection: it has ended, leaves, or speaks something else from here on.
    /// `conn` keeps it in the registry until then: a worker that drains, and finds it neither there
    /// nor in the sender's queue, takes itself for done.
    fn after_http(
        self: Arc<Self>,
        outcome: Outcome,
        passport: Passport,
        websockets: Arc<WebSockets>,
        conn: Arc<Conn>,
    ) {
        match outcome {
            Outcome::Closed(reason) => tracing::debug!("{}: {reason:?}", conn.peer()),
            Outcome::HandOver { stream, unread, idle_for } => {
                self.hand_over(stream, Passport { unread, idle_for, ..passport });
            }
            Outcome::Upgraded { stream, unread, upgrade } => {
                conn.set_protocol(Protocol::WebSocket);
                let mut start = self.start(stream, unread, conn.peer(), Arc::clone(&conn));
                start.begin = upgrade.session.map_or(Begin::Fresh, Begin::With);
                let handler = Some(upgrade.handler);
                let passport = Passport { protocol: Protocol::WebSocket, handler, ..passport };
                self.begin_websocket(Some(websockets), start, passport, conn);
            }
        }
    }

    fn begin_websocket(
        self: Arc<Self>,
        handlers: Option<Arc<WebSockets>>,
        start: Start<Stream>,
        passport: Passport,
        conn: Arc<Conn>,
    ) {
        let name = passport.handler.as_deref().unwrap_or_default();
        let handler = handlers.as_ref().and_then(|it| it.get(name)).cloned().unwrap_or_else(|| {
            let listener = &passport.listener;
            tracing::error!("listener {listener:?} has no websocket handler {name:?}");
            websocket::erased(Nobody)
        });
        self.begin_session(handler, start, passport, conn);
    }

    /// `conn`: as in [`after_http`](Self::after_http).
    fn begin_session(
        self: Arc<Self>,
        handler: Arc<dyn ErasedHandler>,
        start: Start<Stream>,
        passport: Passport,
        conn: Arc<Conn>,
    ) {
        tokio::spawn(async move {
            let outcome = session::serve(handler, start).await;
            self.after(outcome, passport);
            drop(conn);
        });
    }

    fn start(&self, stream: Stream, unread: Bytes, peer: Peer, conn: Arc<Conn>) -> Start<Stream> {
        let mut start = Start::new(stream, peer, conn);
        start.unread = unread;
        start.limits = self.stream;
        start.on_drain = OnDrain::HandOver;
        start.write_version = self.write_version;
        start
    }

    /// How a connection begins that was accepted, or served by another process so far.
    fn adopted(
        &self,
        stream: Stream,
        mut passport: Passport,
        peer: Peer,
        conn: Arc<Conn>,
    ) -> (Start<Stream>, Passport) {
        let unread = std::mem::take(&mut passport.unread);
        let mut start = self.start(stream, unread, peer, conn);
        start.begin = match (passport.session.take(), passport.protocol) {
            (Some(session), _) => match Saved::from_bytes(&session) {
                Some(saved) => Begin::Adopt(Saved { idle: passport.idle_for, ..saved }),
                None => Begin::Unreadable,
            },
            // Its 101 was given elsewhere, so it cannot begin here.
            (None, Protocol::WebSocket) => Begin::Unreadable,
            (None, _) => Begin::Fresh,
        };
        (start, passport)
    }

    /// A long-lived connection has ended, or leaves with its session.
    fn after(&self, outcome: session::Outcome<Stream>, passport: Passport) {
        let parcel = match outcome {
            session::Outcome::HandOver(parcel) => parcel,
            session::Outcome::Closed(CloseReason::Unreadable) => {
                self.registry.counters().not_handed_over(1);
                return;
            }
            session::Outcome::Closed(_) => return,
        };
        let saved = match parcel.saved.to_bytes() {
            Ok(saved) => saved,
            Err(error) => {
                tracing::error!("a connection cannot be handed over: {error}");
                self.registry.counters().not_handed_over(1);
                return;
            }
        };
        let idle_for = parcel.saved.idle;
        let session = Some(Bytes::from(saved));
        let passport = Passport { unread: parcel.unread, session, idle_for, ..passport };
        self.hand_over(parcel.stream, passport);
    }

    /// Passes a connection on that was accepted and not looked at.
    pub(super) fn pass_on(&self, listener: &str, stream: Stream) {
        let Arrival { stream, passport } = Arrival::new(listener, self.protocol(listener), stream);
        self.hand_over(stream, passport);
    }

    fn hand_over(&self, stream: Stream, passport: Passport) {
        let socket = match stream.into_fd() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!("a connection cannot be handed over: {error}");
                self.registry.counters().not_handed_over(1);
                return;
            }
        };
        if self.sender.send(Traveller { socket, passport }).is_err() {
            tracing::warn!("a connection is closed: the time to hand it over has passed");
            self.registry.counters().not_handed_over(1);
        }
    }
}

/// Stands in for a handler that this release does not have: nothing can be read as its session, so
/// that the client is told 1012, and may come again to whatever there is now.
struct Nobody;

impl websocket::WebSocket for Nobody {
    type Session = Unreadable;

    async fn open(&self, conn: &mut websocket::Connection<Unreadable>) -> Result<(), BoxError> {
        conn.close(websocket::code::RESTART, "service restart");
        Ok(())
    }

    async fn message(
        &self,
        _: &mut websocket::Connection<Unreadable>,
        _: websocket::Message,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

#[derive(Default, Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("nobody reads this"))
    }
}
