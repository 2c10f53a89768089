//! Messages for a connection from other tasks: a bounded queue that its driver empties.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
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
/// the connection's own `send`. What is in the queue when the connection ends is lost; a worker that
/// drains sends it, in its order, before it closes the connection or hands it over. Afterwards every
/// call fails: with [`SendError::HandedOver`] if the connection lives on in another worker, where the
/// handler's `resume` is the place to ask for a new sender.
pub struct Sender<M> {
    queue: mpsc::Sender<Push<M>>,
    /// Whether the connection has left for another process.
    left: Arc<AtomicBool>,
}

impl<M> Sender<M> {
    /// Queues a message; waits while the queue is full. Returning Ok does not mean that the client
    /// has it.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection has ended, [`SendError::HandedOver`] when it has
    /// passed to another worker. The message is dropped.
    pub async fn send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.queue.send(Push::Message(message.into())).await.map_err(|_| self.gone())
    }

    /// Queues a message if there is room.
    ///
    /// # Errors
    /// As [`send`](Sender::send), and [`SendError::Full`] when the client is too slow.
    pub fn try_send(&self, message: impl Into<M>) -> Result<(), SendError> {
        self.queue.try_send(Push::Message(message.into())).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => self.gone(),
        })
    }

    /// Asks the connection to close after what was queued before. On raw TCP, the code and the
    /// reason only go to the handler's `close`.
    ///
    /// # Errors
    /// [`SendError::Closed`] when it has ended already, [`SendError::HandedOver`] when it has passed to
    /// another worker.
    pub async fn close(&self, code: u16, reason: impl Into<String>) -> Result<(), SendError> {
        let push = Push::Close { code, reason: reason.into() };
        self.queue.send(push).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> SendError {
        match self.left.load(Acquire) {
            true => SendError::HandedOver,
            false => SendError::Closed,
        }
    }

    /// Resolves when the connection has ended, has begun to close, or has passed to another worker.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether the connection has ended, has begun to close, or has passed to another worker.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Sender { queue: self.queue.clone(), left: Arc::clone(&self.left) }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// Both ends of the queue: with one sender kept here, it never looks abandoned.
type Ends<M> = (Sender<M>, mpsc::Receiver<Push<M>>);

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
        let (sender, _) = self.queue.get_or_insert_with(|| {
            let (queue, mut receiver) = mpsc::channel(room);
            if closed {
                receiver.close();
            }
            (Sender { queue, left: Arc::default() }, receiver)
        });
        sender.clone()
    }

    /// The next push. Pending for ever while nobody asked for a sender.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Push<M>>> {
        match &mut self.queue {
            Some((_, queue)) => queue.poll_recv(cx),
            None => Poll::Pending,
        }
    }

    /// Refuses further pushes; [`rest`](Mailbox::rest) still gives those that were accepted.
    pub(crate) fn close(&mut self) {
        self.shut(false);
    }

    /// As [`close`](Mailbox::close), because the connection passes to another process.
    pub(crate) fn leave(&mut self) {
        self.shut(true);
    }

    fn shut(&mut self, left: bool) {
        self.closed = true;
        if let Some((sender, queue)) = &mut self.queue {
            // Before the queue refuses anybody, who would ask why.
            sender.left.store(left, Release);
            queue.close();
        }
    }

    /// After [`close`](Mailbox::close): the next push that was accepted before; None when there are
    /// no more. Waits for a sender in another thread that has its place and has not filled it yet.
    pub(crate) async fn rest(&mut self) -> Option<Push<M>> {
        match &mut self.queue {
            Some((_, queue)) => queue.recv().await,
            None => None,
        }
    }
}
