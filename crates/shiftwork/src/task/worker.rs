//! The task worker's loop: take one, claim it, run it, answer it.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use shiftwork_sys::clock::{monotonic_ms, monotonic_us};
use shiftwork_sys::slab::{Row, Slab};
use shiftwork_sys::socket::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFdReadyGuard;

use super::DEFAULT_MAX_SIZE;
use super::control::{TaskControl, TaskLoopMode};
use super::handlers::{Answer, Handlers, Running, panicked};
use super::replies::{LateReplies, Replies};
use super::watch::watch;
use super::wire::{self, ReplyPacket, Status, TaskPacket};

/// Tasks that are run before the runtime's other work (control messages, timers) gets its turn;
/// a millisecond is enough for that as well.
const BATCH: u32 = 128;

/// What a task worker runs its tasks with.
#[derive(Debug, Clone, Copy)]
pub struct LoopOptions {
    /// Largest task and largest answer in encoded bytes. Default: 64 KiB.
    pub max_size: usize,
    /// After so many tasks `on_retire` is called, once. Default: none. (Setting:
    /// `task_max_request`; whoever sets this adds the jitter, so that the task workers do not all
    /// retire at once.)
    pub max_request: Option<u64>,
    /// How long a full reply socket is waited for before its owner is taken for dead, and its
    /// answers dropped. Default: 5 s.
    pub reply_wait: Duration,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self { max_size: DEFAULT_MAX_SIZE, max_request: None, reply_wait: Duration::from_secs(5) }
    }
}

/// Why a task worker's loop has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskLoopEnd {
    /// [`TaskControl::finish_queue`]: the queue was found empty.
    QueueEmpty,
    /// [`TaskControl::stop_taking`]: nothing runs.
    Stopped,
    /// [`TaskControl::cut`]: with name and age of what ran, if something did.
    Cut {
        /// The task that was dropped.
        running: Option<(String, Duration)>,
    },
    /// Every sending end of the queue is closed: server and workers are gone.
    QueueClosed,
}

/// A task worker's loop. It takes one task at a time.
pub struct TaskLoop<S> {
    queue: Arc<Channel>,
    replies: Replies,
    slab: Arc<Slab>,
    row: u32,
    handlers: Arc<Handlers<S>>,
    state: Arc<S>,
    options: LoopOptions,
    control: TaskControl,
    on_retire: Option<Box<dyn FnOnce() + Send + Sync>>,
    /// Tasks answered.
    done: u64,
    /// A packet's buffer that is not in use.
    spare: Vec<u8>,
}

