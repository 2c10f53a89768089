//! What application code may ask of the server, over the worker's own channel to the manager.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shiftwork_supervisor::core::outcome::Outcome;
use shiftwork_supervisor::protocol::worker::{Ask, FromWorker};
use tokio::sync::{mpsc, oneshot};

/// Why the server has not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The manager is gone, or this worker is about to be.
    #[error("the server does not answer")]
    Gone,
    /// The answer is not what it should be.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// What was asked, and where the answer goes.
type Asked = (Ask, oneshot::Sender<String>);

/// Questions under way.
#[derive(Debug, Clone)]
pub(crate) struct Asks {
    out: mpsc::UnboundedSender<FromWorker>,
    waiting: Arc<Mutex<HashMap<u64, Asked>>>,
    next: Arc<AtomicU64>,
}

impl Asks {
    pub(super) fn new(out: mpsc::UnboundedSender<FromWorker>) -> Self {
        Self { out, waiting: Arc::default(), next: Arc::default() }
    }

    async fn ask(&self, ask: Ask) -> Result<String, AskError> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, (ask, sender));
        self.out.send(FromWorker::Ask { ticket, ask }).map_err(|_| AskError::Gone)?;
        receiver.await.map_err(|_| AskError::Gone)
    }

    /// An answer has come.
    pub(super) fn answered(&self, ticket: u64, json: String) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some((_, waiting)) = waiting {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(json);
        }
    }

    /// Asks a new manager again, which knows what the last one had written down.
    pub(super) fn repeat(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (ticket, (ask, _)) in waiting.iter() {
            let _ = self.out.send(FromWorker::Ask { ticket: *ticket, ask: *ask });
        }
    }

    /// Nothing will be answered any more.
    pub(super) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The server, as a worker can speak to it.
///
/// ```no_run
/// use shiftwork::{AskError, Verdict};
///
/// async fn reload() -> Result<bool, AskError> {
///     let outcome = shiftwork::worker().server().reload().await?;
///     Ok(outcome.outcome == Verdict::Committed)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ServerHandle {
    asks: Asks,
}

impl ServerHandle {
    pub(super) fn new(asks: Asks) -> Self {
        Self { asks }
    }

    /// As the command `reload`: resolves with the outcome when the new generation is committed, or
    /// has failed. The worker that asks drains meanwhile, and finishes what it has in hand.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn reload(&self) -> Result<Outcome, AskError> {
        Ok(serde_json::from_str(&self.asks.ask(Ask::Reload).await?)?)
    }

    /// As the command `stop`: resolves when the stop has begun.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn shutdown(&self) -> Result<(), AskError> {
        self.asks.ask(Ask::Shutdown).await.map(drop)
    }

    /// As the command `status --json`.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn stats(&self) -> Result<serde_json::Value, AskError> {
        Ok(serde_json::from_str(&self.asks.ask(Ask::Stats).await?)?)
    }
}
