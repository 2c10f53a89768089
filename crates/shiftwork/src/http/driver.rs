//! The life of an HTTP connection in this worker.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;

use super::current::Current;
use super::handler::{Dispatch, HttpService};
use super::io::{Io, Rest};
use super::limits::{HttpLimits, MAX_UNREAD};
use super::linger;
use super::link::Link;
use super::outcome::{CloseReason, Outcome};
use super::refuse::{HEAD_TOO_SLOW, marked};
use crate::conn::{Conn, Orders, Phase, Stream};

type Connection<S> = http1::Connection<Io, Dispatch<S>>;

/// Serves one connection until it is closed, leaves for another worker, or becomes another protocol.
///
/// `prefix` is what another worker has read from it and not used. The orders for it come through
/// `conn`, whose registry has to be swept a few times a second for the timeouts of `limits` to be
/// kept. A request in hand is finished before the connection is given back; its handler runs on even
/// if the client goes away (see [`HttpLimits::cancel_on_disconnect`]).
pub async fn serve<S: HttpService>(
    stream: Stream,
    prefix: Bytes,
    conn: Arc<Conn>,
    service: S,
    limits: HttpLimits,
) -> Outcome {
    let (mut stream, mut prefix, mut service) = (stream, prefix, service);
    loop {
        let link = Link::new(Arc::clone(&conn));
        conn.set_unsent(false);
        let io = Io::new(stream, prefix, Arc::clone(&link));
        let dispatch = Dispatch::new(service, Arc::clone(&link), &limits);
        let mut connection = builder(&limits).serve_connection(io, dispatch);
        let drive = Drive { connection: &mut connection, link: &link, registered: None };
        let end = drive.await;
        let back = take_apart(connection);
        match end {
            End::Cut => return Outcome::Closed(CloseReason::Cut),
            End::Failed(error) => {
                say(&back.stream, &back.refusal, &conn);
                linger::close(back.stream, link.has_unread_body()).await;
                return Outcome::Closed(CloseReason::Failed(error));
            }
            End::Idle(reason) => {
                if reason == CloseReason::HeaderTimeout {
                    say(&back.stream, HEAD_TOO_SLOW, &conn);
                }
                linger::close(back.stream, false).await;
                return Outcome::Closed(reason);
            }
            End::Done => {
                if let Some(upgrade) = link.take_upgrade() {
                    return Outcome::Upgraded { stream: back.stream, unread: back.unread, upgrade };
                }
                linger::close(back.stream, link.has_unread_body() || !back.unread.is_empty()).await;
                return Outcome::Closed(CloseReason::Ended);
            }
            End::Between if !conn.orders().any(Orders::CLOSE) => {
                let idle_for = conn.quiet_for();
                return Outcome::HandOver { stream: back.stream, unread: back.unread, idle_for };
            }
            End::Between => {
                // A request may have come while we decided to close.
                match read_last(back.stream, back.unread) {
                    Ok((same, unread)) if !unread.is_empty() => (stream, prefix) = (same, unread),
                    Ok((same, _)) => {
                        linger::close(same, false).await;
                        return Outcome::Closed(CloseReason::Stopped);
                    }
                    Err(error) => return Outcome::Closed(CloseReason::Failed(error.to_string())),
                }
                service = back.service;
            }
        }
    }
}

/// Serves one connection by hyper's own means: the same service with all that is around it, and nothing
/// of what lets a connection leave for another worker. No server runs so; it is what [`serve`] is
/// measured against.
#[doc(hidden)]
pub async fn serve_in_place<S: HttpService>(
    stream: Stream,
    conn: Arc<Conn>,
    service: S,
    limits: HttpLimits,
) {
    let link = Link::new(conn);
    let dispatch = Dispatch::new(service, Arc::clone(&link), &limits);
    // However it ends: there is nobody to tell.
    let _ = builder(&limits).serve_connection(TokioIo::new(stream), dispatch).await;
}

fn builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(!limits.cancel_on_disconnect)
        // Bounds what has to travel with a connection.
        .max_buf_size(MAX_UNREAD)
        .max_header_size(limits.effective_header_size())
        // The sweeper's work, without a timer for each request.
        .header_read_timeout(None);
    builder
}

/// Why hyper is done with a connection.
enum End {
    /// By hyper's own word: closed by either side, or upgraded.
    Done,
    /// The protocol or the connection was broken.
    Failed(String),
    /// The sweeper has found it quiet for too long.
    Idle(CloseReason),
    /// It is between two requests and the worker drains.
    Between,
    /// The worker has cut it.
    Cut,
}

