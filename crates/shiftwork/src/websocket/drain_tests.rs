//! What becomes of a connection when its worker drains, closes or cuts it, or hands it over.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::codec_tests::frame;
use super::driver_tests::{Probe, Test, closed};
use super::{CloseReason, ErasedWebSocket, erased, serve};
use crate::session::testing::{PEER, read_all, read_bytes, soon};
use crate::session::{Begin, OnDrain, Outcome, Start, Switch};

#[tokio::test]
async fn an_unreadable_session_closes_with_1012() {
    for session in [vec![], vec![1, 2, 3], vec![0xff; 30]] {
        let begin = Begin::With(session);
        let test = Test::with(Probe::default(), |start| start.begin = begin);
        let log = Arc::clone(&test.probe.log);
        assert_eq!(test.expect_close(1012).await, CloseReason::Unreadable);
        assert!(log.entries().is_empty());
    }
}

#[tokio::test]
async fn draining_closes_an_idle_connection_with_1012() {
    let mut test = Test::new();
    test.text("hello").await;
    test.expect_text("hello").await;
    test.switch.drain();
    assert_eq!(test.expect_close(1012).await, CloseReason::Restart);
}

#[tokio::test]
async fn draining_lets_the_running_handler_finish() {
    let mut test = Test::new();
    test.text("wait").await;
    test.probe.log.until("waiting").await;
    test.switch.drain();
    // Sent before the client could know: still answered.
    test.text("count").await;
    test.probe.gate.notify_one();
    test.expect_text("waited").await;
    test.expect_text("2").await;
    assert_eq!(test.expect_close(1012).await, CloseReason::Restart);
}

#[tokio::test]
async fn draining_waits_for_a_message_that_is_half_sent() {
    for cut in 1..8 {
        let mut test = Test::new();
        let whole = [frame(0x01, b"co"), frame(0x80, b"unt")].concat();
        test.text("hello").await;
        test.expect_text("hello").await;
        test.send(&whole[..cut]).await;
        test.switch.drain();
        tokio::task::yield_now().await;
        test.send(&whole[cut..]).await;
        test.expect_text("2").await;
        assert_eq!(test.expect_close(1012).await, CloseReason::Restart);
    }
}

#[tokio::test]
async fn draining_does_not_wait_for_ever_for_the_other_half() {
    let patience = Duration::from_millis(50);
    let mut test = Test::with(Probe::default(), |start| start.limits.close_timeout = patience);
    test.send(&frame(0x81, b"hello")[..4]).await;
    test.switch.drain();
    assert_eq!(test.expect_close(1012).await, CloseReason::Restart);
}

#[tokio::test]
async fn draining_is_not_held_up_by_a_client_that_never_pauses() {
    let patience = Duration::from_millis(100);
    let test = Test::with(Probe::default(), |start| start.limits.close_timeout = patience);
    let (mut reading, mut writing) = tokio::io::split(test.client);
    let chatter = tokio::spawn(async move {
        let message = frame(0x81, b"more").repeat(100);
        while writing.write_all(&message).await.is_ok() {}
    });
    let mut some = vec![0; 10_000];
    soon(reading.read_exact(&mut some)).await.unwrap();
    test.switch.drain();
    let mut all = some;
    all.extend(read_all(&mut reading).await);
    // Whole answers, then the close frame, then nothing.
    let (answers, last) = all.split_at(all.len() - 19);
    assert_eq!(answers.len() % 6, 0);
    assert!(answers.chunks(6).all(|one| one == b"\x81\x04more"));
    assert_eq!(last, b"\x88\x11\x03\xf4service restart");
    assert_eq!(closed(test.served).await, CloseReason::Restart);
    chatter.abort();
}

#[tokio::test]
async fn what_was_pushed_before_the_drain_still_goes_out() {
    let mut test = Test::new();
    test.text("push and wait").await;
    test.probe.log.until("waiting").await;
    test.switch.drain();
    test.probe.gate.notify_one();
    test.expect_text("waited").await;
    for _ in 0..3 {
        test.expect_text("queued").await;
    }
    assert_eq!(test.expect_close(1012).await, CloseReason::Restart);
}

#[tokio::test]
async fn handlers_learn_that_the_worker_drains() {
    let mut test = Test::new();
    test.text("until drain").await;
    test.probe.log.until("waiting").await;
    test.switch.drain();
    test.expect_text("drains").await;
    test.expect_close(1012).await;
}

