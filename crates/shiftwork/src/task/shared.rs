//! What a client's clones and its background work have in common: the two sockets and the table.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::socket::Channel;
use tokio::sync::Notify;

use super::background;
use super::call::{OnFull, error_of};
use super::client::InHand;
use super::pending::{Ended, New, Pending, Verdict};
use super::wire::{self, ReplyPacket, Status, TaskPacket};

/// The two sockets and the table.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Channel,
    replies: Arc<Channel>,
    reply_index: u32,
    pending: Mutex<Pending>,
    /// The buffer answers are received into. Held from receiving to delivering, so that whoever
    /// has drained the socket knows that all answers sent before are known.
    reading: Mutex<Vec<u8>>,
    /// Something waits for room in the queue.
    pub(crate) backed_up: Notify,
    /// A deadline comes sooner than the sweeper thinks.
    pub(crate) sooner: Notify,
    /// Nothing is unanswered.
    idle: Notify,
}

/// What a round of reading answers found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left.
    Empty,
    /// There may be more.
    More,
    /// No answer can come any more.
    Closed,
}

/// Why a packet was not sent.
pub(crate) enum Refusal {
    Full,
    TooLarge,
    Ended(Verdict),
}

/// What the kernel did with a packet.
enum Put {
    Done,
    Full,
    TooLarge,
    NobodyThere,
}

impl Shared {
    pub(crate) fn new(queue: Channel, replies: Channel, reply_index: u32, max_size: usize) -> Self {
        // An answer can be longer than a task may be: errors come as words.
        let most = wire::REPLY_HEAD + max_size.max(wire::MAX_MESSAGE) + 1;
        Self {
            queue,
            replies: Arc::new(replies),
            reply_index,
            // Microseconds since boot: no predecessor on this socket has counted so far.
            pending: Mutex::new(Pending::new(monotonic_ms().wrapping_mul(1000))),
            reading: Mutex::new(vec![0; most]),
            backed_up: Notify::new(),
            sooner: Notify::new(),
            idle: Notify::new(),
        }
    }

    pub(crate) fn reply_index(&self) -> u32 {
        self.reply_index
    }

