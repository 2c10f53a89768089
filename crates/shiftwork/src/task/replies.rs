//! The task worker's way back to those who have sent tasks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use shiftwork_sys::socket::Channel;
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::background;
use super::control::TaskControl;
use super::watch::watch;
use super::wire::{self, ReplyPacket, Status, TaskPacket};

/// The reply sockets of all who may send tasks.
pub(super) struct Replies {
    sockets: HashMap<u32, Reply>,
    late: LateReplies,
    /// Those of workers that were added since.
    added: mpsc::UnboundedReceiver<(u32, Channel)>,
    /// How long a full one is waited for.
    wait: Duration,
}

/// A reply socket.
struct Reply {
    channel: Channel,
    /// Its owner has let it fill up and not read for a while; until an answer gets through again,
    /// none is waited for, or everybody's tasks would wait with it.
    stuck: bool,
}

/// Where a loop that runs is given more reply sockets.
#[derive(Debug, Clone)]
pub struct LateReplies {
    sender: mpsc::UnboundedSender<(u32, Channel)>,
}

impl LateReplies {
    /// Where answers for the owner of reply socket `index` go from now on.
    pub fn add(&self, index: u32, channel: Channel) {
        let _ = self.sender.send((index, channel));
    }
}

impl Replies {
    pub(super) fn new(wait: Duration) -> Self {
        let (sender, added) = mpsc::unbounded_channel();
        Self { sockets: HashMap::new(), late: LateReplies { sender }, added, wait }
    }

    /// Where answers for the owner of reply socket `index` go.
    pub(super) fn add(&mut self, index: u32, channel: Channel) {
        self.sockets.insert(index, Reply { channel, stuck: false });
    }

    pub(super) fn late(&self) -> LateReplies {
        self.late.clone()
    }

    /// The reply socket of a worker that was added may be on its way still.
    async fn wait_for(&mut self, index: u32) {
        let found = tokio::time::timeout(self.wait, async {
            while !self.sockets.contains_key(&index) {
                let Some((index, channel)) = self.added.recv().await else { return };
                self.sockets.insert(index, Reply { channel, stuck: false });
            }
        });
        let _ = found.await;
    }

    /// Answers a task. Whoever does not read its answers is waited for once, and not beyond the end of
    /// the drain.
    pub(super) async fn send(
        &mut self,
        task: &TaskPacket<'_>,
        packet: &[u8],
        control: &TaskControl,
    ) {
        if !self.sockets.contains_key(&task.reply_index) {
            self.wait_for(task.reply_index).await;
        }
        let Some(reply) = self.sockets.get_mut(&task.reply_index) else {
            tracing::error!(task = task.name, reply = task.reply_index, "no such reply socket");
            return;
        };
        let sent = match try_send(&reply.channel, packet) {
            // The socket holds less than the setting allows: the sender is told that, at least.
            Some(Err(error)) if error.raw_os_error() == Some(background::EMSGSIZE) => {
                let size = packet.len() - wire::REPLY_HEAD;
                let mut refusal = Vec::new();
                ReplyPacket::begin(&mut refusal, Status::OutputTooLarge, task.id);
                refusal.extend_from_slice(&wire::sizes(size, size.saturating_sub(1)));
                try_send(&reply.channel, &refusal).unwrap_or(Err(error))
            }
            Some(result) => result,
            None if reply.stuck => Err(io::Error::other("it still does not read its answers")),
            None => tokio::select! {
                result = send_when_room(&reply.channel, packet) => result,
                () = tokio::time::sleep(self.wait) => {
                    reply.stuck = true;
                    Err(io::Error::other("it does not read its answers"))
                }
                () = control.until_cut() => {
                    Err(io::Error::other("it does not read its answers"))
                }
            },
        };
        match sent {
            Ok(()) => reply.stuck = false,
            Err(error) => {
                tracing::warn!(task = task.name, %error, "its worker is not told how it ended");
            }
        }
    }
}

async fn send_when_room(channel: &Channel, packet: &[u8]) -> io::Result<()> {
    // Watched only now: else every answer that is read would wake this process.
    let watched = watch(Arc::new(channel.try_clone()?), Interest::WRITABLE)?;
    loop {
        let mut ready = watched.writable().await?;
        if let Some(result) = try_send(channel, packet) {
            return result;
        }
        ready.clear_ready();
    }
}

/// None: there is no room.
fn try_send(channel: &Channel, packet: &[u8]) -> Option<io::Result<()>> {
    loop {
        return match channel.send_bytes(packet) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.raw_os_error() == Some(background::ENOBUFS) => None,
            result => Some(result),
        };
    }
}
