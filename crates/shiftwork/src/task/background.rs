//! What a client does beside its callers: read answers, send what waited for room, end what is
//! past its deadline. Nothing here runs while there is nothing to do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::socket::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::pending::Verdict;
use super::shared::{Drained, Shared};
use super::watch::watch;

/// No buffer space: the kernel is short of memory.
pub(crate) const ENOBUFS: i32 = 105;
/// The message is longer than the socket can ever hold.
pub(crate) const EMSGSIZE: i32 = 90;

/// Answers that are delivered before the tasks they wake get their turn.
const BATCH: usize = 256;

/// How long to trust that the kernel says when there is room again; it does not after ENOBUFS.
const RETRY: Duration = Duration::from_millis(250);

/// Deadlines are looked at no more often than this.
const SWEEP_MS: u64 = 5;

/// Reader, pump and sweeper, which end when this is dropped.
#[derive(Debug)]
pub(crate) struct Background([JoinHandle<()>; 3]);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Background> {
    let replies = watch(shared.replies(), Interest::READABLE)?;
    Ok(Background([
        tokio::spawn(read(Arc::clone(shared), replies)),
        tokio::spawn(pump(Arc::clone(shared))),
        tokio::spawn(sweep(Arc::clone(shared))),
    ]))
}

async fn read(shared: Arc<Shared>, replies: AsyncFd<Arc<Channel>>) {
    loop {
        let Ok(mut ready) = replies.readable().await else { return };
        loop {
            match shared.drain(BATCH) {
                Drained::Empty => break,
                Drained::More => tokio::task::yield_now().await,
                Drained::Closed => {
                    shared.close(Verdict::NoTaskWorkers);
                    return;
                }
            }
        }
        ready.clear_ready();
    }
}

async fn pump(shared: Arc<Shared>) {
    loop {
        shared.backed_up.notified().await;
        // Watched only now: else every task that is taken from the queue would wake this process.
        if let Err(error) = flush(&shared).await {
            tracing::warn!(%error, "cannot watch the task queue for room; trying again");
            tokio::time::sleep(RETRY).await;
            shared.backed_up.notify_one();
        }
    }
}

async fn flush(shared: &Shared) -> io::Result<()> {
    if shared.flush() {
        return Ok(());
    }
    let queue = watch(Arc::new(shared.queue().try_clone()?), Interest::WRITABLE)?;
    loop {
        let ready = tokio::time::timeout(RETRY, queue.writable()).await;
        if shared.flush() {
            return Ok(());
        }
        if let Ok(Ok(mut ready)) = ready {
            ready.clear_ready();
        }
    }
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        let next_ms = shared.pending().next_sweep_ms();
        let now_ms = monotonic_ms();
        if next_ms == u64::MAX {
            shared.sooner.notified().await;
        } else if next_ms > now_ms {
            let wait = Duration::from_millis((next_ms - now_ms).max(SWEEP_MS));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shared.sooner.notified() => {}
            }
        } else {
            shared.expire();
        }
    }
}
