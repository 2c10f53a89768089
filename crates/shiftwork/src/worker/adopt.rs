//! Taking up connections that draining workers hand over.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::hand_over::{Adopted, Receiver};

use super::connection::{Arrival, Service};

/// Takes connections up until this worker drains itself.
pub(super) async fn adopt(
    mut receiver: Receiver,
    service: Arc<Service>,
    adopting: CancellationToken,
) {
    while let Some(adopted) = adopting.run_until_cancelled(receiver.next()).await {
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

fn take_up(service: &Arc<Service>, adopted: Adopted) {
    let Adopted { stream, passport } = adopted;
    let arrival = Arrival {
        listener: passport.listener.into(),
        stream,
        unread: passport.unread,
        idle_for: passport.idle_for,
    };
    tokio::spawn(Arc::clone(service).serve(arrival));
}
