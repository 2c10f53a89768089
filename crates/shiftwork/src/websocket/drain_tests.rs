//! What becomes of a connection when its worker drains, closes or cuts it, or hands it over.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::codec_tests::frame;
use super::testing::{Probe, Test, closed};
use super::{CloseReason, Connection, Message, WebSocket, erased, serve};
use crate::session::testing::{PEER, read_all, read_bytes, soon};
use crate::session::{Begin, BoxError, OnDrain, Outcome, SendError, Sender, Start, Switch};

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

/// A handler whose pushes and drains are the test's.
#[derive(Clone, Default)]
struct Pushed(Arc<Mutex<Option<Sender<Message>>>>);

impl WebSocket for Pushed {
    type Session = ();

    async fn message(&self, conn: &mut Connection<()>, _: Message) -> Result<(), BoxError> {
        *self.0.lock().unwrap() = Some(conn.sender());
        Ok(conn.send("ready").await?)
    }
}

#[tokio::test]
async fn pushes_before_a_hand_over_go_out_and_those_after_it_are_told() {
    let (mut client, server) = duplex(64 * 1024);
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let mut start = Start::new(server, PEER, control);
    start.on_drain = OnDrain::HandOver;
    start.limits.push_queue = 40;
    let handler = Pushed::default();
    let served = tokio::spawn(serve(erased(handler.clone()), start));
    client.write_all(&frame(0x81, b"?")).await.unwrap();
    assert_eq!(read_bytes(&mut client, 7).await, b"\x81\x05ready");
    let sender = handler.0.lock().unwrap().clone().unwrap();
    // Nothing of this is looked at before the drain: no other task runs meanwhile.
    for number in 10..50 {
        sender.try_send(number.to_string()).unwrap();
    }
    assert_eq!(sender.try_send("too many"), Err(SendError::Full));
    let waits = sender.clone();
    let waits = tokio::spawn(async move { waits.send("never accepted").await });
    switch.drain();
    let Outcome::HandOver(parcel) = soon(served).await.unwrap() else { panic!("closed") };
    assert!(parcel.saved.unsent.is_empty());
    for number in 10..50 {
        let expected = format!("\u{1}\u{2}{number}");
        assert_eq!(read_bytes(&mut client, 4).await[1..], expected.as_bytes()[1..]);
    }
    assert_eq!(soon(waits).await.unwrap(), Err(SendError::HandedOver));
    assert_eq!(sender.send("stale").await, Err(SendError::HandedOver));
    assert_eq!(sender.try_send("stale"), Err(SendError::HandedOver));
    assert_eq!(sender.close(1000, "").await, Err(SendError::HandedOver));
    assert!(sender.is_closed());
    soon(sender.closed()).await;
    // Nothing but what was accepted has gone out, here or there.
    let mut start = Start::new(parcel.stream, PEER, Arc::new(Switch::default()));
    start.begin = Begin::Adopt(parcel.saved);
    tokio::spawn(serve(erased(Pushed::default()), start));
    client.write_all(&frame(0x81, b"?")).await.unwrap();
    assert_eq!(read_bytes(&mut client, 7).await, b"\x81\x05ready");
}

#[tokio::test]
async fn a_push_to_close_is_obeyed_instead_of_a_hand_over() {
    let (mut client, server) = duplex(64 * 1024);
    let switch = Arc::new(Switch::default());
    let control: Arc<Switch> = Arc::clone(&switch);
    let mut start = Start::new(server, PEER, control);
    start.on_drain = OnDrain::HandOver;
    let handler = Pushed::default();
    let served = tokio::spawn(serve(erased(handler.clone()), start));
    client.write_all(&frame(0x81, b"?")).await.unwrap();
    read_bytes(&mut client, 7).await;
    let sender = handler.0.lock().unwrap().clone().unwrap();
    sender.try_send("last").unwrap();
    sender.close(4000, "enough").await.unwrap();
    switch.drain();
    assert_eq!(read_bytes(&mut client, 16).await, b"\x81\x04last\x88\x08\x0f\xa0enough");
    drop(client);
    assert!(matches!(soon(served).await.unwrap(), Outcome::Closed(CloseReason::Asked { .. })));
    assert_eq!(sender.send("stale").await, Err(SendError::Closed));
}

#[tokio::test]
async fn the_idle_clock_goes_on_elsewhere() {
    const IDLE: Duration = Duration::from_secs(20);
    let mut test = Test::with(Probe::default(), |start| start.on_drain = OnDrain::HandOver);
    test.text("hello").await;
    test.expect_text("hello").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    test.switch.drain();
    let Outcome::HandOver(mut parcel) = soon(test.served).await.unwrap() else { panic!("closed") };
    assert!(parcel.saved.idle >= Duration::from_millis(50), "{:?}", parcel.saved.idle);
    // Almost over, for a limit that the adopter has.
    parcel.saved.idle = IDLE - Duration::from_millis(100);
    let mut start = Start::new(parcel.stream, PEER, Arc::new(Switch::default()));
    start.limits.idle_timeout = IDLE;
    start.begin = Begin::Adopt(parcel.saved);
    let began = tokio::time::Instant::now();
    let served = tokio::spawn(serve(erased(Probe::default()), start));
    let mut end = read_bytes(&mut test.client, 4).await;
    if end.starts_with(b"\x89\x00") {
        // It is asked for a sign of life first, which is overdue.
        end = [&end[2..], &read_bytes(&mut test.client, 2).await].concat();
    }
    assert_eq!(end, b"\x88\x0e\x03\xe9");
    assert!(began.elapsed() < IDLE / 2, "{:?}", began.elapsed());
    drop(test.client);
    assert!(matches!(soon(served).await.unwrap(), Outcome::Closed(CloseReason::Idle)));
}

#[tokio::test]
async fn a_waiting_connection_is_small() {
    let (_client, server) = duplex(64);
    let start = Start::new(server, PEER, Arc::new(Switch::default()));
    let handler: Arc<dyn crate::session::ErasedHandler> = erased(Probe::default());
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
