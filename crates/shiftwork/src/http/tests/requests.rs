//! Requests, limits and accidents on one worker.

use std::time::Duration;

use http::header::SERVER;
use http::{HeaderMap, HeaderValue};
use tokio::io::AsyncWriteExt;

use super::fixture::{OneAtATime, Test, get, read_head, settle, until};
use crate::conn::Orders;
use crate::http::{CloseReason, HttpLimits, Outcome};

const LATER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn requests_are_answered_one_after_another() {
    let mut test = Test::new().await;
    for _ in 0..3 {
        let (head, body) = test.get("/hello").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("date: "), "{head}");
        assert!(!head.contains("connection: close"));
        assert_eq!(body, "GET /hello");
    }
    let totals = test.registry.totals();
    assert_eq!((totals.requests, totals.in_hand, totals.connections), (3, 0, 1));
    let registry = test.registry.clone();
    drop(test.client);
    let outcome = test.driver.await.unwrap();
    assert!(matches!(outcome, Outcome::Closed(CloseReason::Ended)), "{outcome:?}");
    assert!(registry.is_empty() && registry.totals().connections == 0);
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order() {
    let mut test = Test::new().await;
    let all: String = (0..40).map(|number| get(&format!("/{number}"))).collect();
    test.send(all).await;
    for number in 0..40 {
        assert_eq!(test.read().await.1, format!("GET /{number}"));
    }
}

