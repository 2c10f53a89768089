//! What is served at an address.

use std::collections::HashMap;
use std::sync::Arc;

use ::http::HeaderMap;
use bytes::Bytes;

use crate::conn::{Conn, Stream};
use crate::http::{self, HttpLimits, HttpService, Outcome};
use crate::session::ErasedHandler;
use crate::tcp::{self, Framing, LengthField, TcpHandler};
use crate::websocket::{self, WebSocket};

use super::callbacks::Boxed;

/// HTTP/1.1 at an address, and WebSocket for requests that ask for it.
pub struct Http<S> {
    service: Make<S, Arc<dyn ServeHttp>>,
    websockets: Vec<NamedWebSocket<S>>,
    marks: Option<Make<S, HeaderMap>>,
    cancel_on_disconnect: bool,
}

/// A WebSocket handler and the name that routes know it by.
type NamedWebSocket<S> = (String, Make<S, Arc<dyn ErasedHandler>>);
/// Makes something from a worker's state.
type Make<S, T> = Box<dyn Fn(&Arc<S>) -> T + Send + Sync>;

impl<S> Http<S> {
    /// Serves requests with a tower service, made once per worker from its state: an axum `Router`
    /// for example. It is cloned for each connection.
    ///
    /// A handler that panics is answered with 500, and the others go on. A handler whose client has
    /// gone runs to its end all the same. [`Peer::current`](crate::Peer::current) tells whose request
    /// it is.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use axum::extract::State;
    /// use axum::{Router, routing::get};
    /// use shiftwork::{Http, Peer, Worker};
    ///
    /// async fn who(State(worker): State<Arc<Worker>>) -> String {
    ///     let peer = Peer::current().map_or("nobody".to_owned(), |peer| peer.to_string());
    ///     format!("{peer} speaks to worker {}", worker.id())
    /// }
    ///
    /// let web = Http::new(|worker: &Arc<Worker>| {
    ///     Router::new().route("/who", get(who)).with_state(Arc::clone(worker))
    /// });
    /// # let _: Http<Worker> = web;
    /// ```
    #[must_use]
    pub fn new<V: HttpService + Sync>(make: impl Fn(&Arc<S>) -> V + Send + Sync + 'static) -> Self {
        Self {
            service: Box::new(move |state| Arc::new(Service(make(state)))),
            websockets: Vec::new(),
            marks: None,
            cancel_on_disconnect: false,
        }
    }

    /// A handler for connections that a route has answered with
    /// [`websocket::upgrade`](crate::websocket::upgrade) to this name. A route that names
    /// another one loses its connection after the 101, and that is logged.
    ///
    /// ```
    /// use axum::{Router, extract::Request, response::IntoResponse, routing::get};
    /// use shiftwork::websocket::{self, Connection, Message, WebSocket};
    /// use shiftwork::{BoxError, Http};
    ///
    /// struct Echo;
    ///
    /// impl WebSocket for Echo {
    ///     type Session = ();
    ///     async fn message(&self, conn: &mut Connection<()>, it: Message) -> Result<(), BoxError> {
    ///         Ok(conn.send(it).await?)
    ///     }
    /// }
    ///
    /// async fn echo(request: Request) -> impl IntoResponse {
    ///     websocket::upgrade(&request, "echo")
    /// }
    ///
    /// let web = Http::new(|_| Router::new().route("/echo", get(echo))).websocket("echo", |_| Echo);
    /// # let _: Http<()> = web;
    /// ```
    #[must_use]
    pub fn websocket<H: WebSocket>(
        mut self,
        name: &str,
        make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static,
    ) -> Self {
        let make = move |state: &Arc<S>| websocket::erased(make(state));
        self.websockets.push((name.to_owned(), Box::new(make)));
        self
    }

