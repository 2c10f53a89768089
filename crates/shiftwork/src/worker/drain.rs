//! Serving, and the way out: nothing in hand is lost, and nothing lasts for ever.

use std::sync::Arc;
use std::time::Duration;

use shiftwork_supervisor::protocol::worker::{DrainMode, FromWorker, RetireCause};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conn::{Drain, Registry};
use crate::hand_over::{Receiver, Sender};

use super::accept::Closing;
use super::adopt::adopt;
use super::connection::Service;
use super::doors::Doors;
use super::life::{DrainOrder, Life};
use super::process::Running;
use super::share::Share;
use super::wear::Wear;

/// How often connections are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// How often a draining process looks whether it is done.
const LOOK: Duration = Duration::from_millis(5);

/// What a serving worker has beside its application.
struct Open {
    service: Arc<Service>,
    doors: Doors,
    adopting: Closing,
    adopter: TaskTracker,
    sender_deadline: CancellationToken,
}

impl<P, S> Running<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// A worker, from `Serve` to its exit status.
    pub(super) async fn serve(mut self, state: Arc<S>) -> i32 {
        let mut open = match self.open_doors(&state) {
            Ok(open) => open,
            Err(error) => {
                tracing::error!("cannot serve: {error}");
                return 1;
            }
        };
        self.voice.say(FromWorker::Serving);
        let registry = open.service.registry.clone();
        let mut retirement = Retirement::new(
            self.settings.server.max_request,
            self.settings.server.max_request_grace,
        );
        let mut wear = Wear::of(&self.settings.server);
        if let Err(error) = self.show_that_threads_turn() {
            tracing::error!("cannot serve: {error}");
            return 1;
        }
        let expiry = open.service.http.sweep();
        let mut terminate = signal(SignalKind::terminate()).ok();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.life == Life::Serving {
            tokio::select! {
                message = self.line.next() => {
                    self.heard_or_abandoned(message);
                    self.change_doors(&mut open);
                }
                _ = sweep.tick() => {
                    registry.sweep(std::time::Instant::now(), expiry);
                    self.show(&registry);
                    self.beat_alone();
                    if let Some((cause, reason)) = wear.is_out() {
                        self.retire(cause, &reason);
                    }
                    if retirement.is_due(registry.totals().requests) {
                        self.retire(RetireCause::MaxRequest, "max_request is reached");
                    }
                }
                () = terminated(&mut terminate) => {
                    self.retire(RetireCause::Signal, "TERM was received");
                }
            }
        }
        self.leave(open, registry, state).await
    }

    fn show(&self, registry: &Registry) {
        self.row.write(registry, self.worker.inner().tasks.pending());
    }

    pub(super) fn retire(&self, cause: RetireCause, reason: &str) {
        self.voice.say(FromWorker::Retire { cause, reason: reason.to_owned() });
    }

    pub(super) fn heard_or_abandoned(
        &mut self,
        message: Option<(
            shiftwork_supervisor::protocol::worker::ToWorker,
            Vec<std::os::fd::OwnedFd>,
        )>,
    ) {
        match message {
            Some((message, fds)) => {
                let _ = self.heard(message, fds);
            }
            None => self.abandoned(),
        }
    }

    fn open_doors(&mut self, state: &Arc<S>) -> std::io::Result<Open> {
        let _ = self.serving(state);
        let listeners = self.serving.take().unwrap_or_default();
        let send = self.gifts.hand_over_send.take();
        let receive = self.gifts.hand_over_receive.take();
        let (Some(send), Some(receive)) = (send, receive) else {
            return Err(std::io::Error::other("no hand-over queue was given"));
        };
        let registry = Registry::counting(self.row.counters());
        let counters = Arc::clone(registry.counters());
        let (sender, task) = Sender::counting(send, self.begin.hand_over_format, counters);
        let service = Arc::new(Service {
            registry,
            listeners,
            http: self.http_limits(),
            stream: self.stream_limits(),
            sender,
            write_version: self.settings.server.session_write_version,
        });
        let sender_deadline = CancellationToken::new();
        let deadline = sender_deadline.clone().cancelled_owned();
        tokio::spawn(async move {
            let report = task.run(deadline).await;
            if report.lost > 0 {
                tracing::error!("{} connections were closed: no worker took them", report.lost);
            }
            if report.sent_again > 0 {
                tracing::warn!(
                    "connections were offered {} times more: a worker died before it took them, or \
                     had no room",
                    report.sent_again
                );
            }
            tracing::debug!(?report, "handed over");
        });
        let mut doors = Doors::default();
        let mut given = std::mem::take(&mut self.gifts.doors);
        if let Some(slots) = self.slots.take() {
            given.retain(|it| slots.contains(&it.slot));
        }
        doors.open(given, &service, &self.row, self.most())?;
        let adopting = Closing::default();
        let adopter = TaskTracker::new();
        adopter.spawn(adopt(
            Receiver::new(receive)?,
            Share::of(&self.row),
            Arc::clone(&service),
            adopting.clone(),
        ));
        Ok(Open { service, doors, adopting, adopter, sender_deadline })
    }

    fn most(&self) -> u64 {
        u64::from(self.settings.server.max_connection)
    }

    /// The number of workers has changed, and with it what this one accepts on.
    fn change_doors(&mut self, open: &mut Open) {
        let given = std::mem::take(&mut self.gifts.doors);
        if self.life != Life::Serving {
            return;
        }
        if let Err(error) = open.doors.open(given, &open.service, &self.row, self.most()) {
            tracing::error!("cannot accept for a worker that goes: {error}");
        }
        if let Some(slots) = self.slots.take() {
            open.doors.keep(&slots);
        }
    }

    /// From the order to drain to the exit status.
    async fn leave(mut self, open: Open, registry: Registry, state: Arc<S>) -> i32 {
        self.row.drains();
        self.worker.inner().draining.cancel();
        if let Some(exit) = &self.server.callbacks.exit {
            tokio::spawn(exit(self.worker.clone(), Arc::clone(&state)));
        }
        let mut began = Instant::now();
        let mut order = self.order();
        close_doors(&open, &registry, &order);
        let expiry = open.service.http.sweep();
        let mut sweep = interval(SWEEP);
        let mut look = interval(LOOK);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut abandoned = false;
        loop {
            tokio::select! {
                message = self.line.next(), if !abandoned => {
                    abandoned = message.is_none();
                    self.heard_or_abandoned(message);
                    let now = self.order();
                    if now != order {
                        order = now;
                        began = Instant::now();
                        close_doors(&open, &registry, &order);
                    }
                }
                _ = sweep.tick() => {
                    registry.sweep(std::time::Instant::now(), expiry);
                    self.show(&registry);
                }
                _ = look.tick() => {
                    if self.is_empty(&open, &registry) {
                        break;
                    }
                }
                () = sleep_until(began + order.max_wait) => {
                    self.cut(&open, &registry);
                    self.wait_for_guards(began + order.max_wait + order.guard).await;
                    break;
                }
            }
        }
        let last = (began + order.max_wait + order.guard).max(Instant::now() + LOOK);
        self.finish(state, last).await;
        self.show(&registry);
        0
    }

    /// The order that holds.
    pub(super) fn order(&self) -> DrainOrder {
        match &self.life {
            Life::Draining(order) => order.clone(),
            Life::Waiting | Life::Serving => DrainOrder::abandoned(Duration::ZERO, Duration::ZERO),
        }
    }

    fn is_empty(&self, open: &Open, registry: &Registry) -> bool {
        open.doors.is_empty()
            && open.adopter.is_empty()
            && registry.is_empty()
            && open.service.sender.waiting() == 0
            && !self.worker.inner().background.is_busy()
            && self.worker.inner().tasks.pending() == 0
    }

    /// The deadline: what is not guarded is dropped, and named.
    fn cut(&self, open: &Open, registry: &Registry) {
        for cut in registry.cut_all() {
            tracing::error!("cut at the deadline: {cut}");
        }
        self.cut_background();
        let _ = self.worker.inner().tasks.cut_all();
        open.sender_deadline.cancel();
    }

    pub(super) fn cut_background(&self) {
        let spawned = self.worker.inner().background.cut();
        if spawned > 0 {
            tracing::error!("cut at the deadline: {spawned} pieces of background work");
        }
    }

    pub(super) async fn wait_for_guards(&self, until: Instant) {
        let background = &self.worker.inner().background;
        let mut look = interval(LOOK);
        let waited = timeout_at(until, async {
            while background.is_guarding() {
                look.tick().await;
            }
        });
        if waited.await.is_err() {
            tracing::error!(
                "cut at the end of guard_time: {} guarded sections",
                background.guarding()
            );
        }
    }

    /// The last callbacks, within the time that is left.
    pub(super) async fn finish(&self, state: Arc<S>, until: Instant) {
        let ended = timeout_at(until, async {
            self.worker.inner().background.end_timers().await;
            if let Some(stop) = &self.server.callbacks.stop
                && tokio::spawn(stop(self.worker.clone(), state)).await.is_err()
            {
                tracing::error!("on_worker_stop has panicked");
            }
        });
        if ended.await.is_err() {
            tracing::error!("on_worker_stop or a timer was cut at the deadline");
        }
    }
}

