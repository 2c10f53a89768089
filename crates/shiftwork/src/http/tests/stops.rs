//! A stop: what is answered with `Connection: close`, and what is closed.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::fixture::{Test, get, read_head};
use crate::conn::Drain;
use crate::http::{CloseReason, HttpLimits, Outcome};

#[tokio::test]
async fn a_stop_answers_with_close_what_is_in_hand() {
    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::Close);
    test.settle().await;
    test.stage.let_go();
    let (head, body) = test.read().await;
    assert_eq!(body, "waited");
    assert!(head.contains("connection: close"), "{head}");
    assert!(test.at_eof().await);
    assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Ended)));
}

#[tokio::test]
async fn a_stop_closes_what_is_idle() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.registry.drain_all(Drain::Close);
    test.sweep_in(Duration::from_millis(1100));
    assert!(test.at_eof().await);
    assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Stopped)));
}

#[tokio::test]
async fn a_client_that_was_just_answered_gets_one_more_answer_at_a_stop() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.registry.drain_all(Drain::Close);
    test.sweep_in(Duration::from_millis(900));
    test.settle().await;
    let (head, _) = test.get("/last").await;
    assert!(head.contains("connection: close"), "{head}");
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn a_stop_answers_a_request_that_has_come_but_was_not_read() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    // In the socket before the order; the driver has not been told by the poller.
    use std::io::Write;
    let mut client = test.client.into_std().unwrap();
    client.write_all(get("/last").as_bytes()).unwrap();
    test.client = tokio::net::TcpStream::from_std(client).unwrap();
    test.registry.drain_all(Drain::Close);
    let (head, body) = test.read().await;
    assert_eq!(body, "GET /last");
    assert!(head.contains("connection: close"), "{head}");
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn a_stop_waits_for_the_rest_of_a_head() {
    let mut test = Test::new().await;
    test.get("/hello").await;
    test.send("GET /last HTT").await;
    test.settle().await;
    test.registry.drain_all(Drain::Close);
    test.settle().await;
    test.send("P/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = test.read().await;
    assert_eq!(body, "GET /last");
    assert!(head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn a_stop_serves_a_connection_from_the_accept_queue() {
    let (client, server) = super::fixture::pair().await;
    let registry = crate::conn::Registry::new();
    registry.drain_all(Drain::Close);
    let stream = crate::conn::Stream::accepted_tcp(server);
    let limits = HttpLimits::default();
    let mut test = Test::on(client, stream, Bytes::new(), limits, registry);
    test.settle().await;
    let (head, _) = test.get("/hello").await;
    assert!(head.contains("connection: close"), "{head}");

    // But not for ever.
    let (client, server) = super::fixture::pair().await;
    let stream = crate::conn::Stream::accepted_tcp(server);
    let mut test = Test::on(client, stream, Bytes::new(), limits, test.registry.clone());
    test.sweep_in(Duration::from_millis(900));
    test.settle().await;
    assert!(!test.driver.is_finished());
    test.sweep_in(Duration::from_millis(1100));
    assert!(test.at_eof().await);
    assert!(matches!(test.outcome().await, Outcome::Closed(CloseReason::Stopped)));
}

#[tokio::test]
async fn a_stop_may_follow_a_hand_over() {
    let mut test = Test::new().await;
    test.send(get("/wait")).await;
    test.stage.begun.notified().await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    test.registry.drain_all(Drain::Close);
    test.settle().await;
    test.stage.let_go();
    assert!(test.read().await.0.contains("connection: close"));
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn a_stop_after_a_hand_over_still_answers_what_has_come() {
    let mut test = Test::new().await;
    test.send(get("/stream")).await;
    read_head(&mut test.client).await;
    test.registry.drain_all(Drain::HandOver);
    test.settle().await;
    test.send(get("/last")).await;
    test.registry.drain_all(Drain::Close);
    test.stage.let_go();
    let mut rest = [0; 26];
    test.client.read_exact(&mut rest).await.unwrap();
    let (head, body) = test.read().await;
    assert_eq!(body, "GET /last");
    assert!(head.contains("connection: close"), "{head}");
    assert!(test.at_eof().await);
}

#[tokio::test]
async fn connections_of_a_listener_that_is_gone_are_closed_while_others_move() {
    let registry = crate::conn::Registry::new();
    let peer = crate::conn::Peer::Unix { uid: 0, pid: 0 };
    let open = |name: &str| {
        registry.open_on(&name.into(), crate::conn::Protocol::Http1, peer, Duration::ZERO)
    };
    let (web, old) = (open("web"), open("old"));
    registry.drain(Drain::HandOver, &["old".to_owned()]);
    let (late_web, late_old) = (open("web"), open("old"));
    for conn in [web, late_web] {
        assert_eq!(conn.orders(), crate::conn::Orders::HAND_OVER);
    }
    for conn in [old, late_old] {
        assert_eq!(conn.orders(), crate::conn::Orders::CLOSE);
    }
}
