//! The worker's end of the task queue.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::socket::Channel;
use tokio::sync::Notify;

use super::background::{self, Background};
use super::call::{CallOptions, OnFull, TaskCall, error_of};
use super::pending::{Ended, Lost, New, Pending, Verdict};
use super::wire::{self, ReplyPacket, Status, TaskPacket};
use super::{DEFAULT_MAX_SIZE, Task, TaskError};

/// What a worker's tasks are sent with.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// How long a task is waited for. Default: 60 s. Setting: `task_timeout`.
    pub timeout: Duration,
    /// Largest task in encoded bytes, without name and head. Default: 64 KiB.
    pub max_size: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), max_size: DEFAULT_MAX_SIZE }
    }
}

/// A task without an answer, for the log of what a drain's deadline cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InHand {
    /// Its name.
    pub name: &'static str,
    /// How long ago it was called.
    pub age: Duration,
}

/// Sends tasks of this worker, and hands out the answers.
///
/// Clones are the same client. All of it may be used from any thread of the worker's runtime.
/// When the last clone is dropped, its background work ends; futures that still wait hold one.
#[derive(Debug, Clone)]
pub struct TaskClient {
    shared: Option<Arc<Shared>>,
    options: ClientOptions,
    /// Ends reader, pump and sweeper with the last clone.
    _background: Option<Arc<Background>>,
}

/// What the clones and the background work have in common.
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