impl<S: Send + Sync + 'static> TaskLoop<S> {
    /// `queue` is the receiving end of the generation's task queue; claims and counts are written
    /// to `row` of `slab`.
    #[must_use]
    pub fn new(
        queue: Channel,
        slab: Arc<Slab>,
        row: u32,
        handlers: Arc<Handlers<S>>,
        state: Arc<S>,
        options: LoopOptions,
    ) -> Self {
        Self {
            queue: Arc::new(queue),
            replies: Replies::new(options.reply_wait),
            slab,
            row,
            handlers,
            state,
            options,
            control: TaskControl::default(),
            on_retire: None,
            done: 0,
            spare: Vec::new(),
        }
    }

    /// Where answers for the owner of reply socket `index` go. Another for the same index takes
    /// the former's place.
    pub fn add_reply(&mut self, index: u32, channel: Channel) {
        self.replies.add(index, channel);
    }

    /// Takes reply sockets while the loop runs.
    #[must_use]
    pub fn late_replies(&self) -> LateReplies {
        self.replies.late()
    }

    /// Called once when [`LoopOptions::max_request`] tasks are done: ask the manager for a
    /// successor. The loop goes on until it is told to end.
    pub fn on_retire(&mut self, callback: impl FnOnce() + Send + Sync + 'static) {
        self.on_retire = Some(Box::new(callback));
    }

    /// What tells this loop to end.
    #[must_use]
    pub fn control(&self) -> TaskControl {
        self.control.clone()
    }

    /// Takes and runs tasks until told to end.
    ///
    /// A handler that blocks its thread blocks all else on a single-threaded runtime, control
    /// messages included.
    ///
    /// # Errors
    /// If the queue cannot be watched or read. A task in hand has been answered by then.
    pub async fn run(mut self) -> io::Result<TaskLoopEnd> {
        let queue = watch(Arc::clone(&self.queue), Interest::READABLE)?;
        let mut buffer = vec![0; wire::MAX_HEAD + self.options.max_size + 1];
        let mut turn = Turn::new();
        // None: no word from the runtime is needed to look into the queue.
        let mut ready: Option<AsyncFdReadyGuard<'_, Arc<Channel>>> = None;
        loop {
            let mode = self.control.mode();
            match mode {
                TaskLoopMode::Taking | TaskLoopMode::FinishQueue => {}
                TaskLoopMode::StopTaking => return Ok(TaskLoopEnd::Stopped),
                TaskLoopMode::Cut => return Ok(TaskLoopEnd::Cut { running: None }),
            }
            match self.queue.recv_bytes(&mut buffer) {
                Ok(0) => return Ok(TaskLoopEnd::QueueClosed),
                Ok(length) => {
                    if let Some(running) = self.work(&buffer[..length]).await {
                        return Ok(TaskLoopEnd::Cut { running: Some(running) });
                    }
                    if turn.is_over() {
                        tokio::task::yield_now().await;
                        turn = Turn::new();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if mode == TaskLoopMode::FinishQueue {
                        return Ok(TaskLoopEnd::QueueEmpty);
                    }
                    if let Some(mut ready) = ready.take() {
                        ready.clear_ready();
                    }
                    ready = tokio::select! {
                        biased;
                        () = self.control.changed_from(mode) => None,
                        ready = queue.readable() => Some(ready?),
                    };
                    turn = Turn::new();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs one task and answers it. Some: it was cut.
    async fn work(&mut self, packet: &[u8]) -> Option<(String, Duration)> {
        let task = match TaskPacket::decode(packet) {
            Ok(task) => task,
            Err(error) => {
                // Its sender cannot be told: where the answer goes was not understood either.
                tracing::error!(%error, "a task was not understood, and dropped");
                return None;
            }
        };
        let started_us = monotonic_us();
        let started_ms = started_us / 1000;
        let row = self.slab.row(self.row);
        row.set_claim(task.reply_index, task.id);
        row.set_oldest_ms(started_ms);
        row.set_in_flight(1);

        let mut answer = std::mem::take(&mut self.spare);
        ReplyPacket::begin(&mut answer, Status::Done, task.id);
        let mut cut = None;
        if task.deadline_ms <= started_ms {
            tracing::warn!(task = task.name, "nobody waits for it any more: not run");
            ReplyPacket::replace(&mut answer, Status::Expired, &[]);
        } else {
            let limit = self.options.max_size;
            let answer_to = Answer { packet: answer, limit };
            let started =
                self.handlers.start(task.name, task.id, &self.state, task.payload, answer_to);
            answer = match started {
                Err(refusal) => refusal,
                Ok(running) => match self.finish(running, task.id).await {
                    Some(answer) => answer,
                    None => {
                        let age = monotonic_ms().saturating_sub(started_ms);
                        let name = task.name.to_owned();
                        tracing::error!(
                            task = name,
                            age_ms = age,
                            "running task cut at the drain's deadline"
                        );
                        cut = Some((name, Duration::from_millis(age)));
                        let mut answer = Vec::new();
                        ReplyPacket::begin(&mut answer, Status::Cut, task.id);
                        answer
                    }
                },
            };
        }
        self.replies.send(&task, &answer, &self.control).await;
        let counts = &self.slab.row(self.row).counts;
        counts.task_latency.record(monotonic_us().saturating_sub(started_us));
        if ReplyPacket::status(&answer) != Some(Status::Done) {
            counts.add_tasks_failed(1);
        }
        self.spare = answer;
        if self.spare.capacity() > 64 * 1024 {
            self.spare = Vec::new();
        }
        self.settle();
        cut
    }

    /// The answer's packet, or None if the task was cut.
    async fn finish(&self, mut running: Running, id: u64) -> Option<Vec<u8>> {
        let mut guarded = std::future::poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
                Ok(poll) => poll,
                Err(panic) => Poll::Ready(panicked(id, &*panic)),
            }
        });
        let answer = tokio::select! {
            biased;
            answer = &mut guarded => Some(answer),
            () = self.control.until_cut() => None,
        };
        // What the application left in it may panic when it is dropped.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(running))) {
            return answer.map(|_| panicked(id, &*panic));
        }
        answer
    }

    /// The task is answered: it counts, and nobody is to be told if this process dies now.
    fn settle(&mut self) {
        let row: &Row = self.slab.row(self.row);
        row.clear_claim();
        row.set_in_flight(0);
        row.set_oldest_ms(0);
        row.counts.add_tasks(1);
        self.done += 1;
        if self.options.max_request.is_some_and(|most| self.done >= most)
            && let Some(callback) = self.on_retire.take()
        {
            callback();
        }
    }
}

impl<S> fmt::Debug for TaskLoop<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLoop")
            .field("row", &self.row)
            .field("handlers", &self.handlers)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How long the loop has kept the thread to itself.
struct Turn {
    tasks: u32,
    began_ms: u64,
}

impl Turn {
    fn new() -> Self {
        Self { tasks: 0, began_ms: monotonic_ms() }
    }

    fn is_over(&mut self) -> bool {
        self.tasks += 1;
        self.tasks >= BATCH || (self.tasks.is_multiple_of(8) && monotonic_ms() > self.began_ms)
    }
}
