//! A worker's process, from the fork to its exit status.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shiftwork_supervisor::identity;
use shiftwork_supervisor::protocol::template::Kind;
use shiftwork_supervisor::protocol::worker::{Begin, FromWorker, Resource, ToWorker};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{process, stack};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::http::HttpLimits;
use crate::server::{AnyApp, Server, Serving};
use crate::session::StreamLimits;
use crate::settings::Settings;

use super::affinity;
use super::asks::Asks;
use super::background::Background;
use super::gifts::{self, Gifts};
use super::life::{DrainOrder, Life, Step};
use super::line::ControlLine;
use super::row::OwnRow;
use super::voice::Voice;
use super::{Inner, Worker};

/// What a process has from its template.
pub(crate) struct Birth<P: 'static, S: 'static> {
    pub(crate) server: &'static Server<P, S>,
    pub(crate) settings: Settings,
    pub(crate) release: String,
    pub(crate) app: AnyApp,
    pub(crate) preloaded: Arc<P>,
    pub(crate) control: OwnedFd,
}

/// Runs a worker or task worker in this process; gives its exit status.
pub(crate) fn run<P, S>(birth: Birth<P, S>) -> i32
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let Birth { server, settings, release, app, preloaded, control } = birth;
    let control = Channel::from_fd(control);
    let Ok((gifts, begin)) = gifts::receive(&control) else {
        // The manager has gone, or does not want this process any more.
        return 1;
    };
    let (role, title) = match begin.kind {
        Kind::Worker => ("worker", format!("worker {}", begin.worker_id)),
        Kind::TaskWorker => ("task worker", format!("task worker {}", begin.worker_id)),
    };
    let name = &server.name;
    identity::become_role(name, role, Some(begin.worker_id), Some(begin.generation));
    process::set_title(&format!("{name}: {title} (gen {})", begin.generation));
    crate::conn::panics::install();
    stack::answer();
    affinity::apply(&settings.server, begin.worker_id);
    let runtime = match build_runtime(settings.server.worker_threads) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot make a runtime: {error}");
            return 1;
        }
    };
    let code = runtime.block_on(async {
        let started = Running::start(server, settings, release, app, control, gifts, begin);
        match started {
            Ok(running) => running.live(preloaded).await,
            Err(error) => {
                tracing::error!("cannot start: {error}");
                1
            }
        }
    });
    // Threads that block for ever must not keep the process.
    runtime.shutdown_background();
    code
}

fn build_runtime(threads: u32) -> io::Result<Runtime> {
    let mut builder = if threads > 1 {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads as usize);
        builder
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().thread_name("shiftwork").build()
}

/// A process with its runtime.
pub(super) struct Running<P: 'static, S: 'static> {
    pub(super) server: &'static Server<P, S>,
    pub(super) settings: Settings,
    pub(super) worker: Worker,
    pub(super) begin: Begin,
    pub(super) gifts: Gifts,
    pub(super) row: OwnRow,
    pub(super) slab: Arc<Slab>,
    pub(super) line: ControlLine,
    pub(super) voice: Voice,
    pub(super) life: Life,
    /// Which slots are this worker's, if that has changed since it was forked.
    pub(super) slots: Option<Vec<u32>>,
    /// What connections are served with, once that was made.
    pub(super) serving: Option<HashMap<String, Serving>>,
    log: Option<OwnedFd>,
}

