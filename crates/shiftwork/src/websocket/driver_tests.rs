//! Whole connections over pipes in memory, with frames by hand.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::codec_tests::frame;
use super::testing::{Probe, Test, closed};
use super::{CloseReason, Connection, Message, WebSocket, erased, serve};
use crate::session::testing::{Log, PEER, read_all, soon};
use crate::session::{Begin, BoxError, SendError, Start, StreamLimits, Switch};

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
