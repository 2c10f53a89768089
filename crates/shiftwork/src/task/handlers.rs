//! Handlers by the name of their task, with the types taken out.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use super::wire::{self, ReplyPacket, Status, shorten};
use super::{DuplicateTask, Task};

/// A running task: yields the answer's packet, whole.
pub(crate) type Running = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

/// Decodes a task and begins to run it.
type Start<S> = Box<dyn Fn(Arc<S>, &[u8], Answer) -> Running + Send + Sync>;

/// The answer's buffer, with its head already in it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) packet: Vec<u8>,
    /// Largest output in encoded bytes.
    pub(crate) limit: usize,
}

/// The task handlers of an application, to be registered before the first fork.
///
/// `S` is the state that `on_worker_start` returned in the task worker.
pub struct Handlers<S> {
    by_name: HashMap<&'static str, Start<S>>,
}

impl<S: Send + Sync + 'static> Handlers<S> {
    /// No handlers.
    #[must_use]
    pub fn new() -> Self {
        Self { by_name: HashMap::new() }
    }

    /// Registers the handler of the tasks of type `T`.
    ///
    /// A task worker runs one task at a time. An `Err` reaches the sender as
    /// [`TaskError::Failed`](super::TaskError::Failed), a panic as
    /// [`TaskError::Panicked`](super::TaskError::Panicked); the task worker goes on after both.
    ///
    /// # Errors
    /// If there is one for this name.
    pub fn register<T, F, R, E>(&mut self, handler: F) -> Result<(), DuplicateTask>
    where
        T: Task,
        F: Fn(Arc<S>, T) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T::Output, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        if self.by_name.contains_key(T::NAME) {
            return Err(DuplicateTask { name: T::NAME });
        }
        let start = move |state: Arc<S>, payload: &[u8], mut answer: Answer| -> Running {
            let task = match wire::read::<T>(payload) {
                Ok(task) => task,
                Err(why) => {
                    ReplyPacket::replace(&mut answer.packet, Status::Unreadable, why.as_bytes());
                    return Box::pin(std::future::ready(answer.packet));
                }
            };
            let result = handler(state, task);
            Box::pin(async move {
                match result.await {
                    Ok(output) => write_output(&mut answer, &output),
                    Err(error) => {
                        let message = with_causes(&*error.into());
                        let message = shorten(&message).as_bytes();
                        ReplyPacket::replace(&mut answer.packet, Status::Failed, message);
                    }
                }
                answer.packet
            })
        };
        self.by_name.insert(T::NAME, Box::new(start));
        Ok(())
    }

    /// Names of the tasks that have a handler, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Begins to run a task; Err is the packet that refuses it.
    pub(crate) fn start(
        &self,
        name: &str,
        id: u64,
        state: &Arc<S>,
        payload: &[u8],
        mut answer: Answer,
    ) -> Result<Running, Vec<u8>> {
        let Some(start) = self.by_name.get(name) else {
            ReplyPacket::replace(&mut answer.packet, Status::Unknown, &[]);
            return Err(answer.packet);
        };
        // Decoding and the part of a handler before its first await are the application's code.
        catch_unwind(AssertUnwindSafe(|| start(Arc::clone(state), payload, answer)))
            .map_err(|panic| panicked(id, &*panic))
    }
}

impl<S: Send + Sync + 'static> Default for Handlers<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Handlers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// The packet that says that a task panicked.
pub(crate) fn panicked(id: u64, panic: &(dyn Any + Send)) -> Vec<u8> {
    let message = panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    let mut packet = Vec::new();
    ReplyPacket::begin(&mut packet, Status::Panicked, id);
    packet.extend_from_slice(shorten(message).as_bytes());
    packet
}

fn write_output<T: serde::Serialize>(answer: &mut Answer, output: &T) {
    let packet = &mut answer.packet;
    if let Err(why) = wire::append(packet, output) {
        ReplyPacket::replace(packet, Status::Unencodable, shorten(&why.to_string()).as_bytes());
        return;
    }
    let size = packet.len() - wire::REPLY_HEAD;
    if size > answer.limit {
        let sizes = wire::sizes(size, answer.limit);
        ReplyPacket::replace(packet, Status::OutputTooLarge, &sizes);
    }
}

/// An error and what caused it, on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
