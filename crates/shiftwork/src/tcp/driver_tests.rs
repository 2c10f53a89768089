//! Whole connections, over pipes in memory and over real sockets.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::codec::Decoder;

use super::{CloseReason, Connection, Framing, Lines, TcpHandler, erased, serve};
use crate::session::testing::{Log, OnDrop, PEER, read_all, read_bytes, soon};
use crate::session::{Begin, BoxError, OnDrain, Outcome, Peer, SendError, Start, Switch};

/// Does what the line says, and notes what happens to it.
#[derive(Clone, Default)]
struct Probe {
    log: Arc<Log>,
    gate: Arc<tokio::sync::Notify>,
    greets: bool,
}

impl TcpHandler for Probe {
    type Session = u64;

    async fn connect(&self, conn: &mut Connection<u64>) -> Result<(), BoxError> {
        self.log.add("connect");
        if self.greets {
            conn.send("welcome\n").await?;
        }
        Ok(())
    }

    async fn receive(&self, conn: &mut Connection<u64>, data: Bytes) -> Result<(), BoxError> {
        conn.session += 1;
        match &data[..] {
            b"count" => conn.send_line(conn.session.to_string()).await?,
            b"panic" => panic!("on purpose"),
            b"fail" => return Err("on purpose".into()),
            b"bye" => {
                conn.send_line("good bye").await?;
                conn.close();
            }
            b"wait" => {
                let _dropped = OnDrop(&self.log, "dropped");
                self.log.add("waiting");
                self.gate.notified().await;
                conn.send_line("waited").await?;
            }
            b"flood" => {
                for number in 0..1000 {
                    conn.send(vec![b'x'; 64 * 1024]).await?;
                    self.log.add(format!("sent {number}"));
                }
            }
            b"push for a while" => {
                let sender = conn.sender();
                tokio::spawn(async move {
                    let mut beat = tokio::time::interval(Duration::from_millis(50));
                    for _ in 0..20 {
                        beat.tick().await;
                        sender.send("pushed\n").await.unwrap();
                    }
                    sender.closed().await;
                    assert_eq!(sender.send("late").await, Err(SendError::Closed));
                });
            }
            _ => conn.send_line(data).await?,
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

struct Test {
    probe: Probe,
    switch: Arc<Switch>,
    client: DuplexStream,
    served: JoinHandle<Outcome<DuplexStream>>,
}

impl Test {
    fn new() -> Self {
        Test::with(Framing::Lines, |_| {})
    }

    fn with(framing: Framing, change: impl FnOnce(&mut Start<DuplexStream>)) -> Self {
        let (client, server) = duplex(256 * 1024);
        let switch = Arc::new(Switch::default());
        let control: Arc<Switch> = Arc::clone(&switch);
        let mut start = Start::new(server, PEER, control);
        start.on_drain = OnDrain::Serve;
        change(&mut start);
        let probe = Probe::default();
        let served = tokio::spawn(serve(erased(probe.clone(), framing), start));
        Test { probe, switch, client, served }
    }

    async fn send(&mut self, bytes: &str) {
        soon(self.client.write_all(bytes.as_bytes())).await.unwrap();
    }

    async fn expect(&mut self, bytes: &str) {
        let read = read_bytes(&mut self.client, bytes.len()).await;
        assert_eq!(String::from_utf8_lossy(&read), bytes);
    }

    /// Sees the stream end, ends it as well, and returns why.
    async fn expect_end(mut self) -> CloseReason {
        assert_eq!(read_all(&mut self.client).await, b"");
        drop(self.client);
        closed(self.served).await
    }
}

async fn closed<S>(served: JoinHandle<Outcome<S>>) -> CloseReason {
    match soon(served).await.unwrap() {
        Outcome::Closed(reason) => reason,
        Outcome::HandOver(_) => panic!("handed over"),
    }
}

#[tokio::test]
async fn lines_are_answered_with_their_own_ending() {
    let mut test = Test::new();
    test.send("one\ntwo\r\n\n\r\nthr").await;
    test.expect("one\ntwo\r\n\n\r\n").await;
    test.send("ee\ncount\r\n").await;
    test.expect("three\n6\r\n").await;
}

#[tokio::test]
async fn a_cr_inside_a_line_belongs_to_it() {
    let mut test = Test::new();
    test.send("a\rb\r\r\nplain\n").await;
    test.expect("a\rb\r\r\nplain\n").await;
}

#[tokio::test]
async fn bytes_come_as_they_are() {
    let mut test = Test::with(Framing::Bytes, |start| start.limits.message_size = 4);
    // Pieces of at most four bytes, each answered with a line.
    test.send("abcdefghij").await;
    test.expect("abcd\nefgh\nij\n").await;
}

#[tokio::test]
async fn a_half_closing_client_gets_all_its_answers() {
    let mut test = Test::new();
    test.send(&"line\n".repeat(1000)).await;
    test.client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut test.client).await, "line\n".repeat(1000).as_bytes());
    let reason = closed(test.served).await;
    assert_eq!(reason, CloseReason::Client { code: None, reason: String::new() });
    assert_eq!(*test.probe.log.closed.lock().unwrap(), [reason]);
}

#[tokio::test]
async fn half_a_line_at_the_end_is_never_given_to_the_handler() {
    let mut test = Test::new();
    test.send("pay 10\npay 1000").await;
    test.client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut test.client).await, b"pay 10\n");
    assert!(matches!(closed(test.served).await, CloseReason::Lost(_)));
}