impl TaskClient {
    /// Begins to serve a worker: `queue` is the sending end of the generation's task queue,
    /// `replies` the receiving end of its reply socket number `reply_index`.
    ///
    /// Must be called inside the worker's runtime. Answers to a predecessor on the same reply
    /// socket are ignored.
    ///
    /// # Errors
    /// If the runtime cannot watch the reply socket.
    pub fn start(
        queue: Channel,
        replies: Channel,
        reply_index: u32,
        options: ClientOptions,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue,
            replies: Arc::new(replies),
            reply_index,
            pending: Mutex::new(Pending::new(monotonic_ms().wrapping_mul(1000))),
            // An answer can be longer than a task may be: errors come as words.
            reading: Mutex::new(vec![
                0;
                wire::REPLY_HEAD + options.max_size.max(wire::MAX_MESSAGE) + 1
            ]),
            backed_up: Notify::new(),
            sooner: Notify::new(),
            idle: Notify::new(),
        });
        let background = background::start(&shared)?;
        Ok(Self { shared: Some(shared), options, _background: Some(Arc::new(background)) })
    }

    /// The client of a server without task workers: every task is [`TaskError::NoTaskWorkers`].
    #[must_use]
    pub fn without_task_workers() -> Self {
        Self { shared: None, options: ClientOptions::default(), _background: None }
    }

    /// Prepares a task; awaiting it sends it and yields its answer.
    pub fn call<T: Task>(&self, task: T) -> TaskCall<T> {
        let options = CallOptions { timeout: self.options.timeout, on_full: OnFull::default() };
        TaskCall::new(self.clone(), task, options)
    }

    /// How many tasks of this worker have no answer yet, whether or not anybody awaits them.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.pending().unanswered())
    }

    /// Those tasks by name and age, the oldest first.
    #[must_use]
    pub fn in_hand(&self) -> Vec<InHand> {
        self.shared.as_ref().map_or_else(Vec::new, |shared| shared.in_hand())
    }

    /// Waits until every task of this worker has its answer; at once if there is none.
    pub async fn idle(&self) {
        let Some(shared) = &self.shared else { return };
        loop {
            let idle = shared.idle.notified();
            tokio::pin!(idle);
            // Enabled before the look, so that an answer between the two is not missed.
            idle.as_mut().enable();
            if shared.pending().unanswered() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// The manager says that the task worker that had this task died. It is sent again if that
    /// does no harm, else answered with [`TaskError::WorkerDied`]. A task that is not known, or
    /// whose answer had been sent before the death, is not touched.
    pub fn lost(&self, task: u64) {
        let Some(shared) = &self.shared else { return };
        // What the dead one has answered lies in the socket, and counts.
        shared.drain(usize::MAX);
        let lost = shared.pending().lost(task);
        match lost {
            Lost::NotOurs => {}
            Lost::Again(name) => {
                tracing::warn!(task = name, "its task worker died; it is sent again");
                if !shared.flush() {
                    shared.backed_up.notify_one();
                }
            }
            Lost::Died(ended) => shared.tell(ended, Verdict::WorkerDied, &[]),
        }
    }

    /// The drain's deadline has passed: every task without an answer, and every later one, ends
    /// with [`TaskError::Cut`]. Each is logged by name and age; they are returned as well.
    pub fn cut_all(&self) -> Vec<InHand> {
        let Some(shared) = &self.shared else { return Vec::new() };
        shared.drain(usize::MAX);
        let (cut, ended) = {
            let mut pending = shared.pending();
            let cut = in_hand(&pending);
            (cut, pending.close(Verdict::Cut))
        };
        for task in &cut {
            tracing::error!(
                task = task.name,
                age_ms = task.age.as_millis() as u64,
                "unanswered task cut at the drain's deadline"
            );
        }
        for ended in ended {
            // Logged above, by name: whether somebody waits makes no difference.
            shared.tell(Ended { detached: false, ..ended }, Verdict::Cut, &[]);
        }
        cut
    }

    /// Sends a task. Its number, or why it has not been sent.
    pub(crate) fn submit<T: Task>(
        &self,
        task: &T,
        options: CallOptions,
        waker: Option<&Waker>,
    ) -> Result<u64, TaskError> {
        let name = T::NAME;
        let Some(shared) = &self.shared else { return Err(TaskError::NoTaskWorkers { name }) };
        let limit = self.options.max_size;
        with_scratch(|packet| {
            let now_ms = monotonic_ms();
            let timeout_ms = u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX);
            let deadline_ms = now_ms.saturating_add(timeout_ms).min(u64::MAX - 1);
            let flags = if T::IDEMPOTENT { wire::IDEMPOTENT } else { 0 };
            TaskPacket::begin(packet, flags, shared.reply_index, deadline_ms, name);
            let head = packet.len();
            wire::append(packet, task)
                .map_err(|why| TaskError::Unencodable { name, why: why.to_string() })?;
            let size = packet.len() - head;
            if size > limit {
                return Err(TaskError::TooLarge { name, size, limit });
            }
            let new = New { name, now_ms, deadline_ms, idempotent: T::IDEMPOTENT, waker };
            shared.send(packet, new, options.on_full).map_err(|refusal| match refusal {
                Refusal::Full => TaskError::QueueFull { name },
                Refusal::Ended(verdict) => error_of(name, verdict, &[], options.timeout),
                Refusal::TooLarge => TaskError::TooLarge { name, size, limit },
            })
        })
    }

    pub(crate) fn poll_answer(
        &self,
        id: u64,
        waker: &Waker,
        buffer: &mut Vec<u8>,
    ) -> Poll<Verdict> {
        match &self.shared {
            Some(shared) => shared.pending().poll(id, waker, buffer),
            None => Poll::Ready(Verdict::NoTaskWorkers),
        }
    }

    pub(crate) fn abandon(&self, id: u64) {
        if let Some(shared) = &self.shared {
            let idle = {
                let mut pending = shared.pending();
                pending.abandon(id);
                pending.unanswered() == 0
            };
            if idle {
                shared.idle.notify_waiters();
            }
        }
    }
}

/// Why a packet was not sent.
enum Refusal {
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

    fn in_hand(&self) -> Vec<InHand> {
        in_hand(&self.pending())
    }

    fn send(&self, packet: &mut [u8], new: New<'_>, on_full: OnFull) -> Result<u64, Refusal> {
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
        self.pending().remove(id);
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

    fn tell(&self, ended: Ended, verdict: Verdict, payload: &[u8]) {
        if ended.detached && verdict != Verdict::Replied(Status::Done) {
            let error = error_of(ended.name, verdict, payload, Duration::ZERO);
            tracing::error!(task = ended.name, %error, "a task that nobody awaits has failed");
        }
        if let Some(waker) = ended.waker {
            waker.wake();
        }
        if self.pending().unanswered() == 0 {
            self.idle.notify_waiters();
        }
    }
}

fn in_hand(pending: &Pending) -> Vec<InHand> {
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

/// Lends this thread's buffer: a task is encoded, and an answer read, without an allocation.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Taken out, since the application's own Serialize runs in here and may come back.
    let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
    let result = work(&mut buffer);
    if buffer.capacity() <= DEFAULT_MAX_SIZE {
        buffer.clear();
        let _ = SCRATCH.try_with(|scratch| scratch.set(buffer));
    }
    result
}
