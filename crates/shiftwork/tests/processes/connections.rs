//! What is not plain HTTP over TCP: WebSocket, the till, Unix sockets; and the limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use shiftwork_sys::signal;
use tungstenite::{Message, WebSocket};

use crate::support::http::{Broken, Client};
use crate::support::shop::{Shop, Site};
use crate::support::wait::LONG;

/// A WebSocket to a path of the shop, and the headers of its 101.
fn open(shop: &Shop, path: &str) -> (WebSocket<TcpStream>, http::HeaderMap) {
    let stream = TcpStream::connect(shop.web()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (socket, response) =
        tungstenite::client(format!("ws://{}{path}", shop.web()), stream).unwrap();
    assert_eq!(response.status(), 101);
    (socket, response.headers().clone())
}

fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).unwrap();
    heard(socket)
}

fn heard(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A line to the till and its answer.
fn ring(till: &mut BufReader<impl Read + Write>, line: &str) -> String {
    till.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    till.read_line(&mut answer).unwrap();
    assert!(answer.ends_with('\n'), "{answer:?}");
    answer.trim_end().to_owned()
}

#[test]
fn websocket_echoes_and_counts() {
    let shop = Shop::start();
    let (mut socket, headers) = open(&shop, "/ws");
    for name in ["x-release", "x-build", "x-generation", "x-worker-id", "x-worker-pid"] {
        assert!(headers.contains_key(name), "{name} on the 101: {headers:?}");
    }
    assert_eq!(say(&mut socket, "grüße"), "grüße");
    assert_eq!(say(&mut socket, "count"), "2");
    let long = "x".repeat(300_000);
    assert_eq!(say(&mut socket, &long), long);
    assert_eq!(say(&mut socket, "count"), "4");
    let (mut other, _) = open(&shop, "/ws");
    assert_eq!(say(&mut other, "count"), "1");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    shop.stop();
}

#[test]
fn the_feed_pushes_the_status() {
    let shop = Shop::start();
    let (mut socket, _) = open(&shop, "/feed");
    for _ in 0..2 {
        let status: crate::support::shop::Status =
            serde_json::from_str(&heard(&mut socket)).unwrap();
        assert_eq!(status.pid, shop.pid);
        assert_eq!(status.role("worker").len(), 2);
    }
    shop.stop();
}

#[test]
fn the_till_echoes_and_counts() {
    let shop = Shop::start();
    let stream = TcpStream::connect(shop.till()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut till = BufReader::new(stream);
    assert_eq!(ring(&mut till, "a lamp"), "a lamp");
    assert_eq!(ring(&mut till, "count"), "2");
    // Several lines at once, and one in two pieces.
    till.get_mut().write_all(b"one\ntwo\nth").unwrap();
    till.get_mut().write_all(b"ree\ncount\n").unwrap();
    let lines: Vec<String> = till.by_ref().lines().take(4).map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two", "three", "6"]);
    shop.stop();
}

#[test]
fn unix_sockets_serve_both_protocols_and_outlive_reloads() {
    let site = Site::new();
    let (web, till) = (site.path("web.sock"), site.path("till.sock"));
    // A socket file that nobody serves is taken over.
    drop(std::os::unix::net::UnixListener::bind(&web).unwrap());
    let shop = site
        .with("listen.web.address", format!("unix:{}", web.display()))
        .with("listen.till.address", format!("unix:{}", till.display()))
        .start();
    let mut client = Client::connect_unix(&web).unwrap();
    assert_eq!(client.get("/hello").unwrap().generation(), 1);
    let mut line = BufReader::new(UnixStream::connect(&till).unwrap());
    assert_eq!(ring(&mut line, "count"), "1");
    shop.reload();
    assert_eq!(client.get("/hello").unwrap().generation(), 2, "the same connection");
    let mut fresh = Client::connect_unix(&web).unwrap();
    assert_eq!(fresh.get("/hello").unwrap().generation(), 2);
    shop.signal(signal::TERM);
    let mut shop = shop;
    assert_eq!(shop.wait(), 0);
    assert!(!web.exists() && !till.exists(), "socket files are left");
    shop.site.assert_nothing_left();
}

#[test]
fn more_connections_than_allowed_wait_for_one_that_goes() {
    let shop = Site::new().with("server.worker_num", 1).with("server.max_connection", 2).start();
    let mut first = shop.client();
    let mut second = shop.client();
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("/hello").unwrap().status, 200);
    }
    let mut third = shop.client();
    third.set_patience(Duration::from_millis(300)).unwrap();
    assert_eq!(third.get("/hello").unwrap_err(), Broken::TimedOut);
    assert_eq!(shop.status().role("worker")[0].connections, 2);
    drop(first);
    third.set_patience(LONG).unwrap();
    assert_eq!(third.receive().unwrap().status, 200);
    // Who is in stays in, whatever the new worker has by then.
    shop.reload();
    for client in [&mut second, &mut third] {
        assert_eq!(client.get("/hello").unwrap().generation(), 2);
    }
    shop.stop();
}

#[test]
fn limits_refuse_politely() {
    let shop = Site::new()
        .with("limits.body_size", "64KiB")
        .with("limits.header_timeout", "1s")
        .with("limits.idle_timeout", "2s")
        .start();
    let mut client = shop.client();
    let large = client.post("/echo", &"x".repeat(100_000)).unwrap();
    assert_eq!(large.status, 413);
    assert_eq!(large.generation(), 1, "the shop's headers stand on it");

    let mut half = shop.client();
    half.send(b"GET /hello HT").unwrap();
    let mut idle = shop.client();
    idle.get("/hello").unwrap();
    match half.receive() {
        Ok(response) => assert_eq!(response.status, 408),
        Err(broken) => assert_eq!(broken, Broken::Closed),
    }
    idle.wait_closed().unwrap();
    assert_eq!(shop.get("/hello").unwrap().status, 200);
    shop.stop();
}
