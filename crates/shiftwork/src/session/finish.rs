//! The end of a connection: last words, the handler's `close`, and a farewell without a reset.

use std::future::poll_fn;

use tokio::time::{Instant, timeout, timeout_at};

use super::control::Call;
use super::drive::Service;
use super::guard::guarded;
use super::link::{Framing, Incoming, Link};
use super::reason::CloseReason;
use super::start::Outcome;
use super::wire::Transport;

/// Ends a connection whose handler knows it.
pub(crate) async fn opened<V: Service>(
    service: &V,
    conn: &mut V::Connection,
    reason: CloseReason,
) -> Outcome<Box<dyn Transport>> {
    let reason = last_words(V::link(conn), reason).await;
    V::link(conn).begin(Call::Close);
    let result = guarded(service.close(conn, reason.clone())).await;
    V::link(conn).settle(Call::Close, result);
    farewell(V::link(conn), &reason).await;
    Outcome::Closed(reason)
}

/// Ends a connection that never came to its handler, or whose `open` failed.
pub(crate) async fn unopened<V: Service>(
    conn: &mut V::Connection,
    reason: CloseReason,
) -> Outcome<Box<dyn Transport>> {
    let link = V::link(conn);
    let reason = last_words(link, reason).await;
    farewell(link, &reason).await;
    Outcome::Closed(reason)
}

/// Sends what waits, and the close frame. Nothing can be sent afterwards.
async fn last_words<F: Framing>(link: &mut Link<F>, reason: CloseReason) -> CloseReason {
    link.mailbox.close();
    if !reason.can_write() {
        link.ending = Some(reason.clone());
        return reason;
    }
    // The worker's doing, not the client's: what was promised to it before still goes out.
    if matches!(reason, CloseReason::Restart | CloseReason::Stopped) {
        while let Some(push) = link.mailbox.rest().await {
            if link.deliver(push).await.is_err() {
                break;
            }
        }
    }
    if let Some(lost @ CloseReason::Lost(_)) = link.ending.take() {
        link.ending = Some(lost.clone());
        return lost;
    }
    link.framing.write_close(&reason, &mut link.wire.unsent);
    link.ending = Some(reason.clone());
    let patience = link.limits.close_timeout;
    if !matches!(timeout(patience, link.flush()).await, Ok(Ok(()))) {
        return CloseReason::Lost("the client did not take the last bytes".to_owned());
    }
    reason
}

/// Waits for the client's half of the close, then for it to end its stream: a socket that is closed
/// with bytes unread sends a reset, which can destroy what we said last.
async fn farewell<F: Framing>(link: &mut Link<F>, reason: &CloseReason) {
    if !reason.can_write() {
        return;
    }
    let until = Instant::now() + link.limits.close_timeout;
    let _ = timeout_at(until, async {
        while link.framing.awaits_close() {
            match link.framing.decode(&mut link.wire.unread, &mut link.wire.unsent) {
                // What the client sent before it heard of the closing is lost, as with any close.
                Ok(Some(Incoming::Message(_) | Incoming::Control)) => {}
                Ok(Some(Incoming::Close { .. })) | Err(_) => break,
                Ok(None) => match poll_fn(|cx| link.wire.poll_fill(cx)).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
            }
        }
        if link.wire.shutdown().await.is_ok() {
            while matches!(link.wire.discard().await, Ok(1..)) {}
        }
    })
    .await;
}
