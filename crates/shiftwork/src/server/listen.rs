//! What is served at an address.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::conn::{Conn, Stream};
use crate::http::{self, HttpLimits, HttpService, Outcome};
use crate::tcp::{self, ErasedTcp, Framing, TcpHandler};
use crate::websocket::{self, ErasedWebSocket, WebSocket};

use super::callbacks::Boxed;

/// HTTP/1.1 at an address, and WebSocket for requests that ask for it.
pub struct Http<S> {
    service: Box<dyn Fn(&Arc<S>) -> Arc<dyn ServeHttp> + Send + Sync>,
    websockets: Vec<(String, MakeWebSocket<S>)>,
    cancel_on_disconnect: bool,
}

type MakeWebSocket<S> = Box<dyn Fn(&Arc<S>) -> Arc<dyn ErasedWebSocket> + Send + Sync>;

impl<S> Http<S> {
    /// Serves requests with a tower service, made once per worker from its state: an axum `Router`
    /// for example. It is cloned for each connection.
    ///
    /// A handler that panics is answered with 500, and the others go on. A handler whose client has
    /// gone runs to its end all the same.
    #[must_use]
    pub fn new<V: HttpService + Sync>(make: impl Fn(&Arc<S>) -> V + Send + Sync + 'static) -> Self {
        Self {
            service: Box::new(move |state| Arc::new(Service(make(state)))),
            websockets: Vec::new(),
            cancel_on_disconnect: false,
        }
    }

    /// A handler for connections that a route has answered with
    /// [`websocket::upgrade`](crate::websocket::upgrade) to this name.
    #[must_use]
    pub fn websocket<H: WebSocket>(
        mut self,
        name: &str,
        make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static,
    ) -> Self {
        let make: MakeWebSocket<S> = Box::new(move |state| websocket::erased(make(state)));
        self.websockets.push((name.to_owned(), make));
        self
    }

    /// Drops a handler at its next await when its client has gone: for work that is of no use to
    /// anybody else. Default: it runs to its end.
    #[must_use]
    pub fn cancel_on_disconnect(mut self) -> Self {
        self.cancel_on_disconnect = true;
        self
    }
}

/// Raw TCP, or a raw Unix stream, at an address.
pub struct Tcp<S> {
    framing: Framing,
    make: Box<dyn Fn(&Arc<S>) -> Arc<dyn ErasedTcp> + Send + Sync>,
}

impl<S> Tcp<S> {
    /// The handler gets line after line, without their ends.
    #[must_use]
    pub fn lines<H: TcpHandler>(make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static) -> Self {
        Self { framing: Framing::Lines, make: Box::new(move |state| tcp::erased(make(state))) }
    }

    /// The handler gets bytes as they come.
    #[must_use]
    pub fn bytes<H: TcpHandler>(make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static) -> Self {
        Self { framing: Framing::Bytes, make: Box::new(move |state| tcp::erased(make(state))) }
    }
}

/// What is served at an address; made from [`Http`] or [`Tcp`].
pub struct Listener<S>(Kind<S>);

enum Kind<S> {
    Http(Http<S>),
    Tcp(Tcp<S>),
}

impl<S> From<Http<S>> for Listener<S> {
    fn from(http: Http<S>) -> Self {
        Self(Kind::Http(http))
    }
}

impl<S> From<Tcp<S>> for Listener<S> {
    fn from(tcp: Tcp<S>) -> Self {
        Self(Kind::Tcp(tcp))
    }
}

impl<S> Listener<S> {
    /// What is spoken, for people.
    pub(crate) fn protocol(&self) -> Protocol {
        match &self.0 {
            Kind::Http(_) => Protocol::Http,
            Kind::Tcp(_) => Protocol::Tcp,
        }
    }

    /// What a worker serves with, from its state.
    pub(crate) fn serving(&self, state: &Arc<S>) -> Serving {
        match &self.0 {
            Kind::Http(http) => Serving::Http {
                service: (http.service)(state),
                websockets: Arc::new(
                    http.websockets
                        .iter()
                        .map(|(name, make)| (name.clone(), make(state)))
                        .collect(),
                ),
                cancel_on_disconnect: http.cancel_on_disconnect,
            },
            Kind::Tcp(tcp) => Serving::Tcp { framing: tcp.framing, handler: (tcp.make)(state) },
        }
    }
}

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Tcp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// A listener's handlers in one worker.
#[derive(Clone)]
pub(crate) enum Serving {
    Http {
        service: Arc<dyn ServeHttp>,
        websockets: Arc<HashMap<String, Arc<dyn ErasedWebSocket>>>,
        cancel_on_disconnect: bool,
    },
    Tcp {
        framing: Framing,
        handler: Arc<dyn ErasedTcp>,
    },
}

/// A service of any type, serving connection after connection.
pub(crate) trait ServeHttp: Send + Sync {
    fn serve(
        &self,
        stream: Stream,
        unread: Bytes,
        conn: Arc<Conn>,
        limits: HttpLimits,
    ) -> Boxed<Outcome>;
}

struct Service<V>(V);

impl<V: HttpService + Sync> ServeHttp for Service<V> {
    fn serve(
        &self,
        stream: Stream,
        unread: Bytes,
        conn: Arc<Conn>,
        limits: HttpLimits,
    ) -> Boxed<Outcome> {
        Box::pin(http::serve(stream, unread, conn, self.0.clone(), limits))
    }
}