#[tokio::test]
async fn old_and_bodiless_requests_are_served() {
    let mut test = Test::new().await;
    test.send("HEAD /big?300 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = read_head(&mut test.client).await;
    assert!(head.contains("content-length: 300"), "{head}");
    test.send("GET /old HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    let (head, _) = test.read().await;
    assert!(head.starts_with("http/1.0 200") && head.contains("keep-alive"), "{head}");
    test.send("GET /old HTTP/1.0\r\n\r\n").await;
    assert_eq!(test.read().await.1, "GET /old");
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn bodies_come_whole_with_their_trailers() {
    let mut test = Test::new().await;
    test.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(test.read().await.1, "hello");
    test.send("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    test.send("3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n").await;
    assert_eq!(test.read().await.1, "abcde+1");
    assert_eq!(test.get("/peer").await.1, "true");
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_else() {
    let mut test = Test::new().await;
    assert!(test.get("/panic").await.0.starts_with("http/1.1 500"));
    assert!(test.get("/fail").await.0.starts_with("http/1.1 500"));
    // Nobody would take the connection over.
    let (head, _) = test.get("/odd").await;
    assert!(head.starts_with("http/1.1 500"), "{head}");
    assert!(test.get("/hello").await.0.starts_with("http/1.1 200"));
    assert_eq!(test.registry.totals().failures, 3);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_the_handler_runs() {
    let limits = HttpLimits { body_size: 1000, ..HttpLimits::default() };
    let mut test = Test::with(limits).await;
    // The client does not wait for an answer and sends it all; the answer must not be lost for it.
    let length = 3_000_000;
    test.send(format!("POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")).await;
    let (mut reading, mut writing) = test.client.into_split();
    let sending = tokio::spawn(async move { writing.write_all(&vec![b'x'; length]).await });
    let answer = tokio::time::timeout(LATER, async {
        let mut answer = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer).await;
        read.map(|_| String::from_utf8(answer).unwrap())
    });
    let answer = answer.await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(sending.await.unwrap().is_ok(), "the client was reset while it was sending");
}

#[tokio::test]
async fn an_unannounced_body_that_is_too_long_fails_while_it_is_read() {
    let limits = HttpLimits { body_size: 4, ..HttpLimits::default() };
    let mut test = Test::with(limits).await;
    test.send("POST /limit HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    test.send("3\r\nabc\r\n2\r\nde\r\n").await;
    let (head, body) = test.read().await;
    assert_eq!(body, "too long");
    assert!(head.contains("connection: close"), "the rest is not read: {head}");
}

#[tokio::test]
async fn a_refused_100_continue_is_never_continued() {
    let limits = HttpLimits { body_size: 10, ..HttpLimits::default() };
    let mut test = Test::with(limits).await;
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: ";
    test.send(format!("{head}11\r\n\r\n")).await;
    let (answer, _) = test.read().await;
    assert!(answer.starts_with("http/1.1 413"), "{answer}");
    assert!(test.at_eof().await);
    let mut test = Test::with(limits).await;
    test.send(format!("{head}5\r\n\r\n")).await;
    assert!(read_head(&mut test.client).await.starts_with("http/1.1 100"));
    test.send("hello").await;
    assert_eq!(test.read().await.1, "hello");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431() {
    let mut test = Test::new().await;
    let marks = HeaderMap::from_iter([(SERVER, HeaderValue::from_static("me"))]);
    test.conn.upgrade().unwrap().set_marks(marks.into());
    let long = "y".repeat(20_000);
    test.send(format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n")).await;
    let (head, _) = test.read().await;
    assert!(head.starts_with("http/1.1 431"), "{head}");
    assert!(head.contains("\r\nserver: me\r\n"), "{head}");
    assert!(test.at_eof().await);
    let mut test = Test::new().await;
    let fits = "y".repeat(12_000);
    test.send(format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {fits}\r\n\r\n")).await;
    assert!(test.read().await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_slow_head_is_408_and_a_silent_client_is_closed() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.send("GET /half").await;
    test.settle().await;
    test.sweep_in(Duration::from_secs(5));
    test.sweep_in(Duration::from_secs(11));
    let (head, _) = test.read().await;
    assert!(head.starts_with("http/1.1 408"), "{head}");
    assert!(test.at_eof().await);
    let outcome = test.outcome().await;
    assert!(matches!(outcome, Outcome::Closed(CloseReason::HeaderTimeout)), "{outcome:?}");

    let mut test = Test::new().await;
    test.get("/hello").await;
    test.sweep_in(Duration::from_secs(74));
    test.get("/hello").await;
    test.sweep_in(Duration::from_secs(76));
    assert!(test.at_eof().await);
    assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Idle)));
}

#[tokio::test]
async fn an_expiry_that_is_no_longer_true_is_taken_back() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    // The sweeper's order and the request have crossed.
    test.conn.upgrade().unwrap().order(Orders::IDLE_EXPIRED);
    test.settle().await;
    test.stage.let_go();
    assert_eq!(test.read().await.1, "waited");
    assert!(test.conn.upgrade().unwrap().orders().is_empty());
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_503_and_the_connection_goes_on() {
    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.sweep_in(Duration::from_secs(59));
    test.settle().await;
    assert_eq!(test.registry.totals().oldest.map(|age| age.as_secs()), Some(59));
    test.sweep_in(Duration::from_secs(61));
    let (head, _) = test.read().await;
    assert!(head.starts_with("http/1.1 503") && !head.contains("connection: close"), "{head}");
    test.stage.dropped.notified().await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
    test.sweep_in(Duration::ZERO);
    assert_eq!(test.registry.totals().oldest, None);
}

#[tokio::test]
async fn an_expiry_that_came_too_late_does_not_hit_the_next_request() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.conn.upgrade().unwrap().order(Orders::REQUEST_EXPIRED);
    assert!(test.get("/hello").await.0.starts_with("http/1.1 200"));
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.stage.let_go();
    assert_eq!(test.read().await.1, "waited");
}

#[tokio::test]
async fn the_rest_of_an_ignored_body_is_not_a_slow_head() {
    let mut test = Test::new().await;
    test.send("POST /ignore HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\n\r\nbegun").await;
    test.read().await;
    test.send("more").await;
    test.settle().await;
    test.sweep_in(Duration::from_secs(11));
    test.settle().await;
    test.send("x".repeat(31)).await;
    assert_eq!(test.get("/hello").await.1, "GET /hello");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_closed() {
    // One that hyper has all of, and one that goes on.
    for path in ["/big?50000000", "/stuck"] {
        let mut test = Test::new().await;
        test.send(get(path)).await;
        test.until_unsent().await;
        // A sweep finds nothing wrong for as long as the kernel still takes some of it.
        until(|| {
            test.sweep_in(Duration::from_secs(76));
            test.driver.is_finished()
        })
        .await;
        assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Idle)));
    }
}

#[tokio::test]
async fn a_quiet_stream_is_not_a_stalled_one() {
    let mut test = Test::new().await;
    test.send(get("/stream")).await;
    read_head(&mut test.client).await;
    test.settle().await;
    test.sweep_in(LATER);
    test.settle().await;
    test.stage.let_go();
    let mut rest = String::new();
    while !rest.ends_with("0\r\n\r\n") {
        let byte = tokio::io::AsyncReadExt::read_u8(&mut test.client).await.unwrap();
        rest.push(byte.into());
    }
    assert_eq!(rest, "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_handler_outlives_its_client_and_stays_in_hand() {
    let mut test = Test::new().await;
    // The next request's answer cannot be written: hyper gives the connection up with its handler.
    test.send(get("/big?50000000") + &get("/wait")).await;
    let registry = test.registry.clone();
    test.until_unsent().await;
    test.client.set_zero_linger().unwrap();
    drop(test.client);
    let _ = test.driver.await.unwrap();
    assert_eq!(registry.totals().in_hand, 0, "the second request had not begun");

    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    // As hyper does when writing fails: the whole connection is dropped.
    test.driver.abort();
    assert!(test.driver.await.unwrap_err().is_cancelled());
    assert_eq!(test.registry.totals().in_hand, 1);
    assert_eq!(test.registry.totals().connections, 0);
    assert!(!test.registry.is_empty());
    test.stage.let_go();
    test.stage.done.notified().await;
    while !test.registry.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(test.registry.totals().in_hand, 0);
}

#[tokio::test]
async fn a_handler_without_a_client_can_still_be_cut() {
    let mut test = Test::new().await;
    test.send(get("/wait?secret")).await;
    test.stage.begun.notified().await;
    test.driver.abort();
    let _ = test.driver.await;
    tokio::task::yield_now().await;
    let cut = test.registry.cut_all();
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0].work.to_string(), "GET /wait");
    test.stage.dropped.notified().await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.client.shutdown().await.unwrap();
    test.settle().await;
    test.stage.let_go();
    assert_eq!(test.read().await.1, "waited");
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn a_handler_may_ask_to_be_dropped_with_its_client() {
    let limits = HttpLimits { cancel_on_disconnect: true, ..HttpLimits::default() };
    let mut test = Test::with(limits).await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    drop(test.client);
    test.stage.dropped.notified().await;
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let (client, server) = super::fixture::pair().await;
    let (other_client, other_server) = super::fixture::pair().await;
    let stage = std::sync::Arc::new(super::fixture::Stage::default());
    let registry = crate::conn::Registry::new();
    let service = {
        let stage = std::sync::Arc::clone(&stage);
        OneAtATime::new(stage)
    };
    let mut clients = [client, other_client];
    for server in [server, other_server] {
        let stream = crate::conn::Stream::accepted_tcp(server);
        let peer = stream.peer().unwrap();
        let conn = registry.open(crate::conn::Protocol::Http1, peer, Duration::ZERO);
        let limits = HttpLimits::default();
        tokio::spawn(super::super::serve(stream, "".into(), conn, service.clone(), limits));
    }
    // Idle connections reserve nothing: each gets its turn, again and again.
    for _ in 0..3 {
        for client in &mut clients {
            client.write_all(get("/hello").as_bytes()).await.unwrap();
            assert_eq!(super::fixture::read_answer(client).await.1, "GET /hello");
        }
    }
    let [first, second] = &mut clients;
    first.write_all(get("/wait").as_bytes()).await.unwrap();
    stage.begun.notified().await;
    second.write_all(get("/hello").as_bytes()).await.unwrap();
    settle(second).await;
    // Neither is answered.
    assert_eq!(registry.totals().in_hand, 2);
    stage.let_go();
    assert_eq!(super::fixture::read_answer(first).await.1, "waited");
    assert_eq!(super::fixture::read_answer(second).await.1, "GET /hello");
}
