//! A task worker's life, and the sockets of the task queue.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shiftwork_supervisor::protocol::worker::{FromWorker, RetireCause};
use shiftwork_supervisor::settings::ServerSettings;
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until, timeout_at};

use crate::task::{ClientOptions, Handlers, LateReplies, LoopOptions, TaskClient, TaskLoop};

use super::drain::{limit, terminated};
use super::life::Life;
use super::process::Running;
use super::wear::Wear;

/// What this process was given of its queue.
#[derive(Debug, Default)]
pub(super) struct TaskSockets {
    pub(super) send: Option<Channel>,
    pub(super) receive: Option<Channel>,
    pub(super) reply: Option<(u32, Channel)>,
    pub(super) replies: Vec<(u32, Channel)>,
    /// To the loop, once it runs.
    pub(super) late: Option<LateReplies>,
}

impl TaskSockets {
    /// A worker's end.
    pub(super) fn client(&mut self, settings: &ServerSettings) -> io::Result<TaskClient> {
        match (self.send.take(), self.reply.take()) {
            // USR2 may bring task workers to a generation that began without: the queue is there.
            (Some(queue), Some((index, replies))) if settings.task_worker_num > 0 => {
                let options =
                    ClientOptions { timeout: settings.task_timeout, max_size: max_size(settings) };
                TaskClient::start(queue, replies, index, options)
            }
            _ => Ok(TaskClient::without_task_workers()),
        }
    }

    /// A worker that was added has a reply socket of its own.
    pub(super) fn add_reply(&mut self, index: u32, channel: Channel) {
        match &self.late {
            Some(late) => late.add(index, channel),
            None => self.replies.push((index, channel)),
        }
    }

    /// A task worker's end.
    pub(super) fn into_loop<S: Send + Sync + 'static>(
        self,
        settings: &ServerSettings,
        slab: Arc<Slab>,
        row: u32,
        handlers: Arc<Handlers<S>>,
        state: Arc<S>,
        max_request: Option<u64>,
    ) -> io::Result<TaskLoop<S>> {
        let queue = self.receive.ok_or_else(|| io::Error::other("no task queue was given"))?;
        let options =
            LoopOptions { max_size: max_size(settings), max_request, ..LoopOptions::default() };
        let mut tasks = TaskLoop::new(queue, slab, row, handlers, state, options);
        for (index, channel) in self.replies {
            tasks.add_reply(index, channel);
        }
        Ok(tasks)
    }
}

fn max_size(settings: &ServerSettings) -> usize {
    usize::try_from(settings.task_max_size.as_u64()).unwrap_or(usize::MAX)
}

/// How often a task worker shows that its loop turns.
const BEAT: Duration = Duration::from_millis(100);

impl<P, S> Running<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// A task worker, from `Serve` to its exit status.
    pub(super) async fn run_tasks(mut self, state: Arc<S>) -> i32 {
        let server = &self.settings.server;
        let most = limit(server.task_max_request, server.task_max_request_grace);
        let made = std::mem::take(&mut self.gifts.tasks).into_loop(
            server,
            Arc::clone(&self.slab),
            self.begin.row,
            Arc::clone(&self.server.tasks),
            Arc::clone(&state),
            most,
        );
        let mut tasks = match made {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::error!("cannot take tasks: {error}");
                return 1;
            }
        };
        let voice = self.voice.clone();
        tasks.on_retire(move || {
            let reason = "task_max_request is reached".to_owned();
            voice.say(FromWorker::Retire { cause: RetireCause::MaxRequest, reason });
        });
        let control = tasks.control();
        self.gifts.tasks.late = Some(tasks.late_replies());
        let mut running = tokio::spawn(tasks.run());
        self.voice.say(FromWorker::Serving);
        let mut terminate = signal(SignalKind::terminate()).ok();
        let mut beat = interval(BEAT);
        let mut wear = Wear::of(&self.settings.server);
        if let Err(error) = self.show_that_threads_turn() {
            tracing::error!("cannot take tasks: {error}");
            return 1;
        }
        let mut deadline: Option<(Instant, Instant)> = None;
        let mut abandoned = false;
        loop {
            let cut_at = deadline.map_or_else(|| Instant::now() + BEAT * 100, |(cut, _)| cut);
            tokio::select! {
                ended = &mut running => {
                    if let Ok(Err(error)) = &ended {
                        tracing::error!("the task queue cannot be read: {error}");
                    }
                    if !matches!(self.life, Life::Draining(_)) {
                        return 1;
                    }
                    break;
                }
                message = self.line.next(), if !abandoned => {
                    abandoned = message.is_none();
                    self.heard_or_abandoned(message);
                    if let Life::Draining(order) = &self.life {
                        if deadline.is_none() {
                            self.begin_task_drain(&state);
                        }
                        let cut = Instant::now() + order.max_wait;
                        deadline = Some((cut, cut + order.guard));
                        if abandoned {
                            // Workers that drain may have tasks to send yet; when the last one is
                            // gone, the queue is closed.
                        } else if order.finish_queue {
                            control.finish_queue();
                        } else {
                            control.stop_taking();
                        }
                    }
                }
                _ = beat.tick() => {
                    self.beat_alone();
                    if let Some((cause, reason)) = wear.is_out() {
                        self.retire(cause, &reason);
                    }
                }
                () = terminated(&mut terminate) => {
                    self.retire(RetireCause::Signal, "TERM was received");
                }
                () = sleep_until(cut_at), if deadline.is_some() => {
                    control.cut();
                    deadline = deadline.map(|(_, last)| (last, last));
                }
            }
        }
        let (cut, last) = deadline.unwrap_or_else(|| (Instant::now(), Instant::now()));
        self.finish_background(cut, last).await;
        self.finish(state, last.max(Instant::now() + BEAT)).await;
        0
    }

    fn begin_task_drain(&self, state: &Arc<S>) {
        self.row.drains();
        self.worker.inner().draining.cancel();
        if let Some(exit) = &self.server.callbacks.exit {
            tokio::spawn(exit(self.worker.clone(), Arc::clone(state)));
        }
    }

    /// What tasks have spawned is finished, or cut at its deadline.
    async fn finish_background(&self, cut: Instant, last: Instant) {
        let background = &self.worker.inner().background;
        let mut look = interval(BEAT / 20);
        let waited = timeout_at(cut, async {
            while background.is_busy() {
                look.tick().await;
            }
        });
        if waited.await.is_err() {
            self.cut_background();
            self.wait_for_guards(last).await;
        }
    }
}
