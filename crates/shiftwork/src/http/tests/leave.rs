//! Hand-over, cut and upgrade: every way in which a connection leaves the driver.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{Test, get, read_head};
use crate::conn::Drain;
use crate::http::{CloseReason, HttpLimits, Outcome};

#[tokio::test]
async fn an_idle_connection_leaves_at_once_and_goes_on() {
    let (mut test, unread) = {
        let test = Test::new().await;
        test.settle().await;
        test.move_on().await
    };
    assert!(unread.is_empty());
    assert_eq!(test.get("/hello").await.1, "GET /hello");
    let (mut test, unread) = test.move_on().await;
    assert!(unread.is_empty());
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn half_a_head_goes_along_as_bytes() {
    // On a connection without and on one with a request before.
    for requests in 0..2 {
        let mut test = Test::new().await;
        for _ in 0..requests {
            test.get("/hello").await;
        }
        test.send("GET /halved HT").await;
        test.settle().await;
        let (test, unread) = test.move_on().await;
        assert_eq!(unread, "GET /halved HT");
        // Moved again before the rest comes, and in the middle of the rest.
        let (mut test, unread) = test.move_on().await;
        assert_eq!(unread, "GET /halved HT");
        test.send("TP/1.1\r\nho").await;
        test.settle().await;
        let (mut test, unread) = test.move_on().await;
        assert_eq!(unread, "GET /halved HTTP/1.1\r\nho");
        test.send("st: x\r\n\r\n").await;
        let (head, body) = test.read().await;
        assert_eq!(body, "GET /halved");
        assert!(!head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_request_in_hand_is_answered_first_and_without_close() {
    let mut test = Test::new().await;
    test.send(get("/wait") + &get("/next")).await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    assert!(!test.driver.is_finished());
    test.stage.let_go();
    let (head, body) = test.read().await;
    assert_eq!(body, "waited");
    assert!(!head.contains("connection: close"), "{head}");
    // The second was read already: either worker may answer it, but one does.
    let (mut test, _) = test.move_on().await;
    assert_eq!(test.read().await.1, "GET /next");
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn a_draining_worker_reads_no_further_request() {
    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    // Comes too late for this worker.
    test.send(get("/late")).await;
    test.settle().await;
    test.stage.let_go();
    assert_eq!(test.read().await.1, "waited");
    let requests = test.registry.clone();
    let (mut test, unread) = test.move_on().await;
    assert!(unread.is_empty(), "{unread:?}");
    assert_eq!(requests.totals().requests, 1);
    assert_eq!(test.read().await.1, "GET /late");
}

#[tokio::test]
async fn a_body_that_was_begun_is_finished() {
    let heads = ["content-length: 10", "transfer-encoding: chunked"];
    let parts = [("01234", "56789"), ("5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n")];
    for (head, (first, second)) in heads.into_iter().zip(parts) {
        let mut test = Test::new().await;
        test.send(format!("POST /echo HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{first}")).await;
        test.settle().await;
        test.registry.drain_all(Drain::HandOver);
        test.settle().await;
        assert!(!test.driver.is_finished());
        test.send(second.to_owned() + "GET /nex").await;
        assert_eq!(test.read().await.1, "0123456789");
        let (mut test, _) = test.move_on().await;
        test.send("t HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(test.read().await.1, "GET /next");
    }
}

#[tokio::test]
async fn a_body_that_nobody_has_asked_for_yet_is_not_taken_for_a_request() {
    let mut test = Test::new().await;
    test.send("POST /echo-late HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n").await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    test.send("GET / HTTP/1.1\r\n\r\n").await;
    test.settle().await;
    assert!(!test.driver.is_finished());
    test.stage.let_go();
    assert_eq!(test.read().await.1, "18 bytes");
    let (mut test, unread) = test.move_on().await;
    assert!(unread.is_empty());
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn an_ignored_body_is_never_taken_for_a_request() {
    // The handler answers without reading the body; half of it is still to come.
    let mut test = Test::new().await;
    test.send("POST /ignore HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\n\r\nGET /stolen").await;
    let (head, body) = test.read().await;
    assert_eq!(body, "POST /ignore");
    test.registry.drain_all(Drain::HandOver);
    assert!(!head.contains("connection: close"), "{head}");
    test.settle().await;
    assert!(!test.driver.is_finished());
    test.send("x".repeat(29) + "GET /nex").await;
    let (mut test, unread) = test.move_on().await;
    assert!("GET /nex".starts_with(std::str::from_utf8(&unread).unwrap()), "{unread:?}");
    test.send("t HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(test.read().await.1, "GET /next");
}

#[tokio::test]
async fn an_ignored_body_that_is_long_or_held_back_closes_the_connection_and_says_so() {
    for rest in ["content-length: 3000000", "content-length: 3\r\nexpect: 100-continue"] {
        let mut test = Test::new().await;
        test.send(format!("POST /ignore HTTP/1.1\r\nhost: x\r\n{rest}\r\n\r\n")).await;
        let (head, body) = test.read().await;
        assert_eq!(body, "POST /ignore");
        assert!(head.contains("connection: close"), "{head}");
        test.client.shutdown().await.unwrap();
        assert!(test.at_eof().await);
    }
}

#[tokio::test]
async fn an_ignored_body_that_has_come_whole_is_no_reason_to_close() {
    for drain in [false, true] {
        let mut test = Test::new().await;
        test.send(get("/wait")).await;
        test.stage.begun.notified().await;
        if drain {
            test.registry.drain_all(Drain::HandOver);
        }
        test.stage.let_go();
        assert_eq!(test.read().await.1, "waited");
        let mut test = if drain { test.move_on().await.0 } else { test };
        test.send("POST /ignore HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody").await;
        assert_eq!(test.read().await.1, "POST /ignore");
        assert_eq!(test.get("/hello").await.1, "GET /hello");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_served_by_the_old_worker() {
    let mut test = Test::new().await;
    test.send(
        "POST /echo-late HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    )
    .await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    test.stage.let_go();
    assert!(read_head(&mut test.client).await.starts_with("http/1.1 100"));
    test.send("hello").await;
    assert_eq!(test.read().await.1, "5 bytes");
    let (mut test, _) = test.move_on().await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn an_answer_that_the_client_takes_slowly_is_finished() {
    let mut test = Test::new().await;
    test.send(get("/big?8000000")).await;
    test.until_unsent().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    assert!(!test.driver.is_finished(), "left with unsent bytes");
    let (_, body) = test.read().await;
    assert_eq!(body.len(), 8_000_000);
    let (mut test, _) = test.move_on().await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn a_streamed_answer_is_finished() {
    let mut test = Test::new().await;
    test.send(get("/stream")).await;
    read_head(&mut test.client).await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    assert!(!test.driver.is_finished());
    test.stage.let_go();
    let mut rest = [0; 26];
    test.client.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n");
    let (mut test, _) = test.move_on().await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn a_long_prefix_is_used_up_before_the_socket() {
    let (client, server) = super::fixture::pair().await;
    let all: String = (0..2000).map(|number| get(&format!("/{number}"))).collect();
    let (prefix, rest) = all.split_at(all.len() / 2 + 7);
    let stream = crate::conn::Stream::accepted_tcp(server);
    let registry = crate::conn::Registry::new();
    let limits = HttpLimits::default();
    let prefix = Bytes::from(prefix.to_owned());
    let mut test = Test::on(client, stream, prefix, limits, registry);
    test.send(rest).await;
    for number in 0..500 {
        assert_eq!(test.read().await.1, format!("GET /{number}"));
    }
    let (mut test, _) = test.move_on().await;
    for number in 500..2000 {
        assert_eq!(test.read().await.1, format!("GET /{number}"));
    }
}

#[tokio::test]
async fn the_idle_clock_travels() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    let before = std::time::Instant::now();
    test.sweep_in(Duration::ZERO);
    test.settle().await;
    test.registry.drain_all(Drain::HandOver);
    let Outcome::HandOver { stream, idle_for, .. } = test.driver.await.unwrap() else {
        panic!("not handed over")
    };
    assert!(!idle_for.is_zero() && idle_for <= before.elapsed());
    let registry = crate::conn::Registry::new();
    let peer = stream.peer().unwrap();
    let conn = registry.open(crate::conn::Protocol::Http1, peer, Duration::from_secs(80));
    registry.sweep(std::time::Instant::now(), HttpLimits::default().sweep());
    assert!(conn.orders().any(crate::conn::Orders::IDLE_EXPIRED));
}

#[tokio::test]
async fn a_cut_drops_the_handler_and_says_what_it_was() {
    let mut test = Test::new().await;
    test.send(get("/wait?secret=1")).await;
    test.stage.begun.notified().await;
    let cut = test.registry.cut_all();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].work.to_string(), "GET /wait");
    test.stage.dropped.notified().await;
    assert!(test.at_eof().await);
    assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Cut)));
}

#[tokio::test]
async fn an_upgrade_gives_the_socket_back_with_what_came_early() {
    for drain in [false, true] {
        let mut test = Test::new().await;
        test.get("/hello").await;
        if drain {
            // The handler of the upgrade has begun before the drain.
            test.send(get("/wait")).await;
            test.stage.begun.notified().await;
            test.registry.drain_all(Drain::HandOver);
            test.stage.let_go();
            test.read().await;
            test = test.move_on().await.0;
        }
        let head = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
        test.send(format!("{head}\r\n\x01\x02early")).await;
        let answer = read_head(&mut test.client).await;
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains("x-mine: yes") && answer.contains("upgrade: websocket"));
        assert!(!answer.contains("deflate"), "{answer}");
        let registry = test.registry.clone();
        let mut client = test.client;
        let Outcome::Upgraded { mut stream, unread, upgrade } = test.driver.await.unwrap() else {
            panic!("not upgraded")
        };
        assert_eq!(unread, "\x01\x02early");
        assert_eq!((upgrade.handler.as_str(), upgrade.session), ("echo", Some(vec![7])));
        assert_eq!(registry.totals().in_hand, 0);
        // The stream works in both directions.
        stream.write_all(b"frame").await.unwrap();
        let mut frame = [0; 5];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"frame");
    }
}

#[tokio::test]
async fn a_refused_upgrade_leaves_a_connection_that_can_move() {
    let mut test = Test::new().await;
    let head = "GET /no HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    test.send(head).await;
    assert_eq!(test.read().await.1, "GET /no");
    let (mut test, _) = test.move_on().await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}
