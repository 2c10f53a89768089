//! One task from the caller's side: options, and the future that yields its answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::client::{TaskClient, with_scratch};
use super::pending::Verdict;
use super::wire::{self, Status};
use super::{Task, TaskError};

/// What to do when the task queue has no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Wait for room; the task's deadline runs meanwhile.
    #[default]
    Wait,
    /// End at once with [`TaskError::QueueFull`].
    Fail,
}

/// A task that has not been sent yet: await it, or give it options first.
///
/// Nothing is sent before the first poll. When the future is dropped after that, the task is not
/// taken back: it counts as work in hand of this worker until its answer comes, and a failure is
/// logged.
#[must_use = "a task is sent when it is awaited"]
pub struct TaskCall<T: Task> {
    client: TaskClient,
    task: T,
    options: CallOptions,
}

/// What [`TaskCall`] collects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) timeout: Duration,
    pub(crate) on_full: OnFull,
}

impl<T: Task> TaskCall<T> {
    pub(crate) fn new(client: TaskClient, task: T, options: CallOptions) -> Self {
        Self { client, task, options }
    }

    /// How long to wait for the answer, waiting for room included; zero: for ever, and then a task
    /// that is lost between two instructions of its task worker is never answered. Default: the
    /// setting `task_timeout` (60 s). A task that nobody has taken by then is not run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// What to do when the queue is full. Default: [`OnFull::Wait`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.options.on_full = on_full;
        self
    }

    /// Sends it without waiting for its answer. It counts as work in hand of this worker until
    /// the answer comes; a failure is logged.
    ///
    /// # Errors
    /// What is known at once: too large, a full queue (with [`OnFull::Fail`]; otherwise it waits
    /// for room by itself), no task workers.
    pub fn detach(self) -> Result<(), TaskError> {
        self.client.submit(&self.task, self.options, None).map(drop)
    }
}

impl<T: Task> IntoFuture for TaskCall<T> {
    type Output = Result<T::Output, TaskError>;
    type IntoFuture = TaskFuture<T>;

    fn into_future(self) -> TaskFuture<T> {
        TaskFuture {
            client: self.client,
            options: self.options,
            state: CallState::Unsent(self.task),
        }
    }
}

impl<T: Task> fmt::Debug for TaskCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskCall")
            .field("name", &T::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The answer to a task, when it comes. See [`TaskCall`].
#[must_use = "a task is sent when it is awaited"]
pub struct TaskFuture<T: Task> {
    client: TaskClient,
    options: CallOptions,
    state: CallState<T>,
}

enum CallState<T> {
    Unsent(T),
    Sent(u64),
    Over,
}

/// Nothing in it is pinned: it holds a task, or its number.
impl<T: Task> Unpin for TaskFuture<T> {}

impl<T: Task> Future for TaskFuture<T> {
    type Output = Result<T::Output, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.state, CallState::Over) {
            CallState::Unsent(task) => {
                match self.client.submit(&task, self.options, Some(context.waker())) {
                    Ok(id) => {
                        self.state = CallState::Sent(id);
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
            CallState::Sent(id) => {
                let after = self.options.timeout;
                let answer = with_scratch(|buffer| {
                    self.client
                        .poll_answer(id, context.waker(), buffer)
                        .map(|verdict| read_answer::<T>(verdict, buffer, after))
                });
                if answer.is_pending() {
                    self.state = CallState::Sent(id);
                }
                answer
            }
            CallState::Over => Poll::Pending,
        }
    }
}

impl<T: Task> Drop for TaskFuture<T> {
    fn drop(&mut self) {
        if let CallState::Sent(id) = self.state {
            self.client.abandon(id);
        }
    }
}

impl<T: Task> fmt::Debug for TaskFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFuture").field("name", &T::NAME).finish_non_exhaustive()
    }
}

fn read_answer<T: Task>(
    verdict: Verdict,
    payload: &[u8],
    after: Duration,
) -> Result<T::Output, TaskError> {
    match verdict {
        Verdict::Replied(Status::Done) => {
            wire::read(payload).map_err(|why| TaskError::OutputUnreadable { name: T::NAME, why })
        }
        other => Err(error_of(T::NAME, other, payload, after)),
    }
}

/// The error that a verdict other than an output stands for.
pub(crate) fn error_of(
    name: &'static str,
    verdict: Verdict,
    payload: &[u8],
    after: Duration,
) -> TaskError {
    let text = || String::from_utf8_lossy(payload).into_owned();
    match verdict {
        Verdict::Replied(status) => match status {
            // An output is read elsewhere; here it can only be one that nobody reads.
            Status::Done => TaskError::OutputUnreadable { name, why: "nobody reads it".to_owned() },
            Status::Unknown => TaskError::Unknown { name },
            Status::Unreadable => TaskError::Unreadable { name, why: text() },
            Status::Unencodable => TaskError::OutputUnreadable { name, why: text() },
            Status::OutputTooLarge => {
                let (size, limit) = wire::read_sizes(payload);
                TaskError::OutputTooLarge { name, size, limit }
            }
            Status::Failed => TaskError::Failed { name, message: text() },
            Status::Panicked => TaskError::Panicked { name, message: text() },
            Status::Cut => TaskError::Cut { name },
            Status::Expired => TaskError::TimedOut { name, after },
        },
        Verdict::TimedOut => TaskError::TimedOut { name, after },
        Verdict::WorkerDied => TaskError::WorkerDied { name },
        Verdict::Cut => TaskError::Cut { name },
        Verdict::NoTaskWorkers => TaskError::NoTaskWorkers { name },
    }
}
