//! The life of one connection in one process: begin, message after message, end or hand-over.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::BoxError;
use super::control::{Call, Orders};
use super::finish;
use super::form::{self, Form};
use super::guard::guarded;
use super::limits::StreamLimits;
use super::link::{Framing, HIGH_WATER, Incoming, Link};
use super::mailbox::{Mailbox, Push};
use super::reason::CloseReason;
use super::shared::Shared;
use super::start::{Begin, OnDrain, Outcome, Parcel, Saved, Start};
use super::wire::{Transport, Wire};

/// A handler of either protocol, as the driver sees it.
pub(crate) trait Service: Send + Sync + 'static {
    type Framing: Framing;
    type Session: Serialize + DeserializeOwned + Default + Send + 'static;
    /// The forms in which the session is read and written.
    type Form: Form<Session = Self::Session>;
    /// What the handler gets to see: link and session together.
    type Connection: Send;

    /// The framing of a connection that begins.
    fn framing(&self, limits: &StreamLimits) -> Self::Framing;
    fn connection(link: Link<Self::Framing>, session: Self::Session) -> Self::Connection;
    fn link(conn: &mut Self::Connection) -> &mut Link<Self::Framing>;
    fn session(conn: &Self::Connection) -> &Self::Session;
    fn into_link(conn: Self::Connection) -> Link<Self::Framing>;

    fn open(
        &self,
        conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
    fn resume(
        &self,
        conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
    fn message(
        &self,
        conn: &mut Self::Connection,
        message: <Self::Framing as Framing>::Message,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
    fn close(
        &self,
        conn: &mut Self::Connection,
        reason: CloseReason,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Serves one connection until it ends, is handed over, or is cut.
pub(super) async fn run<V: Service>(
    service: &V,
    start: Start<Box<dyn Transport>>,
) -> Outcome<Box<dyn Transport>> {
    let control = Arc::clone(&start.control);
    let shared = Arc::new(Shared::default());
    let peer = start.peer;
    let framing = service.framing(&start.limits);
    let mut life = pin!(live(service, framing, start, Arc::clone(&shared)));
    // Orders are looked at here, around everything: a cut needs no help from whatever is being
    // awaited inside, a handler included.
    let outcome = poll_fn(|cx| {
        control.register(cx.waker());
        let orders = control.orders();
        if orders.cut {
            return Poll::Ready(None);
        }
        if orders.drain {
            shared.set_draining();
        }
        life.as_mut().poll(cx).map(Some)
    })
    .await;
    outcome.unwrap_or_else(|| {
        let protocol = V::Framing::NAME;
        match shared.in_hand() {
            // Whoever has given the order names to the operator what it has cut.
            Some((call, since)) => {
                let after = since.elapsed();
                tracing::debug!(protocol, %peer, %call, ?after, "cut with its handler");
                control.end();
            }
            None => tracing::debug!(protocol, %peer, "cut"),
        }
        Outcome::Closed(CloseReason::Cut)
    })
}

async fn live<V: Service>(
    service: &V,
    mut framing: V::Framing,
    start: Start<Box<dyn Transport>>,
    shared: Arc<Shared>,
) -> Outcome<Box<dyn Transport>> {
    let adopted = matches!(start.begin, Begin::Adopt(_));
    let mut wire = Wire::new(start.stream, start.unread);
    let (session, idle) = match start.begin {
        Begin::Fresh => (Some(V::Session::default()), Duration::ZERO),
        Begin::With(session) => {
            let version = <V::Form as Form>::VERSION;
            (form::read::<V::Form>(version, &session), Duration::ZERO)
        }
        Begin::Unreadable => (None, Duration::ZERO),
        Begin::Adopt(saved) => {
            // First of all what the other process owed the client, whatever becomes of the rest.
            wire.unsent.extend_from_slice(&saved.unsent);
            let readable = framing.restore(&saved.half_read);
            let session = form::read::<V::Form>(saved.version, &saved.session);
            (session.filter(|_| readable), saved.idle)
        }
    };
    let now = Instant::now();
    let link = Link {
        wire,
        framing,
        control: start.control,
        shared,
        peer: start.peer,
        limits: start.limits.clamped(),
        mailbox: Mailbox::new(start.limits.push_queue),
        on_drain: start.on_drain,
        ending: None,
        last_seen: now.checked_sub(idle).unwrap_or(now),
        probed: false,
    };
    let Some(session) = session else {
        tracing::warn!(
            protocol = V::Framing::NAME, peer = %link.peer,
            "this release cannot read the session of a connection; it is closed"
        );
        let mut conn = V::connection(link, V::Session::default());
        return Box::pin(finish::unopened::<V>(&mut conn, CloseReason::Unreadable)).await;
    };
    let mut conn = V::connection(link, session);
    if adopted {
        V::link(&mut conn).begin(Call::Resume);
        let result = guarded(service.resume(&mut conn)).await;
        // A failure stands in `ending`, and `close` is called: it has been open before.
        V::link(&mut conn).settle_unseen(Call::Resume, result);
    } else {
        V::link(&mut conn).begin(Call::Open);
        let result = guarded(service.open(&mut conn)).await;
        let link = V::link(&mut conn);
        if !link.settle(Call::Open, result) {
            let reason = link.ending.take().unwrap_or(CloseReason::Failed);
            return Box::pin(finish::unopened::<V>(&mut conn, reason)).await;
        }
    }
    // Boxed: only what a waiting connection needs shall count for its size.
    match serve(service, &mut conn).await {
        Stop::End(reason) => Box::pin(finish::opened(service, &mut conn, reason)).await,
        Stop::HandOver => Box::pin(hand_over(service, conn, start.write_version)).await,
    }
}

/// Why [`serve`] came to an end.
enum Stop {
    End(CloseReason),
    HandOver,
}

/// Message after message, until something ends it.
async fn serve<V: Service>(service: &V, conn: &mut V::Connection) -> Stop {
    let on_drain = V::link(conn).on_drain;
    // Moved only when it fires or must come earlier: a message costs no work on timers.
    let mut sleep = pin!(sleep_until(V::link(conn).deadline(None)));
    let mut patience_ends = None;
    let mut pushes_first = false;
    loop {
        let link = V::link(conn);
        if let Some(reason) = link.ending.take() {
            return Stop::End(reason);
        }
        let orders = link.control.orders();
        if orders.drain && !orders.close && on_drain == OnDrain::HandOver {
            return Stop::HandOver;
        }
        match link.framing.decode(&mut link.wire.unread, &mut link.wire.unsent) {
            Ok(Some(Incoming::Message(message))) => {
                link.begin(Call::Message);
                let result = guarded(service.message(conn, message)).await;
                V::link(conn).settle(Call::Message, result);
                continue;
            }
            Ok(Some(Incoming::Control)) if link.wire.unsent.len() <= HIGH_WATER => continue,
            Ok(Some(Incoming::Control)) => {}
            Ok(Some(Incoming::Close { code, reason })) => {
                return Stop::End(CloseReason::Client { code, reason });
            }
            Err(violation) => {
                tracing::info!(protocol = V::Framing::NAME, peer = %link.peer, %violation, "closing a connection");
                return Stop::End(CloseReason::Violation(violation));
            }
            Ok(None) => {
                if orders.close || (orders.drain && on_drain == OnDrain::Close) {
                    let until = *patience_ends
                        .get_or_insert_with(|| Instant::now() + link.limits.close_timeout);
                    match boundary(link, until).await {
                        Boundary::Here if orders.drain => return Stop::End(CloseReason::Restart),
                        Boundary::Here => return Stop::End(CloseReason::Stopped),
                        Boundary::MoreCame => continue,
                        Boundary::HalfRead => {}
                    }
                }
            }
        }
        // A failure stands in `ending`, which is looked at first thing; so are new orders.
        if !flush_under(link, orders).await {
            continue;
        }
        link.wire.rest();
        let deadline = link.deadline(patience_ends);
        if sleep.is_elapsed() || deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        pushes_first = !pushes_first;
        match wait(link, sleep.as_mut(), orders, pushes_first).await {
            Woken::Read(Ok(0)) => {
                return Stop::End(link.framing.end_of_stream(link.wire.unread.len()));
            }
            Woken::Read(Ok(_)) => link.seen(),
            Woken::Read(Err(error)) => return Stop::End(CloseReason::Lost(error.to_string())),
            Woken::Push(push) => {
                // As above.
                let _ = link.deliver(push).await;
            }
            Woken::Timer if link.is_idle() => return Stop::End(CloseReason::Idle),
            Woken::Timer => link.probe_if_due(),
            Woken::Orders => {}
        }
    }
}

/// Where a connection that is to close stands.
enum Boundary {
    /// Nothing of the client's is under way, as far as can be known; or its time is over.
    Here,
    /// More bytes have come in.
    MoreCame,
    /// The client is in the middle of a message.
    HalfRead,
}

/// Looks once more at what the kernel holds: what the client sent before it could know of the
/// closing is still answered. `until` bounds this for a client that never pauses.
async fn boundary<F: Framing>(link: &mut Link<F>, until: Instant) -> Boundary {
    if Instant::now() >= until {
        return Boundary::Here;
    }
    let wire = &mut link.wire;
    let look = poll_fn(|cx| match wire.poll_fill(cx) {
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Some(Boundary::Here)),
        Poll::Ready(Ok(_)) => Poll::Ready(Some(Boundary::MoreCame)),
        Poll::Pending => Poll::Ready(None),
    });
    // Outside tokio's budget, whose end would look like an empty socket.
    match unconstrained(look).await {
        Some(found) => found,
        None if link.framing.half_read() || !link.wire.unread.is_empty() => Boundary::HalfRead,
        None => Boundary::Here,
    }
}

/// Writes what is unsent, unless it fails or the orders change: a client that reads slowly must not
/// hold up a drain. False when there is something else to do first.
async fn flush_under<F: Framing>(link: &mut Link<F>, known: Orders) -> bool {
    if link.wire.unsent.is_empty() {
        return true;
    }
    let control = Arc::clone(&link.control);
    let mut flush = pin!(link.flush());
    poll_fn(|cx| match flush.as_mut().poll(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
        Poll::Pending if control.orders() != known => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What ended a wait.
enum Woken<M> {
    Read(io::Result<usize>),
    Push(Push<M>),
    Timer,
    Orders,
}

/// Waits between two messages for whatever comes first.
async fn wait<F: Framing>(
    link: &mut Link<F>,
    mut sleep: Pin<&mut Sleep>,
    known: Orders,
    pushes_first: bool,
) -> Woken<F::Message> {
    poll_fn(|cx| {
        if link.control.orders() != known {
            return Poll::Ready(Woken::Orders);
        }
        // In turns: neither a client nor a sender that never pauses can shut the other out.
        for pushes in [pushes_first, !pushes_first] {
            if pushes {
                if let Poll::Ready(Some(push)) = link.mailbox.poll_next(cx) {
                    return Poll::Ready(Woken::Push(push));
                }
            } else if let Poll::Ready(read) = link.wire.poll_fill(cx) {
                return Poll::Ready(Woken::Read(read));
            }
        }
        sleep.as_mut().poll(cx).map(|()| Woken::Timer)
    })
    .await
}

/// Takes the connection apart for another process. Waits for nobody: what the client does not take
/// at once travels as well.
async fn hand_over<V: Service>(
    service: &V,
    mut conn: V::Connection,
    write_version: Option<u32>,
) -> Outcome<Box<dyn Transport>> {
    let link = V::link(&mut conn);
    link.mailbox.leave();
    while let Some(push) = link.mailbox.rest().await {
        link.append(push);
    }
    // Failing, it leaves its reason in `ending`; not finishing, it leaves the rest in `unsent`.
    let _ = timeout(Duration::ZERO, link.flush()).await;
    if let Some(reason) = link.ending.take() {
        return finish::opened(service, &mut conn, reason).await;
    }
    let (version, session) = match form::write::<V::Form>(V::session(&conn), write_version) {
        Ok(session) => session,
        Err(error) => {
            let (protocol, peer) = (V::Framing::NAME, V::link(&mut conn).peer);
            tracing::error!(protocol, %peer, %error, "cannot write the session of a connection");
            return finish::opened(service, &mut conn, CloseReason::Restart).await;
        }
    };
    let link = V::into_link(conn);
    let saved = Saved {
        session,
        version,
        half_read: link.framing.save(),
        unsent: link.wire.unsent.to_vec(),
        idle: link.last_seen.elapsed(),
    };
    let unread = link.wire.unread.freeze();
    Outcome::HandOver(Parcel { stream: link.wire.stream, unread, saved })
}
