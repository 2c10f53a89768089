//! The worker's end of its control socket, inside the runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shiftwork_supervisor::envelope;
use shiftwork_supervisor::protocol::wire;
use shiftwork_supervisor::protocol::worker::{FromWorker, ToWorker};
use shiftwork_sys::socket::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::task::watch::watch;

/// Reads what the manager says, and writes what this process has to say.
#[derive(Debug)]
pub(super) struct ControlLine {
    channel: Arc<AsyncFd<Arc<Channel>>>,
}

impl ControlLine {
    /// Must be called inside the runtime.
    pub(super) fn new(channel: Channel) -> io::Result<Self> {
        channel.set_blocking(false)?;
        let channel = watch(Arc::new(channel), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { channel: Arc::new(channel) })
    }

    /// Writes, in order, what is sent to it.
    pub(super) fn writer(&self) -> mpsc::UnboundedSender<FromWorker> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<FromWorker>();
        let channel = Arc::clone(&self.channel);
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                let Ok(bytes) = wire::encode(&message) else { continue };
                let sent =
                    channel.async_io(Interest::WRITABLE, |channel| channel.send(&bytes, &[])).await;
                if sent.is_err() {
                    return;
                }
            }
        });
        sender
    }

    /// The next message; None: manager and master are gone.
    pub(super) async fn next(&mut self) -> Option<(ToWorker, Vec<OwnedFd>)> {
        loop {
            let receive = |channel: &Arc<Channel>| channel.receive(wire::MAX_PACKET);
            let Ok((packet, mut received)) =
                self.channel.async_io(Interest::READABLE, receive).await
            else {
                return None;
            };
            if packet.is_empty() && received.fds.is_empty() {
                return None;
            }
            let message = envelope::open(packet, &mut received.fds)
                .and_then(|bytes| wire::decode(&bytes).map_err(io::Error::other));
            match message {
                Ok(message) => return Some((message, received.fds)),
                Err(error) => tracing::warn!("a message that cannot be read was dropped: {error}"),
            }
        }
    }
}