    /// Headers for the answers that Shiftwork gives in the application's place: 413, 503, 500 after
    /// a panic, and 400, 408, 414 and 431 to what is no request or not a whole one. The
    /// application's own answers are its own business.
    #[must_use]
    pub fn error_headers(
        mut self,
        headers: impl Fn(&Arc<S>) -> HeaderMap + Send + Sync + 'static,
    ) -> Self {
        self.marks = Some(Box::new(headers));
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
///
/// ```
/// use bytes::Bytes;
/// use shiftwork::tcp::{Connection, TcpHandler};
/// use shiftwork::{BoxError, Server, Tcp};
///
/// struct Echo;
///
/// impl TcpHandler for Echo {
///     type Session = ();
///     async fn receive(&self, conn: &mut Connection<()>, line: Bytes) -> Result<(), BoxError> {
///         Ok(conn.send_line(line).await?)
///     }
/// }
///
/// let server = Server::new("echo")
///     .default_setting("listen.lines.address", "127.0.0.1:7000")
///     .listen("lines", Tcp::lines(|_| Echo));
/// # let _ = server;
/// ```
pub struct Tcp<S> {
    make: Make<S, Arc<dyn ErasedHandler>>,
}

impl<S> Tcp<S> {
    /// The handler gets line after line, without their ends.
    #[must_use]
    pub fn lines<H: TcpHandler>(make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static) -> Self {
        Self::framed(Framing::Lines, make)
    }

    /// The handler gets messages that stand behind their length, without it; it answers with
    /// [`send_packet`](crate::tcp::Connection::send_packet).
    #[must_use]
    pub fn packets<H: TcpHandler>(
        length: LengthField,
        make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::framed(Framing::Packets(length), make)
    }

    /// The handler gets bytes as they come.
    #[must_use]
    pub fn bytes<H: TcpHandler>(make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static) -> Self {
        Self::framed(Framing::Bytes, make)
    }

    fn framed<H: TcpHandler>(
        framing: Framing,
        make: impl Fn(&Arc<S>) -> H + Send + Sync + 'static,
    ) -> Self {
        Self { make: Box::new(move |state| tcp::erased(make(state), framing)) }
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
                marks: http.marks.as_ref().map(|marks| Arc::new(marks(state))),
                cancel_on_disconnect: http.cancel_on_disconnect,
            },
            Kind::Tcp(tcp) => Serving::Tcp { handler: (tcp.make)(state) },
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

/// WebSocket handlers by their names.
pub(crate) type WebSockets = HashMap<String, Arc<dyn ErasedHandler>>;

/// A listener's handlers in one worker.
#[derive(Clone)]
pub(crate) enum Serving {
    Http {
        service: Arc<dyn ServeHttp>,
        websockets: Arc<WebSockets>,
        marks: Option<Arc<HeaderMap>>,
        cancel_on_disconnect: bool,
    },
    Tcp {
        handler: Arc<dyn ErasedHandler>,
    },
}

impl Serving {
    /// What is spoken on a new connection.
    pub(crate) fn protocol(&self) -> crate::conn::Protocol {
        match self {
            Self::Http { .. } => crate::conn::Protocol::Http1,
            Self::Tcp { .. } => crate::conn::Protocol::Tcp,
        }
    }
}

/// A service of any type, serving connection after connection.
pub(crate) trait ServeHttp: Send + Sync {
    /// Has a connection served by a task of its own, which calls `then` at its end.
    fn spawn(
        &self,
        stream: Stream,
        unread: Bytes,
        conn: Arc<Conn>,
        limits: HttpLimits,
        then: Box<dyn FnOnce(Outcome) + Send>,
    );

    /// Answers one request of this process's own, for a path; an error tells what was wrong with the
    /// answer.
    fn check(&self, path: String) -> Boxed<Result<(), String>>;
}

struct Service<V>(V);

impl<V: HttpService + Sync> ServeHttp for Service<V> {
    fn spawn(
        &self,
        stream: Stream,
        unread: Bytes,
        conn: Arc<Conn>,
        limits: HttpLimits,
        then: Box<dyn FnOnce(Outcome) + Send>,
    ) {
        let service = self.0.clone();
        tokio::spawn(async move { then(http::serve(stream, unread, conn, service, limits).await) });
    }

    fn check(&self, path: String) -> Boxed<Result<(), String>> {
        Box::pin(http::check(self.0.clone(), path))
    }
}