impl<P, S> Running<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    fn start(
        server: &'static Server<P, S>,
        settings: Settings,
        release: String,
        app: AnyApp,
        control: Channel,
        mut gifts: Gifts,
        begin: Begin,
    ) -> io::Result<Self> {
        let line = ControlLine::new(control)?;
        let out = line.writer();
        let voice = Voice::new(out.clone());
        let slab = gifts.slab.take().ok_or_else(|| io::Error::other("no slab was given"))?;
        let slab = Arc::new(Slab::open(slab)?);
        let row = OwnRow::new(Arc::clone(&slab), begin.row);
        let worker = Worker::new(Inner {
            id: begin.worker_id,
            task_worker: begin.kind == Kind::TaskWorker,
            generation: begin.generation,
            release,
            master_pid: begin.master_pid,
            manager_pid: begin.manager_pid.into(),
            app,
            base: settings.base.clone().into(),
            draining: CancellationToken::new(),
            background: Background::default(),
            tasks: gifts.tasks.client(&settings.server)?,
            asks: Asks::new(out),
        });
        let log = gifts.log.take();
        let life = Life::Waiting;
        let (slots, serving) = (None, None);
        Ok(Self {
            server,
            settings,
            worker,
            begin,
            gifts,
            row,
            slab,
            line,
            voice,
            life,
            slots,
            serving,
            log,
        })
    }

    /// From `on_worker_start` to the exit status.
    async fn live(mut self, preloaded: Arc<P>) -> i32 {
        let state = match self.on_worker_start(preloaded).await {
            Some(Ok(state)) => state,
            Some(Err(reason)) => {
                self.fail(reason).await;
                return 1;
            }
            None => return 0,
        };
        if let Some(log) = self.log.take()
            && let Err(error) = crate::log::write_to(log.as_fd())
        {
            tracing::error!("cannot take the log: {error}");
        }
        self.voice.say(FromWorker::Ready);
        if !self.wait_for_serve(&state).await {
            return 0;
        }
        match self.begin.kind {
            Kind::Worker => self.serve(state).await,
            Kind::TaskWorker => self.run_tasks(state).await,
        }
    }

    /// Runs the callback, and goes on listening to the manager meanwhile: None if the manager does
    /// not want this process any more.
    async fn on_worker_start(&mut self, preloaded: Arc<P>) -> Option<Result<Arc<S>, String>> {
        let worker = self.worker.clone();
        let callbacks = &self.server.callbacks;
        let start = async move {
            match (&callbacks.start, &callbacks.empty) {
                (Some(start), _) => start(worker, preloaded)
                    .await
                    .map_err(|error| format!("on_worker_start has failed: {error}")),
                (None, Some(empty)) => Ok(empty()),
                (None, None) => Err("the server has no on_worker_start".to_owned()),
            }
        };
        let mut starting = tokio::spawn(start);
        loop {
            tokio::select! {
                ended = &mut starting => {
                    return Some(match ended {
                        Ok(Ok(state)) => Ok(Arc::new(state)),
                        Ok(Err(reason)) => Err(reason),
                        Err(error) => Err(format!("on_worker_start has panicked{}", panic_text(error))),
                    });
                }
                message = self.line.next() => match message {
                    None => return None,
                    Some((message, fds)) => self.heard(message, fds)?,
                }
            }
        }
    }

    /// Says why this process cannot start, and lets that be written.
    async fn fail(&mut self, reason: String) {
        tracing::error!("{reason}");
        self.voice.say(FromWorker::Failed { reason });
        // The writer has the message; one turn of the loop writes it.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether this process is to serve; false: it is to leave.
    async fn wait_for_serve(&mut self, state: &Arc<S>) -> bool {
        loop {
            match self.line.next().await {
                None => return false,
                Some((ToWorker::Probe { attempt }, _)) => self.check_health(attempt, state),
                Some((message, fds)) => match self.heard(message, fds) {
                    None => return false,
                    Some(()) if self.life == Life::Serving => return true,
                    Some(()) => {}
                },
            }
        }
    }

    /// What concerns a process at any time; None: leave.
    pub(super) fn heard(&mut self, message: ToWorker, mut fds: Vec<OwnedFd>) -> Option<()> {
        match message {
            ToWorker::Give(Resource::Log) => {
                if let Some(log) = fds.pop()
                    && let Err(error) = crate::log::write_to(log.as_fd())
                {
                    tracing::error!("cannot take the reopened log: {error}");
                }
            }
            ToWorker::Give(resource @ Resource::Listener { .. }) => {
                if let Some(fd) = fds.pop() {
                    self.gifts.take(resource, fd);
                }
            }
            ToWorker::Give(Resource::ReplySend { index }) => {
                if let Some(fd) = fds.pop() {
                    self.gifts.tasks.add_reply(index, Channel::from_fd(fd));
                }
            }
            ToWorker::Doors { slots } => self.slots = Some(slots),
            ToWorker::Serve => {
                let _ = self.life.serve();
            }
            ToWorker::Drain { mode, removed, gone, finish_queue, max_wait_ms, guard_ms } => {
                let order = DrainOrder {
                    mode,
                    removed,
                    gone,
                    finish_queue,
                    max_wait: Duration::from_millis(max_wait_ms),
                    guard: Duration::from_millis(guard_ms),
                    leave_doors: false,
                };
                if self.life.drain(order) == Step::Leave {
                    return None;
                }
            }
            ToWorker::TaskLost { task } => self.worker.inner().tasks.lost(task),
            ToWorker::TakenUp { manager_pid } => {
                self.worker.inner().manager_pid.store(manager_pid, Ordering::Relaxed);
                self.voice.repeat();
                self.worker.inner().asks.repeat();
            }
            ToWorker::Answer { ticket, json } => self.worker.inner().asks.answered(ticket, json),
            // Asked only of those that do not serve yet.
            ToWorker::Probe { .. } | ToWorker::Give(_) | ToWorker::Begin(_) => {}
        }
        Some(())
    }

    /// Master and manager are gone.
    pub(super) fn abandoned(&mut self) {
        tracing::warn!("master and manager are gone: draining");
        let guard = self.settings.server.guard_time;
        let max_wait = self.settings.server.max_wait_time;
        let _ = self.life.drain(DrainOrder::abandoned(max_wait, guard));
        self.worker.inner().asks.close();
    }

    pub(super) fn http_limits(&self) -> HttpLimits {
        let limits = &self.settings.limits;
        HttpLimits {
            header_size: usize::try_from(limits.header_size.as_u64()).unwrap_or(usize::MAX),
            header_timeout: limits.header_timeout,
            body_size: limits.body_size.as_u64(),
            request_timeout: limits.request_timeout,
            idle_timeout: limits.idle_timeout,
            ..HttpLimits::default()
        }
    }

    pub(super) fn stream_limits(&self) -> StreamLimits {
        let limits = &self.settings.limits;
        StreamLimits {
            message_size: usize::try_from(limits.message_size.as_u64()).unwrap_or(usize::MAX),
            idle_timeout: limits.idle_timeout,
            ..StreamLimits::default()
        }
    }
}

pub(super) fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return String::new() };
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(String::new, |text| format!(": {text}"))
}
