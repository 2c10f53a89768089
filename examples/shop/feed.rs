//! The shop's WebSockets: `/ws` for customers, `/feed` for the page.

use std::sync::Arc;
use std::time::Duration;

use shiftwork::websocket::{Connection, Message, WebSocket};
use shiftwork::{BoxError, Worker};

use crate::state::Shop;

/// Echoes each text as it came; `count` is answered with the number of messages so far.
pub(crate) struct Echo;

impl WebSocket for Echo {
    /// Messages on this connection so far.
    type Session = u64;

    async fn message(&self, conn: &mut Connection<u64>, message: Message) -> Result<(), BoxError> {
        conn.session += 1;
        match message.as_text() {
            Some("count") => conn.send(conn.session.to_string()).await?,
            _ => conn.send(message).await?,
        }
        Ok(())
    }
}

/// Pushes the status of the server, as JSON, once a second.
pub(crate) struct Feed {
    worker: Worker,
}

impl Feed {
    /// The feed of one worker.
    pub(crate) fn of(shop: &Arc<Shop>) -> Self {
        Self { worker: shop.worker.clone() }
    }
}

impl WebSocket for Feed {
    type Session = ();

    async fn open(&self, conn: &mut Connection<()>) -> Result<(), BoxError> {
        self.begin(conn);
        Ok(())
    }

    /// The connection has come over from another worker, and what pushed there has ended.
    async fn resume(&self, conn: &mut Connection<()>) -> Result<(), BoxError> {
        self.begin(conn);
        Ok(())
    }

    async fn message(&self, _: &mut Connection<()>, _: Message) -> Result<(), BoxError> {
        Ok(())
    }
}

impl Feed {
    fn begin(&self, conn: &mut Connection<()>) {
        let (worker, viewer) = (self.worker.clone(), conn.sender());
        // Ends with the connection: then nothing can be sent any more.
        tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                // No status for a moment is no reason to hang up.
                let Ok(status) = worker.server().stats().await else { continue };
                if viewer.send(status.to_string()).await.is_err() {
                    return;
                }
            }
        });
    }
}
