//! A worker or task worker: the process that runs the application, and the handle that the
//! application has of it.

mod accept;
mod adopt;
pub(crate) mod affinity;
mod asks;
mod background;
mod connection;
mod doors;
mod drain;
mod gifts;
mod health;
mod life;
mod line;
mod process;
mod pulse;
mod row;
mod share;
mod tasks;
mod voice;
mod wear;

pub use asks::{AskError, ServerHandle};
pub(crate) use process::{Birth, run};

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::AppSettings;
use crate::task::{Task, TaskCall, TaskClient};

use asks::Asks;
use background::Background;

/// This process, as the application sees it. Clones are the same worker.
///
/// `on_worker_start` is given it; [`worker()`] finds it from anywhere in the process.
///
/// ```no_run
/// use std::time::Duration;
/// use shiftwork::Worker;
/// # async fn pay() {}
/// # async fn ship() {}
/// # async fn count() {}
///
/// async fn sell(worker: Worker) {
///     worker.every(Duration::from_secs(60), count);
///     let sold = worker.guard(async {
///         pay().await;
///         ship().await;
///         1
///     });
///     assert_eq!(sold.await, 1);
/// }
/// ```
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) id: u32,
    pub(crate) task_worker: bool,
    pub(crate) generation: u64,
    pub(crate) release: String,
    pub(crate) master_pid: i32,
    pub(crate) manager_pid: AtomicI32,
    pub(crate) app: Arc<dyn std::any::Any + Send + Sync>,
    pub(crate) base: Arc<Path>,
    pub(crate) draining: CancellationToken,
    pub(crate) background: Background,
    pub(crate) tasks: TaskClient,
    pub(crate) asks: Asks,
}

static CURRENT: OnceLock<Worker> = OnceLock::new();

impl Worker {
    pub(crate) fn new(inner: Inner) -> Self {
        let worker = Self { inner: Arc::new(inner) };
        CURRENT.get_or_init(|| worker.clone()).clone()
    }

    /// The worker that this process is; None in master, manager, template and hooks.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        CURRENT.get().cloned()
    }

    /// Its worker id: 0 to `worker_num` - 1, task workers from there on. A successor has it again.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// The pid by which the server is known.
    #[must_use]
    pub fn master_pid(&self) -> i32 {
        self.inner.master_pid
    }

    /// The pid of the manager: another one after a manager has died.
    #[must_use]
    pub fn manager_pid(&self) -> i32 {
        self.inner.manager_pid.load(Ordering::Relaxed)
    }

    /// Number of the generation, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// What the release calls itself.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.inner.release
    }

    /// Whether it runs tasks and serves nobody.
    #[must_use]
    pub fn is_task_worker(&self) -> bool {
        self.inner.task_worker
    }

    /// The application's settings, as they were when the generation began.
    ///
    /// # Panics
    /// If `A` is not the type that was given to [`Server::app`](crate::Server::app).
    #[must_use]
    pub fn app<A: AppSettings>(&self) -> Arc<A> {
        crate::server::read_app(&self.inner.app)
    }

    /// Where relative paths start: the folder of the settings file, else where the command was
    /// typed.
    #[must_use]
    pub fn base_dir(&self) -> &Path {
        &self.inner.base
    }

    /// Resolves when this worker begins to drain; at once if it does already.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inner.draining.clone().cancelled_owned()
    }

    /// Whether this worker drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Runs something in the background that the worker finishes before it exits. At
    /// `max_wait_time` it is dropped at its next await, and counted in the log; the handle gives
    /// None then.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.background.spawn(work)
    }

    /// Runs a section that must not be cut half-way: in a task of its own, which goes on when
    /// whoever waits for it is dropped (its client has gone, `request_timeout` or `max_wait_time`
    /// has passed), and which gets `guard_time` beyond `max_wait_time`.
    ///
    /// # Panics
    /// If the section panics, so does whoever awaits this.
    pub fn guard<F>(&self, section: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.background.guard(section)
    }

    /// Calls `tick` every so often, first after one such while; never two calls at a time. It ends
    /// with the worker, between two calls.
    pub fn every<F, R>(&self, period: Duration, tick: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.inner.background.every(period, tick);
    }

    /// Runs `work` once, after a while, unless the worker has ended by then.
    pub fn after<R>(&self, delay: Duration, work: R)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        self.inner.background.after(delay, work);
    }

    /// A task for the task workers: await it for its answer, or set its options first.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use serde::{Deserialize, Serialize};
    /// use shiftwork::{OnFull, Task, TaskError};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Resize {
    ///     image: u64,
    /// }
    ///
    /// impl Task for Resize {
    ///     const NAME: &'static str = "resize";
    ///     type Output = u32;
    /// }
    ///
    /// async fn resize(image: u64) -> Result<u32, TaskError> {
    ///     let task = shiftwork::worker().task(Resize { image });
    ///     task.timeout(Duration::from_secs(5)).on_full(OnFull::Fail).await
    /// }
    /// ```
    pub fn task<T: Task>(&self, task: T) -> TaskCall<T> {
        self.inner.tasks.call(task)
    }

    /// The server that this worker belongs to.
    #[must_use]
    pub fn server(&self) -> ServerHandle {
        ServerHandle::new(self.inner.asks.clone())
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

/// The worker that this process is.
///
/// # Panics
/// In master, manager, template and hooks, which are none; see [`Worker::try_current`].
#[must_use]
pub fn worker() -> Worker {
    match Worker::try_current() {
        Some(worker) => worker,
        None => panic!("worker() was called in a process that is no worker"),
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.inner.id)
            .field("task_worker", &self.inner.task_worker)
            .field("generation", &self.inner.generation)
            .finish_non_exhaustive()
    }
}
