//! Whole connections: over pipes in memory with frames by hand, and over sockets with tungstenite.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream as StdUnix;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_blocking};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};

use super::codec_tests::frame;
use super::{CloseReason, Connection, Message, WebSocket, code, erased, serve};
use crate::session::testing::{Log, OnDrop, PEER, read_all, read_bytes, soon};
use crate::session::{Begin, BoxError, Outcome, SendError, Start, StreamLimits, Switch};

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

#[tokio::test]
async fn messages_are_answered_and_counted() {
    let mut test = Test::new();
    test.text("hello").await;
    test.expect_text("hello").await;
    test.send(&[frame(0x82, b"\x00\xff"), frame(0x81, b"count")].concat()).await;
    assert_eq!(test.frame().await, (0x82, b"\x00\xff".to_vec()));
    test.expect_text("3").await;
}

#[tokio::test]
async fn a_ping_between_fragments_is_answered_before_the_message() {
    let mut test = Test::new();
    test.send(&[frame(0x01, b"hel"), frame(0x89, b"alive?"), frame(0x80, b"lo")].concat()).await;
    assert_eq!(test.frame().await, (0x8a, b"alive?".to_vec()));
    test.expect_text("hello").await;
}

#[tokio::test]
async fn unread_bytes_of_the_upgrade_come_first() {
    let mut both = frame(0x81, b"early");
    both.extend(&frame(0x81, b"late")[..3]);
    let unread = Bytes::from(both);
    let mut test = Test::with(Probe::default(), |start| start.unread = unread);
    test.expect_text("early").await;
    test.send(&frame(0x81, b"late")[3..]).await;
    test.expect_text("late").await;
}

#[tokio::test]
async fn the_client_closes() {
    let mut test = Test::new();
    test.send(&frame(0x88, b"\x03\xe8bye")).await;
    let log = Arc::clone(&test.probe.log);
    let reason = test.expect_close(1000).await;
    assert_eq!(reason, CloseReason::Client { code: Some(1000), reason: "bye".to_owned() });
    assert_eq!(*log.closed.lock().unwrap(), [reason]);
}

#[tokio::test]
async fn the_client_closes_without_a_code() {
    let mut test = Test::new();
    test.send(&frame(0x88, b"")).await;
    assert_eq!(test.frame().await, (0x88, vec![]));
}

#[tokio::test]
async fn the_client_vanishes() {
    let mut test = Test::new();
    test.text("hello").await;
    test.expect_text("hello").await;
    drop(test.client);
    assert!(matches!(closed(test.served).await, CloseReason::Lost(_)));
    assert_eq!(test.probe.log.closed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_handler_closes() {
    let mut test = Test::new();
    test.text("bye").await;
    let reason = test.expect_close(4000).await;
    assert_eq!(reason, CloseReason::Asked { code: 4000, reason: "as you wish".to_owned() });

    let mut test = Test::new();
    test.text("bad code").await;
    test.expect_close(1011).await;
}

#[tokio::test]
async fn violations_close_with_their_codes() {
    let small = |start: &mut Start<DuplexStream>| start.limits.message_size = 100;
    for (bytes, code) in [
        (frame(0x82, &[0; 101]), 1009),
        ([frame(0x02, &[0; 60]), frame(0x80, &[0; 60])].concat(), 1009),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x80, b"x"), 1002),
        (vec![0x81, 0x01, b'x'], 1002),
    ] {
        let mut test = Test::with(Probe::default(), small);
        test.send(&bytes).await;
        assert_eq!(test.expect_close(code).await.code(), Some(code));
    }
}

#[tokio::test]
async fn failures_and_panics_close_their_connection_alone() {
    let probe = Probe::default();
    let mut bystander = Test::with(probe.clone(), |_| {});
    for word in ["fail", "panic"] {
        let mut test = Test::with(probe.clone(), |_| {});
        test.text(word).await;
        assert_eq!(test.expect_close(1011).await, CloseReason::Failed);
    }
    bystander.text("count").await;
    bystander.expect_text("1").await;
}

#[tokio::test]
async fn a_failing_open_closes_without_a_call_of_close() {
    let begin = Begin::With(postcard::to_allocvec(&13_u64).unwrap());
    let test = Test::with(Probe::default(), |start| start.begin = begin);
    let log = Arc::clone(&test.probe.log);
    assert_eq!(test.expect_close(1011).await, CloseReason::Failed);
    assert_eq!(log.entries(), ["open"]);
}

