//! What the tests of both protocols share: waiting for events, and clients made by hand.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{CloseReason, Peer};

/// Long enough for anything that happens at all; reached only by a failing test.
const AT_MOST: Duration = Duration::from_secs(20);

pub(crate) const PEER: Peer = Peer::Unix { uid: 0, pid: 0 };

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(AT_MOST, future).await.expect("nothing happened")
}

/// All bytes up to the end of the stream.
pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    all
}

/// Exactly so many bytes.
pub(crate) async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// What a handler under test has seen.
#[derive(Default)]
pub(crate) struct Log {
    entries: Mutex<Vec<String>>,
    pub(crate) closed: Mutex<Vec<CloseReason>>,
    changed: Notify,
}

impl Log {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.entries.lock().unwrap().push(entry.into());
        self.changed.notify_waiters();
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }

    pub(crate) async fn until(&self, entry: &str) {
        soon(async {
            loop {
                let changed = self.changed.notified();
                if self.entries().iter().any(|one| one == entry) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

/// Says when it is dropped: a handler's future that was cut.
pub(crate) struct OnDrop<'a>(pub(crate) &'a Log, pub(crate) &'static str);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}
