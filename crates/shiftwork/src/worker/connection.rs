//! A connection's way through this process: from accept or adoption to its end or to another
//! worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::conn::{Conn, Peer, Protocol, Registry, Stream};
use crate::hand_over::{Passport, Sender, Traveller};
use crate::http::{HttpLimits, Outcome};
use crate::server::Serving;
use crate::session::{Begin, OnDrain, Start, StreamLimits};
use crate::tcp;
use crate::websocket;

/// What connections are served with, the same for all of a worker.
pub(super) struct Service {
    pub(super) registry: Registry,
    pub(super) listeners: HashMap<String, Serving>,
    pub(super) http: HttpLimits,
    pub(super) stream: StreamLimits,
    pub(super) sender: Sender,
}

/// A connection that begins in this process.
pub(super) struct Arrival {
    pub(super) listener: Arc<str>,
    pub(super) stream: Stream,
    pub(super) unread: Bytes,
    pub(super) idle_for: Duration,
}

impl Service {
    /// Enters a connection and has it served. Entered before anything is spawned for it: a worker
    /// that drains and finds its registry empty takes itself for done.
    pub(super) fn take_in(self: &Arc<Self>, arrival: Arrival) {
        let Some(serving) = self.listeners.get(&*arrival.listener) else {
            tracing::warn!(
                "a connection of listener {:?} came over, which this release does not have; \
                 it is closed",
                arrival.listener
            );
            return;
        };
        // A client that has gone already has no address any more.
        let Ok(peer) = arrival.stream.peer() else { return };
        let conn =
            self.registry.open_on(&arrival.listener, serving.protocol(), peer, arrival.idle_for);
        tokio::spawn(Arc::clone(self).serve(serving.clone(), arrival, peer, conn));
    }

    /// Serves a connection to its end in this process.
    async fn serve(
        self: Arc<Self>,
        serving: Serving,
        arrival: Arrival,
        peer: Peer,
        conn: Arc<Conn>,
    ) {
        match serving {
            Serving::Http { service, websockets, marks, cancel_on_disconnect } => {
                if let Some(marks) = marks {
                    conn.set_marks(marks);
                }
                let limits = HttpLimits { cancel_on_disconnect, ..self.http };
                let outcome =
                    service.serve(arrival.stream, arrival.unread, Arc::clone(&conn), limits).await;
                match outcome {
                    Outcome::Closed(reason) => tracing::debug!("{peer}: {reason:?}"),
                    Outcome::HandOver { stream, unread, idle_for } => {
                        self.hand_over(&arrival.listener, stream, unread, idle_for);
                    }
                    Outcome::Upgraded { stream, unread, upgrade } => {
                        let Some(handler) = websockets.get(&upgrade.handler) else {
                            tracing::error!(
                                "a request was upgraded to {:?}; no websocket handler of \
                                 listener {:?} has this name",
                                upgrade.handler,
                                arrival.listener
                            );
                            return;
                        };
                        conn.set_protocol(Protocol::WebSocket);
                        let mut start = Start::new(stream, peer, conn);
                        start.unread = unread;
                        start.begin = upgrade.session.map_or(Begin::Fresh, Begin::With);
                        start.limits = self.stream;
                        start.on_drain = OnDrain::Close;
                        let _ = websocket::serve(Arc::clone(handler), start).await;
                    }
                }
            }
            Serving::Tcp { framing, handler } => {
                let mut start = Start::new(arrival.stream, peer, conn);
                start.unread = arrival.unread;
                start.limits = self.stream;
                start.on_drain = OnDrain::Serve;
                let _ = tcp::serve(handler, framing, start).await;
            }
        }
    }

    /// Passes a connection on that was accepted and not looked at.
    pub(super) fn pass_on(&self, listener: &str, stream: Stream) {
        self.hand_over(listener, stream, Bytes::new(), Duration::ZERO);
    }

    fn hand_over(&self, listener: &str, stream: Stream, unread: Bytes, idle_for: Duration) {
        let socket = match stream.into_fd() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!("a connection cannot be handed over: {error}");
                return;
            }
        };
        let passport = Passport {
            protocol: self.listeners.get(listener).map_or(Protocol::Http1, Serving::protocol),
            listener: listener.to_owned(),
            handler: None,
            unread,
            session: None,
            idle_for,
        };
        if self.sender.send(Traveller { socket, passport }).is_err() {
            tracing::warn!("a connection is closed: the time to hand it over has passed");
        }
    }
}