#[tokio::test]
async fn a_long_line_ends_the_connection_before_it_is_whole() {
    for line in ["123456789", "123456789\n", "123456789\r\n"] {
        let mut test = Test::with(Framing::Lines, |start| start.limits.message_size = 8);
        test.send("12345678\r\n").await;
        test.expect("12345678\r\n").await;
        test.send(line).await;
        assert!(matches!(test.expect_end().await, CloseReason::Violation(_)));
    }
}

#[tokio::test]
async fn the_last_words_arrive_although_the_client_goes_on_sending() {
    // On a real socket: bytes left unread at the close would make a reset of it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, from) = listener.accept().await.unwrap();
    let start = Start::new(server, Peer::Tcp(from), Arc::new(Switch::default()));
    let served = tokio::spawn(serve(erased(Probe::default(), Framing::Lines), start));
    let more = "more\n".repeat(10_000);
    client.write_all(format!("bye\n{more}").as_bytes()).await.unwrap();
    assert_eq!(read_all(&mut client).await, b"good bye\n");
    // A reset would show here at the latest.
    for _ in 0..20 {
        soon(client.write_all(b"still more\n")).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(client);
    assert!(matches!(closed(served).await, CloseReason::Asked { .. }));
}

#[tokio::test]
async fn a_greeting_comes_first() {
    let (mut client, server) = duplex(1024);
    let start = Start::new(server, PEER, Arc::new(Switch::default()));
    let probe = Probe { greets: true, ..Probe::default() };
    tokio::spawn(serve(erased(probe, Framing::Lines), start));
    assert_eq!(read_bytes(&mut client, 8).await, b"welcome\n");
}

#[tokio::test]
async fn failures_and_panics_end_their_connection_alone() {
    let mut bystander = Test::new();
    for word in ["fail\n", "panic\n"] {
        let mut test = Test::new();
        test.send(word).await;
        let switch = Arc::clone(&test.switch);
        assert_eq!(test.expect_end().await, CloseReason::Failed);
        assert_eq!(switch.failures(), 1);
    }
    bystander.send("count\n").await;
    bystander.expect("1\n").await;
    assert_eq!(bystander.switch.failures(), 0);
}

#[tokio::test]
async fn a_draining_worker_goes_on_serving_until_told_to_close() {
    let mut test = Test::new();
    test.send("wait\n").await;
    test.probe.log.until("waiting").await;
    test.switch.drain();
    test.probe.gate.notify_one();
    test.expect("waited\n").await;
    test.send("count\n").await;
    test.expect("2\n").await;
    test.switch.close();
    assert_eq!(test.expect_end().await, CloseReason::Restart);
}

#[tokio::test]
async fn an_ordered_close_waits_for_the_line_in_hand() {
    let mut test = Test::new();
    test.send("wait\n").await;
    test.probe.log.until("waiting").await;
    test.switch.close();
    test.probe.gate.notify_one();
    test.expect("waited\n").await;
    assert_eq!(test.expect_end().await, CloseReason::Stopped);
}

#[tokio::test]
async fn a_cut_drops_the_handler_and_the_connection() {
    let mut test = Test::new();
    test.send("wait\n").await;
    test.probe.log.until("waiting").await;
    test.switch.cut();
    assert_eq!(closed(test.served).await, CloseReason::Cut);
    assert_eq!(test.probe.log.entries(), ["connect", "waiting", "dropped"]);
    assert_eq!(read_all(&mut test.client).await, b"");
}

#[tokio::test]
async fn a_slow_client_slows_its_handler_and_nothing_piles_up() {
    let mut test = Test::new();
    test.send("flood\n").await;
    test.probe.log.until("sent 2").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(test.probe.log.entries().len() < 8);
    let mut block = vec![0; 64 * 1024];
    for _ in 0..1000 {
        soon(test.client.read_exact(&mut block)).await.unwrap();
    }
    test.send("count\n").await;
    test.expect("2\n").await;
}

#[tokio::test]
async fn a_client_that_only_listens_is_not_idle() {
    let idle = Duration::from_millis(500);
    let mut test = Test::with(Framing::Lines, |start| start.limits.idle_timeout = idle);
    test.send("push for a while\n").await;
    // 20 times 50 ms is more than the idle timeout.
    for _ in 0..20 {
        test.expect("pushed\n").await;
    }
    let log = Arc::clone(&test.probe.log);
    assert_eq!(test.expect_end().await, CloseReason::Idle);
    // Its assertions held: a panic would have kept this out.
    log.until("closed").await;
}

#[tokio::test]
async fn a_connection_goes_on_elsewhere_from_any_byte() {
    let lines = "one\r\ncount\r\n";
    for cut in 0..=lines.len() {
        let mut test = Test::with(Framing::Lines, |start| start.on_drain = OnDrain::HandOver);
        test.send(&lines[..cut]).await;
        test.probe.log.until("connect").await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        test.switch.drain();
        let Outcome::HandOver(parcel) = soon(test.served).await.unwrap() else {
            panic!("closed instead of handed over");
        };
        let switch = Arc::new(Switch::default());
        let control: Arc<Switch> = Arc::clone(&switch);
        let mut start = Start::new(parcel.stream, PEER, control);
        start.unread = parcel.unread;
        start.begin = Begin::Adopt(parcel.saved);
        let probe = Probe::default();
        let served = tokio::spawn(serve(erased(probe.clone(), Framing::Lines), start));
        let mut test = Test { probe, switch, client: test.client, served };
        test.send(&lines[cut..]).await;
        test.expect("one\r\n2\r\n").await;
        assert!(test.probe.log.entries().is_empty(), "connected twice");
    }
}

proptest! {
    #[test]
    fn lines_are_the_same_in_any_chunks(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
        chunks in prop::collection::vec(1_usize..20, 1..10),
    ) {
        let whole = cut(&bytes, &mut std::iter::once(bytes.len()));
        let in_chunks = cut(&bytes, &mut chunks.into_iter().cycle());
        prop_assert_eq!(&whole, &in_chunks);
        if whole.1 {
            let expected: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            let (_, expected) = expected.split_last().unwrap();
            let expected: Vec<&[u8]> =
                expected.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
            prop_assert_eq!(whole.0, expected);
        }
    }
}

/// The lines, and whether none was too long.
fn cut(bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> (Vec<Bytes>, bool) {
    let (mut decoder, mut unread) = (Lines::new(30), BytesMut::new());
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = left;
        unread.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut unread) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(_) => return (lines, false),
            }
        }
    }
    (lines, true)
}
