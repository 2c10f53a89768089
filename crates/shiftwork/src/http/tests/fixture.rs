//! A worker's half of a connection, and a client that checks every byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tower_service::Service;

use crate::conn::{Conn, Drain, Peer, Protocol, Registry, Stream};
use crate::http::{BoxError, HttpLimits, Outcome, RequestBody, UpgradeTo, serve};

pub(super) type Body = BoxBody<Bytes, BoxError>;

/// What handlers and tests tell each other.
#[derive(Default)]
pub(super) struct Stage {
    /// A handler that waits has begun.
    pub(super) begun: Notify,
    /// Lets waiting handlers go on, one permit each.
    pub(super) go_on: Semaphore0,
    /// A waiting handler is done.
    pub(super) done: Notify,
    /// A waiting handler was dropped.
    pub(super) dropped: Notify,
}

/// A semaphore without permits.
pub(super) struct Semaphore0(pub(super) Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Semaphore0(Semaphore::new(0))
    }
}

impl Stage {
    pub(super) fn let_go(&self) {
        self.go_on.0.add_permits(1);
    }

    async fn wait(&self) {
        struct OnDrop<'a>(&'a Stage, bool);
        impl Drop for OnDrop<'_> {
            fn drop(&mut self) {
                let told = if self.1 { &self.0.done } else { &self.0.dropped };
                told.notify_one();
            }
        }
        let mut guard = OnDrop(self, false);
        self.begun.notify_one();
        self.go_on.0.acquire().await.unwrap().forget();
        guard.1 = true;
    }
}

/// `/hello`, `/wait` (until let go), `/echo`, `/ignore` (answers without reading the body), `/panic`,
/// `/fail`, `/stream` (a first chunk, then one when let go), `/ws` (101), `/odd` (101 without heir),
/// `/big?N` (N bytes).
pub(super) async fn answer(
    request: Request<RequestBody>,
    stage: Arc<Stage>,
) -> Result<Response<Body>, BoxError> {
    let text = |text: String| Full::from(text).map_err(|never| match never {}).boxed();
    let (parts, body) = request.into_parts();
    let plain = match parts.uri.path() {
        "/wait" => {
            stage.wait().await;
            text("waited".into())
        }
        "/echo" => {
            let all = body.collect().await?;
            let trailers = all.trailers().map_or(0, |trailers| trailers.len());
            let bytes = all.to_bytes();
            if trailers > 0 {
                text(format!("{}+{trailers}", String::from_utf8_lossy(&bytes)))
            } else {
                Full::from(bytes).map_err(|never| match never {}).boxed()
            }
        }
        "/echo-late" => {
            stage.wait().await;
            text(format!("{} bytes", body.collect().await?.to_bytes().len()))
        }
        "/limit" => {
            let error = body.collect().await.map(drop).unwrap_err();
            let limit = error.downcast_ref::<http_body_util::LengthLimitError>();
            text(limit.map_or("something else", |_| "too long").into())
        }
        "/panic" => panic!("as asked"),
        "/fail" => return Err("as asked".into()),
        "/peer" => {
            let before = Peer::current();
            tokio::task::yield_now().await;
            text(format!("{}", before.is_some() && before == Peer::current()))
        }
        "/stream" | "/stuck" => {
            let size = if parts.uri.path() == "/stuck" { 50_000_000 } else { 5 };
            let first = Bytes::from("first".repeat(size / 5));
            let wait = Box::pin(async move { stage.wait().await });
            Streamed { step: 0, first, wait }.boxed()
        }
        "/ws" | "/odd" => {
            let mut response = Response::new(text(String::new()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("x-mine", "yes".parse().unwrap());
            // Promises what nobody here keeps.
            let deflate = "permessage-deflate".parse().unwrap();
            response.headers_mut().insert("sec-websocket-extensions", deflate);
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            if parts.uri.path() == "/ws" {
                let to = UpgradeTo { handler: "echo".into(), session: Some(vec![7]) };
                response.extensions_mut().insert(to);
            }
            return Ok(response);
        }
        "/big" => {
            let size = parts.uri.query().unwrap().parse().unwrap();
            text("x".repeat(size))
        }
        path => text(format!("{} {path}", parts.method)),
    };
    Ok(Response::new(plain))
}

/// `first`, and `second` when it is let go.
struct Streamed {
    step: u8,
    first: Bytes,
    wait: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.step += 1;
        match self.step {
            1 => Poll::Ready(Some(Ok(Frame::data(self.first.clone())))),
            2 => {
                self.step = 1;
                ready!(self.wait.as_mut().poll(cx));
                self.step = 2;
                Poll::Ready(Some(Ok(Frame::data("second".into()))))
            }
            _ => Poll::Ready(None),
        }
    }
}

/// One connection under test.
pub(super) struct Test {
    pub(super) client: TcpStream,
    pub(super) registry: Registry,
    pub(super) stage: Arc<Stage>,
    pub(super) limits: HttpLimits,
    pub(super) conn: std::sync::Weak<Conn>,
    pub(super) driver: JoinHandle<Outcome>,
}

pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    let client = client.unwrap();
    // What is sent in parts has to leave in parts.
    client.set_nodelay(true).unwrap();
    (client, server.unwrap().0)
}

impl Test {
    pub(super) async fn new() -> Test {
        Test::with(HttpLimits::default()).await
    }

    pub(super) async fn with(limits: HttpLimits) -> Test {
        let (client, server) = pair().await;
        Test::on(client, Stream::accepted_tcp(server), Bytes::new(), limits, Registry::new())
    }