#[tokio::test]
async fn an_ordered_close_says_going_away() {
    let test = Test::new();
    test.probe.log.until("open").await;
    test.switch.close();
    assert_eq!(test.expect_close(1001).await, CloseReason::Stopped);
}

#[tokio::test]
async fn a_cut_drops_the_handler_and_the_connection() {
    let mut test = Test::new();
    test.text("wait").await;
    test.probe.log.until("waiting").await;
    test.switch.cut();
    assert_eq!(closed(test.served).await, CloseReason::Cut);
    assert_eq!(test.probe.log.entries(), ["open", "waiting", "dropped"]);
    assert_eq!(read_all(&mut test.client).await, b"");
}

#[tokio::test]
async fn what_a_slow_client_has_not_taken_travels_too() {
    let (client, server) = duplex(64);
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let mut start = Start::new(server, PEER, control);
    start.on_drain = OnDrain::HandOver;
    let probe = Probe::default();
    let served = tokio::spawn(serve(erased(probe.clone()), start));
    let mut test = Test { probe, switch, client, served };
    test.text("push 60 and wait").await;
    test.probe.log.until("waiting").await;
    test.switch.drain();
    test.probe.gate.notify_one();
    // 64 bytes are under way in the pipe; the rest, in the middle of a message, travels.
    let Outcome::HandOver(parcel) = soon(test.served).await.unwrap() else { panic!("closed") };
    assert!(!parcel.saved.unsent.is_empty());
    let mut start = Start::new(parcel.stream, PEER, Arc::new(Switch::default()));
    start.begin = Begin::Adopt(parcel.saved);
    tokio::spawn(serve(erased(Probe::default()), start));
    let mut whole = b"\x81\x06waited".to_vec();
    whole.extend(b"\x81\x06queued".repeat(60));
    assert_eq!(read_bytes(&mut test.client, whole.len()).await, whole);
    soon(test.client.write_all(&frame(0x81, b"count"))).await.unwrap();
    let count = read_bytes(&mut test.client, 3).await;
    assert_eq!(count, b"\x81\x012");
}

#[tokio::test]
async fn a_waiting_connection_is_small() {
    let (_client, server) = duplex(64);
    let start = Start::new(server, PEER, Arc::new(Switch::default()));
    let handler: Arc<dyn ErasedWebSocket> = erased(Probe::default());
    let size = size_of_val(&*handler.serve_erased(start.boxed()));
    // It holds no buffer beside this one allocation (see `Wire`).
    assert!(size < 4 * 1024, "{size} bytes");
}

/// Opens a connection, sends `first`, hands it over in a state that `first` leads to, and goes on.
async fn hand_over(first: &[u8], answers: &[&str]) -> Test {
    let by_hand = |start: &mut Start<DuplexStream>| start.on_drain = OnDrain::HandOver;
    let mut test = Test::with(Probe::default(), by_hand);
    test.send(first).await;
    for answer in answers {
        test.expect_text(answer).await;
    }
    // So that it has read what can be read.
    test.probe.log.until("open").await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    test.switch.drain();
    let Outcome::HandOver(parcel) = soon(test.served).await.unwrap() else {
        panic!("closed instead of handed over");
    };
    assert!(test.probe.log.closed.lock().unwrap().is_empty());
    let saved = postcard::to_allocvec(&parcel.saved).unwrap();
    let saved = postcard::from_bytes(&saved).unwrap();
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let mut start = Start::new(parcel.stream, PEER, control);
    start.unread = parcel.unread;
    start.begin = Begin::Adopt(saved);
    let probe = Probe::default();
    let served = tokio::spawn(serve(erased(probe.clone()), start));
    Test { probe, switch, client: test.client, served }
}

#[tokio::test]
async fn a_connection_goes_on_elsewhere_from_any_byte() {
    let bytes =
        [frame(0x81, b"one"), frame(0x01, b"co\xc3"), frame(0x00, b"\xa4"), frame(0x80, b"t")];
    let one = bytes[0].len();
    let bytes = bytes.concat();
    for cut in 0..=bytes.len() {
        let before: &[&str] = if cut < one { &[] } else { &["one"] };
        let mut test = hand_over(&bytes[..cut], before).await;
        test.send(&bytes[cut..]).await;
        if cut < one {
            test.expect_text("one").await;
        }
        test.expect_text("coät").await;
        test.text("count").await;
        test.expect_text("3").await;
        assert!(!test.probe.log.entries().contains(&"open".to_owned()), "opened twice");
    }
}