/// Stops accepting, and says to the connections what becomes of them.
fn close_doors(open: &Open, registry: &Registry, order: &DrainOrder) {
    open.doors.close(order);
    match order.mode {
        DrainMode::HandOver => open.adopting.leave.cancel(),
        DrainMode::Close => open.adopting.shut.cancel(),
    }
    open.adopter.close();
    let drain = match order.mode {
        DrainMode::HandOver => Drain::HandOver,
        DrainMode::Close => Drain::Close,
    };
    registry.drain(drain, &order.gone);
}

/// Resolves when this process is told to terminate.
pub(super) async fn terminated(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            let _ = signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// When a process has done enough.
pub(super) struct Retirement {
    limit: Option<u64>,
}

impl Retirement {
    /// `grace`: up to so many more, by chance, so that not all workers retire at once.
    pub(super) fn new(max: u64, grace: Option<u64>) -> Self {
        Self { limit: limit(max, grace) }
    }

    /// Whether it has, said once.
    pub(super) fn is_due(&mut self, done: u64) -> bool {
        let due = self.limit.is_some_and(|limit| done >= limit);
        if due {
            self.limit = None;
        }
        due
    }
}

/// The limit with this process's share of chance.
pub(super) fn limit(max: u64, grace: Option<u64>) -> Option<u64> {
    use std::hash::{BuildHasher, RandomState};
    if max == 0 {
        return None;
    }
    let grace = grace.unwrap_or(max / 10);
    // Seeds are copied by a fork; the pid is not.
    let chance = RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    Some(max.saturating_add(chance % grace.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn limits_differ_within_their_grace() {
        assert_eq!(limit(0, Some(5)), None);
        assert_eq!(limit(100, Some(0)), Some(100));
        assert_eq!(limit(u64::MAX, None), Some(u64::MAX));
        for (max, grace, most) in [(1_000_000, None, 1_100_000), (5, Some(1_000), 1_005)] {
            let drawn: BTreeSet<u64> = (0..100).filter_map(|_| limit(max, grace)).collect();
            assert!(drawn.len() > 10, "{drawn:?}");
            assert!(drawn.iter().all(|it| (max..=most).contains(it)), "{drawn:?}");
        }
    }
}
