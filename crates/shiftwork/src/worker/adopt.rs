//! Taking up connections that draining workers hand over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::hand_over::{Adopted, Receiver};

use super::accept::Closing;
use super::connection::{Arrival, Service};
use super::share::Share;

/// Takes connections up until this worker drains itself. At a stop nobody comes after it: then
/// what is on its way is taken up first.
pub(super) async fn adopt(
    mut receiver: Receiver,
    mut share: Share,
    service: Arc<Service>,
    closing: Closing,
) {
    loop {
        let adopted = tokio::select! {
            biased;
            () = closing.leave.cancelled() => return,
            adopted = next(&mut receiver, &mut share) => adopted,
            () = closing.shut.cancelled() => match timeout(LAST, receiver.next()).await {
                Ok(adopted) => adopted,
                Err(_) => return,
            },
        };
        match adopted {
            Ok(adopted) => {
                for it in adopted {
                    take_up(&service, it);
                }
            }
            Err(error) => {
                tracing::debug!("no more connections are handed over: {error}");
                return;
            }
        }
    }
}

/// The next connections, when it is this worker's turn. Nothing is taken unless it is returned.
async fn next(receiver: &mut Receiver, share: &mut Share) -> io::Result<Vec<Adopted>> {
    loop {
        if receiver.is_starved() {
            tokio::time::sleep(EXHAUSTED).await;
        }
        receiver.something().await?;
        share.turn().await;
        if let Some(adopted) = receiver.take()? {
            return Ok(adopted);
        }
    }
}

/// Between two attempts of a worker without room for more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// At a stop, how long the queue has to be empty before nothing more is expected in it.
const LAST: Duration = Duration::from_millis(50);

fn take_up(service: &Arc<Service>, adopted: Adopted) {
    let Adopted { stream, passport } = adopted;
    service.registry.counters().adopted();
    let listener: Arc<str> = passport.listener.as_str().into();
    service.take_in(&listener, Arrival { stream, passport });
}
