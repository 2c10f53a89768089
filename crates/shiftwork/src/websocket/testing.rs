//! A handler that does what its client says, and a connection to it in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::codec_tests::frame;
use super::{CloseReason, Connection, Message, WebSocket, erased, serve};
use crate::session::testing::{Log, OnDrop, PEER, read_all, read_bytes, soon};
use crate::session::{BoxError, Outcome, SendError, Start, Switch};

/// Does what the message says, and notes what happens to it.
#[derive(Clone, Default)]
pub(super) struct Probe {
    pub(super) log: Arc<Log>,
    pub(super) gate: Arc<tokio::sync::Notify>,
}

impl WebSocket for Probe {
    type Session = u64;

    async fn open(&self, conn: &mut Connection<u64>) -> Result<(), BoxError> {
        self.log.add("open");
        if conn.session == 13 {
            return Err("unlucky".into());
        }
        Ok(())
    }

    async fn message(&self, conn: &mut Connection<u64>, message: Message) -> Result<(), BoxError> {
        conn.session += 1;
        match message.as_text() {
            Some("count") => conn.send(conn.session.to_string()).await?,
            Some("panic") => panic!("on purpose"),
            Some("fail") => return Err("on purpose".into()),
            Some("bye") => conn.close(4000, "as you wish"),
            Some("bad code") => conn.close(1005, "no such thing"),
            Some(word @ ("wait" | "push and wait" | "push 60 and wait")) => {
                let pushes = match word {
                    "wait" => 0,
                    "push and wait" => 3,
                    _ => 60,
                };
                for _ in 0..pushes {
                    conn.sender().send("queued").await?;
                }
                let _dropped = OnDrop(&self.log, "dropped");
                self.log.add("waiting");
                self.gate.notified().await;
                conn.send("waited").await?;
            }
            Some("until drain") => {
                self.log.add("waiting");
                let elsewhere = tokio::spawn(conn.draining());
                conn.draining().await;
                elsewhere.await?;
                assert!(conn.is_draining());
                conn.send("drains").await?;
            }
            Some("flood") => {
                for number in 0..1000 {
                    let block = Bytes::from(vec![b'x'; 64 * 1024]);
                    if let Err(error) = conn.send(block).await {
                        self.log.add(format!("{error}"));
                        return Err(error.into());
                    }
                    self.log.add(format!("sent {number}"));
                }
            }
            Some("push") => {
                let sender = conn.sender();
                tokio::spawn(async move {
                    sender.send("pushed").await.unwrap();
                    sender.close(4001, "enough").await.unwrap();
                    sender.closed().await;
                    assert_eq!(sender.send("late").await, Err(SendError::Closed));
                });
            }
            _ => conn.send(message).await?,
        }
        Ok(())
    }

    async fn close(&self, conn: &mut Connection<u64>, reason: CloseReason) {
        assert_eq!(conn.send("too late").await, Err(SendError::Closed));
        assert!(conn.sender().is_closed());
        self.log.closed.lock().unwrap().push(reason);
        self.log.add("closed");
    }
}

pub(super) struct Test {
    pub(super) probe: Probe,
    pub(super) switch: Arc<Switch>,
    pub(super) client: DuplexStream,
    pub(super) served: JoinHandle<Outcome<DuplexStream>>,
}

impl Test {
    pub(super) fn new() -> Self {
        Test::with(Probe::default(), |_| {})
    }

    pub(super) fn with(probe: Probe, change: impl FnOnce(&mut Start<DuplexStream>)) -> Self {
        let (client, server) = duplex(256 * 1024);
        let switch = Arc::new(Switch::default());
        let control: Arc<Switch> = Arc::clone(&switch);
        let mut start = Start::new(server, PEER, control);
        change(&mut start);
        let served = tokio::spawn(serve(erased(probe.clone()), start));
        Test { probe, switch, client, served }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        soon(self.client.write_all(bytes)).await.unwrap();
    }

    pub(super) async fn text(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes())).await;
    }

    /// The next frame of the server: first byte and payload (shorter than 126 bytes).
    pub(super) async fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = read_bytes(&mut self.client, 2).await;
        assert!(head[1] < 126);
        (head[0], read_bytes(&mut self.client, head[1].into()).await)
    }

    pub(super) async fn expect_text(&mut self, text: &str) {
        assert_eq!(self.frame().await, (0x81, text.as_bytes().to_vec()));
    }

    /// Reads a close frame, answers it, and sees the stream end.
    pub(super) async fn expect_close(mut self, code: u16) -> CloseReason {
        let (first, payload) = self.frame().await;
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, code));
        // A server that is rid of us already does not mind.
        let _ = self.client.write_all(&frame(0x88, &payload[..2])).await;
        assert_eq!(read_all(&mut self.client).await, b"", "nothing follows a close frame");
        drop(self.client);
        closed(self.served).await
    }
}

pub(super) async fn closed<S>(served: JoinHandle<Outcome<S>>) -> CloseReason {
    match soon(served).await.unwrap() {
        Outcome::Closed(reason) => reason,
        Outcome::HandOver(_) => panic!("handed over"),
    }
}