#[tokio::test]
async fn a_prepared_session_is_there_at_the_beginning() {
    let begin = Begin::With(postcard::to_allocvec(&41_u64).unwrap());
    let mut test = Test::with(Probe::default(), |start| start.begin = begin);
    test.text("count").await;
    test.expect_text("42").await;
}

#[tokio::test]
async fn other_tasks_push_and_close() {
    let mut test = Test::new();
    test.text("push").await;
    test.expect_text("pushed").await;
    let log = Arc::clone(&test.probe.log);
    let reason = test.expect_close(4001).await;
    // Its assertions held: a panic would have kept this out.
    log.until("closed").await;
    assert_eq!(reason, CloseReason::Asked { code: 4001, reason: "enough".to_owned() });
}

#[tokio::test]
async fn a_slow_client_slows_its_handler_and_nothing_piles_up() {
    let mut test = Test::new();
    test.text("flood").await;
    test.probe.log.until("sent 2").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // The pipe takes 256 KiB: four messages and a bit.
    assert!(test.probe.log.entries().len() < 8);
    let mut block = vec![0; 10 + 64 * 1024];
    for _ in 0..1000 {
        soon(test.client.read_exact(&mut block)).await.unwrap();
        assert_eq!(block[..2], [0x82, 127]);
        assert!(block[10..].iter().all(|&byte| byte == b'x'));
    }
    test.text("count").await;
    test.expect_text("2").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let patience = Duration::from_millis(50);
    let mut test = Test::with(Probe::default(), |start| start.limits.idle_timeout = patience);
    test.text("flood").await;
    assert!(matches!(closed(test.served).await, CloseReason::Lost(_)));
    let said = "the client took no bytes for 50ms".to_owned();
    assert!(test.probe.log.entries().contains(&said));
}

#[tokio::test]
async fn a_silent_client_is_asked_and_a_dead_one_is_closed() {
    let idle = Duration::from_millis(200);
    let mut test = Test::with(Probe::default(), |start| start.limits.idle_timeout = idle);
    // As long as it answers, it stays.
    for _ in 0..4 {
        assert_eq!(test.frame().await, (0x89, vec![]));
        test.send(&frame(0x8a, b"")).await;
    }
    assert_eq!(test.frame().await, (0x89, vec![]));
    assert_eq!(test.expect_close(1001).await, CloseReason::Idle);
}

#[tokio::test]
async fn idleness_begins_when_the_handler_is_done() {
    let idle = Duration::from_millis(300);
    let mut test = Test::with(Probe::default(), |start| start.limits.idle_timeout = idle);
    test.text("wait").await;
    test.probe.log.until("waiting").await;
    tokio::time::sleep(idle + Duration::from_millis(10)).await;
    test.probe.gate.notify_one();
    test.expect_text("waited").await;
    assert_eq!(test.frame().await, (0x89, vec![]));
    test.text("count").await;
    test.expect_text("2").await;
}

#[tokio::test]
async fn the_stream_ends_after_the_clients_half_of_the_close() {
    let mut test = Test::new();
    test.text("bye").await;
    assert_eq!(test.frame().await.0, 0x88);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let early = tokio::time::timeout(Duration::ZERO, test.client.read_u8()).await;
    assert!(early.is_err(), "the stream ended before the client's close frame");
    // What was under way when the close frame came is ignored.
    test.send(&[frame(0x81, b"late"), frame(0x89, b""), frame(0x88, b"\x0f\xa0")].concat()).await;
    assert_eq!(read_all(&mut test.client).await, b"");
    drop(test.client);
    assert!(matches!(closed(test.served).await, CloseReason::Asked { .. }));
}

#[tokio::test]
async fn a_client_that_never_answers_our_close_is_left() {
    let patience = Duration::from_millis(50);
    let mut test = Test::with(Probe::default(), |start| start.limits.close_timeout = patience);
    test.text("bye").await;
    test.frame().await;
    // Neither a close frame nor an end of stream from here.
    assert!(matches!(closed(test.served).await, CloseReason::Asked { .. }));
}

