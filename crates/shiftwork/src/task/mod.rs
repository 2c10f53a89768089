//! Tasks: work that a worker gives to a task worker of its generation and may await.
//!
//! A task is a serialisable value with a name and a type for its answer. It travels through one
//! kernel queue per generation, from which any task worker that is free takes it, so a crash of
//! the task workers leaves what waits in place. The answer comes back over a socket of the
//! worker that asked.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use shiftwork::task::{Handlers, Task};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Ship {
//!     order: u64,
//! }
//!
//! impl Task for Ship {
//!     const NAME: &'static str = "ship";
//!     type Output = String;
//! }
//!
//! struct State {
//!     prefix: &'static str,
//! }
//!
//! let mut handlers = Handlers::<State>::new();
//! handlers.register(|state: std::sync::Arc<State>, task: Ship| async move {
//!     Ok::<_, std::io::Error>(format!("{}-{}", state.prefix, task.order))
//! })?;
//! assert_eq!(handlers.names(), ["ship"]);
//! # Ok::<(), shiftwork::task::DuplicateTask>(())
//! ```
//!
//! What becomes of a task when something dies, from the sender's point of view:
//!
//! | what dies | the task |
//! |---|---|
//! | the task worker that runs it | is sent again if [`Task::IDEMPOTENT`], else [`TaskError::WorkerDied`] |
//! | the task worker, in the instant between taking and claiming it | [`TaskError::TimedOut`] at its deadline |
//! | every task worker, while it waits in the queue | waits for their successors |
//! | the handler's own logic (`Err`, panic) | [`TaskError::Failed`], [`TaskError::Panicked`] |
//! | the future that awaits it | runs on; its worker does not exit before the answer |

mod background;
mod call;
mod client;
mod control;
mod error;
mod handlers;
mod pending;
mod replies;
mod shared;
#[cfg(test)]
mod tests;
pub(crate) mod watch;
pub mod wire;
mod worker;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use call::{OnFull, TaskCall, TaskFuture};
pub use client::{ClientOptions, InHand, TaskClient};
pub use control::{TaskControl, TaskLoopMode};
pub use error::{DuplicateTask, TaskError};
pub use handlers::Handlers;
pub use replies::LateReplies;
pub use worker::{LoopOptions, TaskLoop, TaskLoopEnd};

/// Largest task, and largest answer, that is sent by default, in encoded bytes: 64 KiB.
pub const DEFAULT_MAX_SIZE: usize = 64 * 1024;

/// A unit of work for the task workers: the value is what the handler is given.
///
/// The encoding is postcard's, which names no fields: a release that changes the type should
/// change [`NAME`](Task::NAME) too if tasks of the old one may still wait for it (USR2).
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// Finds the handler, and names the task in errors and logs. At most 65,535 bytes.
    const NAME: &'static str;

    /// What the handler answers.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Whether running it twice does no harm. If so, a task whose task worker died is sent again
    /// (up to three runs in all) instead of being answered with [`TaskError::WorkerDied`].
    const IDEMPOTENT: bool = false;
}