    /// Waits until nothing is unanswered.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Enabled before the look, so that an answer between the two is not missed.
            idle.as_mut().enable();
            if self.pending().unanswered() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// A task's future is gone.
    pub(crate) fn abandon(&self, id: u64) {
        let idle = {
            let mut pending = self.pending();
            pending.abandon(id);
            pending.unanswered() == 0
        };
        if idle {
            self.idle.notify_waiters();
        }
    }
    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        // No code of the application runs under this lock; a panic in ours leaves a table that is
        // whole enough to go on with.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn replies(&self) -> Arc<Channel> {
        Arc::clone(&self.replies)
    }

    pub(crate) fn queue(&self) -> &Channel {
        &self.queue
    }

    pub(crate) fn in_hand(&self) -> Vec<InHand> {
        in_hand(&self.pending())
    }

    pub(crate) fn send(
        &self,
        packet: &mut [u8],
        new: New<'_>,
        on_full: OnFull,
    ) -> Result<u64, Refusal> {
        let idempotent = new.idempotent;
        let (id, sooner, queue_behind) = {
            let mut pending = self.pending();
            if let Some(verdict) = pending.closed() {
                return Err(Refusal::Ended(verdict));
            }
            let queue_behind = pending.is_backed_up();
            if queue_behind && on_full == OnFull::Fail {
                return Err(Refusal::Full);
            }
            let inserted = pending.insert(new).ok_or(Refusal::Full)?;
            TaskPacket::set_id(packet, inserted.id);
            if queue_behind {
                pending.wait(inserted.id, packet);
            } else if idempotent {
                pending.keep(inserted.id, packet);
            }
            (inserted.id, inserted.sooner, queue_behind)
        };
        if sooner {
            self.sooner.notify_one();
        }
        if queue_behind {
            return Ok(id);
        }
        let refusal = match self.put(packet) {
            Put::Done => return Ok(id),
            Put::Full if on_full == OnFull::Wait => {
                self.pending().wait(id, packet);
                self.backed_up.notify_one();
                return Ok(id);
            }
            Put::Full => Refusal::Full,
            Put::TooLarge => Refusal::TooLarge,
            Put::NobodyThere => Refusal::Ended(Verdict::NoTaskWorkers),
        };
        let idle = {
            let mut pending = self.pending();
            pending.remove(id);
            pending.unanswered() == 0
        };
        if idle {
            self.idle.notify_waiters();
        }
        Err(refusal)
    }

    fn put(&self, packet: &[u8]) -> Put {
        loop {
            return match self.queue.send_bytes(packet) {
                Ok(()) => Put::Done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Put::Full,
                // The kernel is short of memory: as good as full, and as passing.
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Put::Full,
                Err(error) if error.raw_os_error() == Some(background::ENOBUFS) => Put::Full,
                Err(error) if error.raw_os_error() == Some(background::EMSGSIZE) => Put::TooLarge,
                Err(error) => {
                    tracing::error!(%error, "the task queue is gone");
                    Put::NobodyThere
                }
            };
        }
    }

    /// Sends what waits for room; false if there still is none for all of it.
    pub(crate) fn flush(&self) -> bool {
        let mut gone = false;
        let done = self.pending().flush(|packet| match self.put(packet) {
            Put::Done => true,
            Put::Full => false,
            // The limit let it pass before, or the queue is gone: its deadline will tell.
            Put::TooLarge => true,
            Put::NobodyThere => {
                gone = true;
                false
            }
        });
        if gone {
            self.close(Verdict::NoTaskWorkers);
            return true;
        }
        done
    }

    /// Delivers up to `most` answers.
    pub(crate) fn drain(&self, most: usize) -> Drained {
        let mut buffer = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..most {
            match self.replies.recv_bytes(&mut buffer) {
                Ok(0) => return Drained::Closed,
                Ok(length) => self.deliver(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "the reply socket is gone");
                    return Drained::Closed;
                }
            }
        }
        Drained::More
    }

    fn deliver(&self, packet: &[u8]) {
        let reply = match ReplyPacket::decode(packet) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, "an answer was not understood");
                return;
            }
        };
        let ended = self.pending().reply(reply.id, reply.status, reply.payload);
        // None: of a predecessor on this socket, or of a task that timed out.
        if let Some(ended) = ended {
            self.tell(ended, Verdict::Replied(reply.status), reply.payload);
        }
    }

    pub(crate) fn expire(&self) {
        // An answer that lies in the socket has come in time, though this thread was busy.
        self.drain(usize::MAX);
        let ended = self.pending().expire(monotonic_ms());
        for ended in ended {
            self.tell(ended, Verdict::TimedOut, &[]);
        }
    }

    pub(crate) fn close(&self, verdict: Verdict) {
        let ended = self.pending().close(verdict);
        for ended in ended {
            self.tell(ended, verdict, &[]);
        }
    }

    pub(crate) fn tell(&self, ended: Ended, verdict: Verdict, payload: &[u8]) {
        if ended.detached && verdict != Verdict::Replied(Status::Done) {
            let error = error_of(ended.name, verdict, payload, ended.timeout);
            tracing::error!(task = ended.name, %error, "a task that nobody awaits has failed");
        }
        if let Some(waker) = ended.waker {
            waker.wake();
        }
        if ended.last {
            self.idle.notify_waiters();
        }
    }
}

pub(crate) fn in_hand(pending: &Pending) -> Vec<InHand> {
    let now_ms = monotonic_ms();
    let mut list: Vec<InHand> = pending
        .list()
        .into_iter()
        .map(|task| InHand {
            name: task.name,
            age: Duration::from_millis(now_ms.saturating_sub(task.started_ms)),
        })
        .collect();
    list.sort_by_key(|task| std::cmp::Reverse(task.age));
    list
}
