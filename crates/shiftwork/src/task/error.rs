//! What can become of a task other than its answer.

use std::time::Duration;

/// Why a task has no answer.
///
/// `Unknown`, `Unreadable`, `TooLarge`, `QueueFull` and `NoTaskWorkers` mean that it has not run.
/// After the others it may have run, wholly or in part.
///
/// ```
/// use shiftwork::TaskError;
///
/// fn may_be_tried_again(error: &TaskError) -> bool {
///     matches!(error, TaskError::QueueFull { .. } | TaskError::NoTaskWorkers { .. })
/// }
/// # assert!(may_be_tried_again(&TaskError::QueueFull { name: "ship" }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task worker has no handler of this name.
    #[error("task `{name}`: the task workers have no handler for it")]
    Unknown {
        /// The task's name.
        name: &'static str,
    },
    /// The task worker could not decode the task: another release's type, usually.
    #[error("task `{name}`: the task worker cannot read it: {why}")]
    Unreadable {
        /// The task's name.
        name: &'static str,
        /// The decoder's words.
        why: String,
    },
    /// The answer could not be encoded there or decoded here.
    #[error("task `{name}`: its answer cannot be read: {why}")]
    OutputUnreadable {
        /// The task's name.
        name: &'static str,
        /// The encoder's or decoder's words.
        why: String,
    },
    /// The task is larger than what is sent; it was not sent.
    #[error("task `{name}`: {size} bytes are over the limit of {limit}")]
    TooLarge {
        /// The task's name.
        name: &'static str,
        /// Its encoded size in bytes.
        size: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The answer is larger than what is sent. The task has run.
    #[error("task `{name}`: its answer of {size} bytes is over the limit of {limit}")]
    OutputTooLarge {
        /// The task's name.
        name: &'static str,
        /// The answer's encoded size in bytes.
        size: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The value's own `Serialize` refused.
    #[error("task `{name}`: it cannot be encoded: {why}")]
    Unencodable {
        /// The task's name.
        name: &'static str,
        /// The encoder's words.
        why: String,
    },
    /// The queue is full, and the caller chose not to wait.
    #[error("task `{name}`: the task queue is full")]
    QueueFull {
        /// The task's name.
        name: &'static str,
    },
    /// No answer came in time. The task may be waiting, running, or lost with its task worker.
    #[error("task `{name}`: no answer within {after:?}")]
    TimedOut {
        /// The task's name.
        name: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The task worker died with it.
    #[error("task `{name}`: the task worker died while running it")]
    WorkerDied {
        /// The task's name.
        name: &'static str,
    },
    /// The handler returned an error.
    #[error("task `{name}` failed: {message}")]
    Failed {
        /// The task's name.
        name: &'static str,
        /// The error and its causes, at most 4 KiB.
        message: String,
    },
    /// The handler panicked; the task worker goes on.
    #[error("task `{name}` panicked: {message}")]
    Panicked {
        /// The task's name.
        name: &'static str,
        /// The panic's message, at most 4 KiB.
        message: String,
    },
    /// The server runs no task workers (`task_worker_num` is 0), or all of them are gone for good.
    #[error("task `{name}`: there are no task workers (task_worker_num)")]
    NoTaskWorkers {
        /// The task's name.
        name: &'static str,
    },
    /// The drain's deadline passed before it was answered, in the worker or in the task worker.
    #[error("task `{name}`: cut at the end of the drain (max_wait_time)")]
    Cut {
        /// The task's name.
        name: &'static str,
    },
}

impl TaskError {
    /// Name of the task.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown { name }
            | Self::Unreadable { name, .. }
            | Self::OutputUnreadable { name, .. }
            | Self::TooLarge { name, .. }
            | Self::OutputTooLarge { name, .. }
            | Self::Unencodable { name, .. }
            | Self::QueueFull { name }
            | Self::TimedOut { name, .. }
            | Self::WorkerDied { name }
            | Self::Failed { name, .. }
            | Self::Panicked { name, .. }
            | Self::NoTaskWorkers { name }
            | Self::Cut { name } => name,
        }
    }
}

/// Two handlers were registered for tasks of one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two handlers are registered for the task `{name}`")]
pub struct DuplicateTask {
    /// The name.
    pub name: &'static str,
}
