//! What each worker has of its own, made in `on_worker_start` and shared by all its handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shiftwork::{BoxError, Worker};
use tokio::sync::Semaphore;

use crate::ledger::Ledger;
use crate::orders;
use crate::settings::App;

/// Fixed when the shop was compiled, so that new code can be told from old.
const BUILD: &str = match option_env!("SHOP_BUILD") {
    Some(build) => build,
    None => "dev",
};

/// The state of one worker or task worker.
#[derive(Debug)]
pub(crate) struct Shop {
    /// The process it is in.
    pub(crate) worker: Worker,
    /// The `[app]` table of its generation.
    pub(crate) app: Arc<App>,
    /// Its own handle of the ledger.
    pub(crate) ledger: Ledger,
    /// Who answers, as headers.
    marks: HeaderMap,
    received: AtomicU64,
    /// Orders that may be between payment and shipment at a time. Who waits for a place has not
    /// paid yet, so a stop can send them away.
    pub(crate) counter: Arc<Semaphore>,
}

/// Places at the counter of one worker.
const PLACES: usize = 64;

impl Shop {
    /// Opens the ledger; a worker that cannot is not ready.
    pub(crate) async fn open(worker: Worker) -> Result<Self, BoxError> {
        let app = worker.app::<App>();
        app.fault.in_worker_start().await;
        let ledger = Ledger::open(&worker.base_dir().join(&app.ledger))?;
        let marks = marks(&worker, &app)?;
        if !worker.is_task_worker() {
            app.fault.when_ready();
            orders::mind_the_dead(&worker, &ledger);
        }
        Ok(Self {
            worker,
            app,
            ledger,
            marks,
            received: AtomicU64::new(0),
            counter: Arc::new(Semaphore::new(PLACES)),
        })
    }

    /// Counts a request, which is where most of what can go wrong on purpose does. An error is the
    /// answer.
    pub(crate) async fn receive(&self) -> Result<(), String> {
        let received = self.received.fetch_add(1, Ordering::Relaxed) + 1;
        self.app.fault.in_request(received).await
    }

    /// Who answers, for the answers that the server gives in the shop's place.
    pub(crate) fn marks(&self) -> HeaderMap {
        self.marks.clone()
    }

    /// Puts on a response who answers.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.extend(self.marks.clone());
    }
}

fn marks(worker: &Worker, app: &App) -> Result<HeaderMap, BoxError> {
    let mut marks = HeaderMap::new();
    for (name, value) in [
        ("x-release", app.release.clone()),
        ("x-build", BUILD.to_owned()),
        ("x-generation", worker.generation().to_string()),
        ("x-worker-id", worker.id().to_string()),
        ("x-worker-pid", worker.pid().to_string()),
    ] {
        marks.insert(HeaderName::from_static(name), HeaderValue::try_from(value)?);
    }
    Ok(marks)
}