/// Runs a connection until hyper or an order ends it.
///
/// One function from here to hyper, for it is on the way of every request: after a system call the
/// processor predicts no return any more, so each call in between costs more than it looks.
struct Drive<'a, S: HttpService> {
    connection: &'a mut Connection<S>,
    link: &'a Link,
    registered: Option<Waker>,
}

impl<S: HttpService> Future for Drive<'_, S> {
    type Output = End;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let conn = &this.link.conn;
        if !this.registered.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            conn.register(cx.waker());
            this.registered = Some(cx.waker().clone());
        }
        if conn.orders().any(Orders::CUT) {
            return Poll::Ready(End::Cut);
        }
        let current = Current::is(conn.peer());
        let done = Pin::new(&mut *this.connection).poll(cx);
        drop(current);
        if let Poll::Ready(done) = done {
            return Poll::Ready(end_of(done));
        }
        let orders = conn.orders();
        if orders.is_empty() {
            return Poll::Pending;
        }
        obey(this.connection, this.link, orders, cx)
    }
}

fn end_of(done: hyper::Result<()>) -> End {
    match done {
        Ok(()) => End::Done,
        Err(error) => End::Failed(describe(&error)),
    }
}

/// What the orders mean at this moment; called after hyper has had its turn.
fn obey<S: HttpService>(
    connection: &mut Connection<S>,
    link: &Link,
    orders: Orders,
    cx: &mut Context<'_>,
) -> Poll<End> {
    let conn = &link.conn;
    if orders.any(Orders::HEADER_EXPIRED | Orders::IDLE_EXPIRED) {
        // True only if nothing has come meanwhile, not even in this poll.
        if conn.unchanged_since_sweep() {
            return match conn.phase() {
                Phase::Head => Poll::Ready(End::Idle(CloseReason::HeaderTimeout)),
                Phase::Idle if orders.any(Orders::CLOSE) => between(connection, link, cx),
                _ => Poll::Ready(End::Idle(CloseReason::Idle)),
            };
        }
        conn.take_back(Orders::HEADER_EXPIRED | Orders::IDLE_EXPIRED);
    }
    if !orders.draining() || !link.is_quiet() {
        return Poll::Pending;
    }
    if orders.any(Orders::CLOSE) {
        // A stop waits for a request that has been begun, or that a client which was answered a
        // moment ago may be sending: it cannot know of the stop before its next answer.
        return Poll::Pending;
    }
    between(connection, link, cx)
}

/// Whether the connection can be taken back from hyper. On this side all is quiet.
fn between<S: HttpService>(
    connection: &mut Connection<S>,
    link: &Link,
    cx: &mut Context<'_>,
) -> Poll<End> {
    if link.is_untouched() {
        // hyper has at most the beginning of a request, which it would answer with
        // `Connection: close` if it were told to finish.
        return Poll::Ready(End::Between);
    }
    // Told to finish, hyper is done at once only if it is idle by its own rules. It may know of body
    // bytes that nobody has read, which must never be taken for a request.
    Pin::new(&mut *connection).graceful_shutdown();
    Pin::new(connection).poll(cx).map(|done| match end_of(done) {
        End::Done => End::Between,
        other => other,
    })
}

/// What comes back from hyper.
struct Back<S> {
    stream: Stream,
    unread: Bytes,
    refusal: Vec<u8>,
    service: S,
}

fn take_apart<S: HttpService>(connection: Connection<S>) -> Back<S> {
    let parts = connection.into_parts();
    let Rest { stream, prefix, refusal } = parts.io.into_rest();
    let unread = join(parts.read_buf, prefix);
    Back { stream, unread, refusal, service: parts.service.into_service() }
}

fn join(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second,
        (false, false) => {
            let mut both = BytesMut::with_capacity(first.len() + second.len());
            both.extend_from_slice(&first);
            both.extend_from_slice(&second);
            both.freeze()
        }
    }
}

/// Looks into the socket itself once more, past the poller, which may not have told yet.
fn read_last(stream: Stream, unread: Bytes) -> io::Result<(Stream, Bytes)> {
    use io::Read as _;
    if !unread.is_empty() {
        return Ok((stream, unread));
    }
    let mut socket = std::fs::File::from(stream.into_fd()?);
    let mut bytes = BytesMut::zeroed(8 * 1024);
    let read = match socket.read(&mut bytes) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    bytes.truncate(read);
    Ok((Stream::adopt(socket.into())?, bytes.freeze()))
}

/// Says something to a client that gets no answer through hyper, if its socket takes it at once.
fn say(stream: &Stream, answer: &[u8], conn: &Conn) {
    if answer.is_empty() {
        return;
    }
    let words = marked(answer, conn.marks());
    let _ = match stream {
        Stream::Tcp(stream) => stream.try_write(&words),
        Stream::Unix(stream) => stream.try_write(&words),
    };
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
