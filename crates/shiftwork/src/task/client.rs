//! The worker's end of the task queue.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::socket::Channel;

use super::background::{self, Background};
use super::call::{CallOptions, OnFull, TaskCall, error_of};
use super::pending::{Ended, Lost, New, Verdict};
use super::shared::{Refusal, Shared, in_hand};
use super::wire::{self, TaskPacket};
use super::{DEFAULT_MAX_SIZE, Task, TaskError};

/// What a worker's tasks are sent with.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// How long a task is waited for. Default: 60 s; zero: for ever. Setting: `task_timeout`.
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
        let shared = Arc::new(Shared::new(queue, replies, reply_index, options.max_size));
        // A predecessor's answers may fill the socket: ours must find room.
        shared.drain(usize::MAX);
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
        if let Some(shared) = &self.shared {
            shared.idle().await;
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
            let deadline_ms = deadline(now_ms, options.timeout);
            let flags = if T::IDEMPOTENT { wire::IDEMPOTENT } else { 0 };
            TaskPacket::begin(packet, flags, shared.reply_index(), deadline_ms, name);
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
                // The socket holds less than the setting allows; how much less, it does not say.
                Refusal::TooLarge => {
                    TaskError::TooLarge { name, size, limit: limit.min(size.saturating_sub(1)) }
                }
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
            shared.abandon(id);
        }
    }
}

/// Zero is no deadline: one that never comes.
fn deadline(now_ms: u64, timeout: Duration) -> u64 {
    match u64::try_from(timeout.as_millis()) {
        _ if timeout.is_zero() => u64::MAX,
        // A timeout below the clock's grain is still one.
        Ok(timeout_ms) => now_ms.saturating_add(timeout_ms.max(1)),
        Err(_) => u64::MAX,
    }
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
