//! The moments at which a server runs what the application has for them, beside serving.

use std::future::Future;
use std::sync::Arc;

use shiftwork_supervisor::protocol::template::{HookCall, HookName};

use super::Server;
use crate::BoxError;
use crate::worker::Worker;

/// A hook of the application.
pub(crate) type Hook = Box<dyn Fn(&HookCall) -> Result<(), BoxError> + Send + Sync>;

impl<P: Send + Sync + 'static, S: Send + Sync + 'static> Server<P, S> {
    /// Runs once, before the first worker, in a short-lived process of its own that has 10 s. An
    /// error fails the start.
    #[must_use]
    pub fn on_start(
        self,
        hook: impl Fn(&HookCall) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hook(HookName::OnStart, Box::new(hook))
    }

    /// Runs once, when the server serves, in a process of its own. An error is logged.
    #[must_use]
    pub fn on_manager_start(
        self,
        hook: impl Fn(&HookCall) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hook(HookName::OnManagerStart, Box::new(hook))
    }

    /// Runs after a worker or task worker has died unasked, in a process of its own;
    /// [`HookCall::died`] tells who and how. An error is logged.
    #[must_use]
    pub fn on_worker_error(
        self,
        hook: impl Fn(&HookCall) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hook(HookName::OnWorkerError, Box::new(hook))
    }

    /// Runs at a graceful stop when all workers are gone, in a process of its own. An error is
    /// logged.
    #[must_use]
    pub fn on_shutdown(
        self,
        hook: impl Fn(&HookCall) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hook(HookName::OnShutdown, Box::new(hook))
    }

    fn hook(mut self, name: HookName, hook: Hook) -> Self {
        self.hooks.insert(name as u8, (name, hook));
        self
    }

    /// Runs when a worker has finished everything and is about to exit. A worker that is killed, or
    /// that was never let serve, as in a reload that fails, does not come here.
    #[must_use]
    pub fn on_worker_stop<F, R>(mut self, stop: F) -> Self
    where
        F: Fn(Worker, Arc<S>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.callbacks.stop = Some(Box::new(move |worker, state| Box::pin(stop(worker, state))));
        self
    }

    /// Runs when a worker begins to drain, while it still has work in hand: the place to end what
    /// would keep it from becoming empty.
    #[must_use]
    pub fn on_worker_exit<F, R>(mut self, exit: F) -> Self
    where
        F: Fn(Worker, Arc<S>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.callbacks.exit = Some(Box::new(move |worker, state| Box::pin(exit(worker, state))));
        self
    }

    /// Whether a worker is fit to serve: asked of the first worker of every generation when it is ready,
    /// before any of them serves, and again, `server.health_tries` times in all, if it is an error, a
    /// panic, or no answer within `server.health_timeout`. A reload whose new code does not become
    /// healthy is aborted, and the old generation serves on; a start fails. If `server.health` names
    /// a path as well, both have to be well.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use shiftwork::{BoxError, Worker};
    /// # struct Database;
    /// # impl Database { async fn ping(&self) -> Result<(), BoxError> { Ok(()) } }
    /// let server = shiftwork::Server::new("hello")
    ///     .on_worker_start(async |_, _| Ok(Database))
    ///     .health(|_: Worker, database: Arc<Database>| async move { database.ping().await });
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn health<F, R>(mut self, check: F) -> Self
    where
        F: Fn(Worker, Arc<S>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.callbacks.health = Some(Box::new(move |worker, state| Box::pin(check(worker, state))));
        self
    }
}