#[tokio::test]
async fn a_full_queue_is_told_and_a_sender_outlives_its_connection() {
    struct Pusher(Arc<Log>);
    impl WebSocket for Pusher {
        type Session = ();
        async fn message(&self, conn: &mut Connection<()>, _: Message) -> Result<(), BoxError> {
            let sender = conn.sender();
            // The queue is not emptied while the handler runs.
            for _ in 0..3 {
                sender.try_send("queued")?;
            }
            assert_eq!(sender.try_send("too much"), Err(SendError::Full));
            let log = Arc::clone(&self.0);
            tokio::spawn(async move {
                sender.closed().await;
                assert!(sender.is_closed());
                assert_eq!(sender.try_send("late"), Err(SendError::Closed));
                log.add("told");
            });
            Ok(())
        }
    }
    let log = Arc::new(Log::default());
    let (client, server) = duplex(1024);
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let mut start = Start::new(server, PEER, control);
    start.limits = StreamLimits { push_queue: 3, ..StreamLimits::default() };
    let served = tokio::spawn(serve(erased(Pusher(Arc::clone(&log))), start));
    let mut test = Test { probe: Probe::default(), switch, client, served };
    test.text("go").await;
    for _ in 0..3 {
        test.expect_text("queued").await;
    }
    drop(test.client);
    soon(test.served).await.unwrap();
    log.until("told").await;
}

#[tokio::test]
async fn panics_before_the_first_await_are_caught() {
    struct Rash;
    impl WebSocket for Rash {
        type Session = ();
        #[allow(clippy::manual_async_fn)]
        fn message(
            &self,
            _conn: &mut Connection<()>,
            _message: Message,
        ) -> impl Future<Output = Result<(), BoxError>> + Send {
            if true {
                panic!("at once");
            }
            async { Ok(()) }
        }
        async fn close(&self, _conn: &mut Connection<()>, _reason: CloseReason) {
            panic!("and again");
        }
    }
    let (client, server) = duplex(1024);
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let served = tokio::spawn(serve(erased(Rash), Start::new(server, PEER, control)));
    let mut test = Test { probe: Probe::default(), switch, client, served };
    test.text("go").await;
    assert_eq!(test.expect_close(1011).await, CloseReason::Failed);
}

/// A real socket with tungstenite as the client; the closure runs on a thread of its own.
async fn against_tungstenite<T: Send + 'static>(
    probe: Probe,
    client: impl FnOnce(tungstenite::WebSocket<StdUnix>) -> T + Send + 'static,
) -> (T, CloseReason) {
    let (near, far) = StdUnix::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let near = UnixStream::from_std(near).unwrap();
    let start = Start::new(near, PEER, Arc::new(Switch::default()));
    let served = tokio::spawn(serve(erased(probe), start));
    let client = spawn_blocking(move || {
        client(tungstenite::WebSocket::from_raw_socket(far, Role::Client, None))
    });
    (soon(client).await.unwrap(), closed(served).await)
}

#[tokio::test]
async fn tungstenite_talks_and_closes() {
    let (frame, reason) = against_tungstenite(Probe::default(), |mut socket| {
        let long = "ü".repeat(500_000);
        for text in ["a", "", &long] {
            socket.send(text.into()).unwrap();
            assert_eq!(socket.read().unwrap().into_text().unwrap(), text);
        }
        socket.send(tungstenite::Message::Ping(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::Pong(Bytes::from_static(b"x")));
        socket.send("count".into()).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap(), "4");
        let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
        socket.close(Some(frame)).unwrap();
        let answer = socket.read().unwrap();
        assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
        answer
    })
    .await;
    assert!(
        matches!(frame, tungstenite::Message::Close(Some(frame)) if frame.code == CloseCode::Normal)
    );
    assert_eq!(reason.code(), Some(code::NORMAL));
}

#[tokio::test]
async fn tungstenite_is_closed() {
    let (frame, _) = against_tungstenite(Probe::default(), |mut socket| {
        socket.send("bye".into()).unwrap();
        let close = socket.read().unwrap();
        assert!(socket.read().is_err());
        close
    })
    .await;
    let tungstenite::Message::Close(Some(frame)) = frame else { panic!("{frame:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4000, "as you wish"));
}