    pub(super) fn on(
        client: TcpStream,
        stream: Stream,
        prefix: Bytes,
        limits: HttpLimits,
        registry: Registry,
    ) -> Test {
        let stage = Arc::new(Stage::default());
        let peer = stream.peer().unwrap();
        let conn = registry.open(Protocol::Http1, peer, Duration::ZERO);
        let weak = Arc::downgrade(&conn);
        let service = {
            let stage = Arc::clone(&stage);
            tower::service_fn(move |request| answer(request, Arc::clone(&stage)))
        };
        let driver = tokio::spawn(serve(stream, prefix, conn, service, limits));
        Test { client, registry, stage, limits, conn: weak, driver }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads one answer: its head and its body.
    pub(super) async fn read(&mut self) -> (String, String) {
        read_answer(&mut self.client).await
    }

    pub(super) async fn get(&mut self, path: &str) -> (String, String) {
        self.send(get(path)).await;
        self.read().await
    }

    pub(super) fn sweep_in(&self, later: Duration) {
        // The first look notes what there is, the second finds it unchanged.
        self.registry.sweep(Instant::now(), self.limits.sweep());
        self.registry.sweep(Instant::now() + later, self.limits.sweep());
    }

    pub(super) async fn outcome(self) -> Outcome {
        tokio::time::timeout(Duration::from_secs(10), self.driver).await.unwrap().unwrap()
    }

    /// Drains, and takes the connection up again as another worker would.
    pub(super) async fn move_on(self) -> (Test, Bytes) {
        self.registry.drain_all(Drain::HandOver);
        let (limits, client) = (self.limits, self.client);
        let outcome = tokio::time::timeout(Duration::from_secs(10), self.driver).await;
        let Outcome::HandOver { stream, unread, .. } = outcome.unwrap().unwrap() else {
            panic!("not handed over")
        };
        let stream = Stream::adopt(stream.into_fd().unwrap()).unwrap();
        (Test::on(client, stream, unread.clone(), limits, Registry::new()), unread)
    }

    /// Until all that was sent so far has reached the server's socket, and whoever that or an order
    /// has woken has had its turn: what the driver reads has been read then, and what is left in the
    /// socket is left on purpose.
    pub(super) async fn settle(&self) {
        settle(&self.client).await;
    }

    /// Until the client has so much that is not taken that the driver has to keep some of the answer.
    pub(super) async fn until_unsent(&self) {
        let conn = self.conn.upgrade().unwrap();
        until(|| conn.has_unsent()).await;
    }

    pub(super) async fn at_eof(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(10), self.client.read(&mut byte));
        matches!(read.await.unwrap(), Ok(0))
    }
}

/// See [`Test::settle`].
pub(super) async fn settle(client: &TcpStream) {
    until(|| has_arrived(client)).await;
    for _ in 0..LONGEST_CHAIN {
        turn().await;
    }
}

/// Lets the runtime turn until something is true.
pub(super) async fn until(mut reached: impl FnMut() -> bool) {
    let reached = async {
        while !reached() {
            turn().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
}

/// More than the tasks that wake each other, one after the other, before all is quiet: the driver, the
/// handler, and the driver again.
const LONGEST_CHAIN: u32 = 8;

/// One turn of the runtime, which has one thread: the poller has told of every socket that had become
/// ready before, and every task that was ready has run.
async fn turn() {
    // A socket that is ready now is told of after those that were ready earlier, or together with them.
    let (writer, reader) = UnixStream::pair().unwrap();
    assert_eq!(writer.try_write(b"x").unwrap(), 1);
    reader.readable().await.unwrap();
    // The last of those that wait for their turn.
    tokio::spawn(async {}).await.unwrap();
}

/// Whether the kernel holds nothing any more that the client has sent, the end included, and that the
/// server's socket has not got.
fn has_arrived(client: &TcpStream) -> bool {
    let (from, to) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let mut next = || fields.next().unwrap_or_default();
        let (local, remote, _state, queues) = (next(), next(), next(), next());
        local.ends_with(&from) && remote.ends_with(&to) && queues.starts_with("00000000:")
    })
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

pub(super) async fn read_answer(stream: &mut TcpStream) -> (String, String) {
    tokio::time::timeout(Duration::from_secs(10), read_one(stream)).await.unwrap()
}

pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn read_one(stream: &mut TcpStream) -> (String, String) {
    let head = read_head(stream).await;
    let length = head
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// A service whose readiness is a reservation, as that of tower's ConcurrencyLimit.
pub(super) struct OneAtATime {
    stage: Arc<Stage>,
    turns: Arc<Semaphore>,
    waiting: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl OneAtATime {
    pub(super) fn new(stage: Arc<Stage>) -> OneAtATime {
        OneAtATime { stage, turns: Arc::new(Semaphore::new(1)), waiting: None, turn: None }
    }
}

impl Clone for OneAtATime {
    fn clone(&self) -> Self {
        let (stage, turns) = (Arc::clone(&self.stage), Arc::clone(&self.turns));
        OneAtATime { stage, turns, waiting: None, turn: None }
    }
}

impl Service<Request<RequestBody>> for OneAtATime {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.turn.is_none() {
            let turns = Arc::clone(&self.turns);
            let waiting = self.waiting.get_or_insert_with(|| {
                Box::pin(async move { turns.acquire_owned().await.unwrap() })
            });
            self.turn = Some(ready!(waiting.as_mut().poll(cx)));
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let turn = self.turn.take().unwrap();
        let answer = answer(request, Arc::clone(&self.stage));
        Box::pin(async move {
            let answer = answer.await;
            drop(turn);
            answer
        })
    }
}
