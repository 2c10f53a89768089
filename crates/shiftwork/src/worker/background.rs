//! Work beside the requests: spawned, guarded, by timer.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// All background work of a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Background {
    spawned: TaskTracker,
    guarded: TaskTracker,
    timers: TaskTracker,
    cut_spawned: CancellationToken,
    stop_timers: CancellationToken,
}

impl Background {
    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cut = self.cut_spawned.clone();
        self.spawned.spawn(async move { cut.run_until_cancelled_owned(work).await })
    }

    pub(super) fn guard<F>(&self, section: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Begins at once: a caller that is dropped before its first poll has asked for it too.
        let running = self.guarded.spawn(section);
        async move {
            match running.await {
                Ok(output) => output,
                Err(error) => end_as(error).await,
            }
        }
    }

    pub(super) fn every<F, R>(&self, period: Duration, mut tick: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop_timers.clone();
        let period = period.max(Duration::from_millis(1));
        self.timers.spawn(async move {
            let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                tick().await;
            }
        });
    }

    pub(super) fn after<R>(&self, delay: Duration, work: R)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop_timers.clone();
        self.timers.spawn(async move {
            if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_some() {
                work.await;
            }
        });
    }

    /// Whether spawned or guarded work is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.spawned.is_empty() || self.is_guarding()
    }

    /// Whether guarded work is under way.
    pub(super) fn is_guarding(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// Drops spawned work at its next await; tells how many there were.
    pub(super) fn cut(&self) -> usize {
        let cut = self.spawned.len();
        self.cut_spawned.cancel();
        cut
    }

    /// How many guarded sections are under way.
    pub(super) fn guarding(&self) -> usize {
        self.guarded.len()
    }

    /// Ends the timers, each after the call it is in.
    pub(super) async fn end_timers(&self) {
        self.stop_timers.cancel();
        self.timers.close();
        self.timers.wait().await;
    }
}

/// A panic goes on in whoever waits; a section that was aborted, because the process exits, never
/// returns.
async fn end_as<T>(error: JoinError) -> T {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}
