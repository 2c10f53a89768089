//! Messages for a connection from other tasks: a bounded queue that its driver empties.

use std::fmt;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::link::SendError;

/// What another task wants of a connection.
pub(crate) enum Push<M> {
    Message(M),
    Close { code: u16, reason: String },
}

/// Sends to one connection from anywhere: other tasks, timers, other connections' handlers.
///
/// Clones share one bounded queue (`push_queue`, 64 messages), which the connection empties while its
/// own handler does not run. So a handler must not wait for its own connection's queue: there it uses
/// the connection's own `send`. What is in the queue when the connection ends is lost, except that a
/// draining worker sends it before it closes.
pub struct Sender<M> {
    queue: mpsc::Sender<Push<M>>,
}

impl<M> Sender<M> {
    /// Queues a message; waits while the queue is full. Returning Ok does not mean that the client
    /// has it.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection has ended.
    pub async fn send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.queue.send(Push::Message(message.into())).await.map_err(|_| SendError::Closed)
    }

    /// Queues a message if there is room.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client is too slow, [`SendError::Closed`] when the connection has
    /// ended. The message is dropped.
    pub fn try_send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.queue.try_send(Push::Message(message.into())).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Asks the connection to close after what was queued before. On raw TCP, the code and the
    /// reason only go to the handler's `close`.
    ///
    /// # Errors
    /// [`SendError::Closed`] when it has ended already.
    pub async fn close(&self, code: u16, reason: impl Into<String>) -> Result<(), SendError> {
        let push = Push::Close { code, reason: reason.into() };
        self.queue.send(push).await.map_err(|_| SendError::Closed)
    }

    /// Resolves when the connection has ended, or has begun to close.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether the connection has ended, or has begun to close.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Sender { queue: self.queue.clone() }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// Both ends of the queue: with one sender kept here, it never looks abandoned.
type Ends<M> = (mpsc::Sender<Push<M>>, mpsc::Receiver<Push<M>>);

/// The connection's end of the queue. Made when the first sender is asked for: most connections
/// never need one, and tokio's channel takes a kilobyte or more.
pub(crate) struct Mailbox<M> {
    room: usize,
    queue: Option<Ends<M>>,
    closed: bool,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(room: usize) -> Self {
        Mailbox { room: room.max(1), queue: None, closed: false }
    }

    pub(crate) fn sender(&mut self) -> Sender<M> {
        let (room, closed) = (self.room, self.closed);
        let (queue, _) = self.queue.get_or_insert_with(|| {
            let (sender, mut receiver) = mpsc::channel(room);
            if closed {
                receiver.close();
            }
            (sender, receiver)
        });
        Sender { queue: queue.clone() }
    }

    /// The next push. Pending for ever while nobody asked for a sender.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Push<M>>> {
        match &mut self.queue {
            Some((_, queue)) => queue.poll_recv(cx),
            None => Poll::Pending,
        }
    }

    /// Refuses further pushes; [`take`](Mailbox::take) still gives the waiting ones.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        if let Some((_, queue)) = &mut self.queue {
            queue.close();
        }
    }

    /// A push that waits already.
    pub(crate) fn take(&mut self) -> Option<Push<M>> {
        self.queue.as_mut().and_then(|(_, queue)| queue.try_recv().ok())
    }
}
