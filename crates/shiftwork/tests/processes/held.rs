//! Connections that a handler holds on to: what the table in docs/guide.md says of a reload, of a
//! stop, and of the deadline.

use std::io::{BufRead, BufReader, Read};

use shiftwork_sys::signal;
use tungstenite::Message;

use crate::support::binary;
use crate::support::http::Client;
use crate::support::processes::wait_gone;
use crate::support::shop::{Shop, Site};
use crate::support::talk::{heard, open, ring, say, stream};

fn shop(max_wait_time: &str) -> Shop {
    let site = Site::new().with("server.max_wait_time", max_wait_time);
    site.release("tally-1", &binary::talkers());
    site.start()
}

fn ask(shop: &Shop, path: &str) -> Client {
    let mut client = shop.client();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes()).unwrap();
    client
}

/// A request whose answer goes on and on, read up to its first event.
fn listen(shop: &Shop, path: &str) -> BufReader<std::net::TcpStream> {
    use std::io::Write as _;
    let mut stream = BufReader::new(stream(shop.web()));
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    until_line(&mut stream, "data: tick");
    stream
}

#[track_caller]
fn until_line(stream: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "ended before {wanted:?}");
        if line.trim_end() == wanted {
            return;
        }
    }
}

#[test]
fn a_handler_that_heeds_the_drain_goes_on_elsewhere() {
    let shop = shop("60s");
    let mut held = open(&shop, "/held");
    assert_eq!(say(&mut held, "a long wait"), "holding");
    let old = shop.status().pids("worker", 1);
    shop.reload();
    assert_eq!(heard(&mut held), "a long wait, in generation 2");
    assert_eq!(say(&mut held, "another"), "holding");
    old.into_iter().for_each(wait_gone);
    shop.stop();
}

#[test]
fn answers_that_heed_the_drain_end_by_themselves() {
    let shop = shop("60s");
    let mut events = listen(&shop, "/events?polite");
    let mut poll = ask(&shop, "/poll?polite");
    let old = shop.status().pids("worker", 1);
    shop.until("both are in hand", |status| {
        status.role("worker").iter().map(|it| it.in_flight).sum::<u64>() == 2
    });
    shop.reload();
    until_line(&mut events, "data: come again");
    until_line(&mut events, "0");
    let answer = poll.receive().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "nothing new"));
    assert!(!answer.says_close());
    old.into_iter().for_each(wait_gone);
    // And their connections have passed on.
    assert_eq!(poll.get("/hello").unwrap().status, 200);
    shop.stop();
}

#[test]
fn what_does_not_heed_it_goes_on_until_the_deadline_and_is_cut_by_name() {
    let shop = shop("1500ms");
    let mut events = listen(&shop, "/events");
    let mut poll = ask(&shop, "/poll");
    let mut held = open(&shop, "/held");
    assert_eq!(say(&mut held, "for ever"), "holding");
    let mut till = BufReader::new(stream(shop.till()));
    assert_eq!(ring(&mut till, "hold"), "holding");
    // One that is free passes on meanwhile.
    let mut free = BufReader::new(stream(shop.till()));
    assert_eq!(ring(&mut free, "?"), "1 in one");
    let old = shop.status().pids("worker", 1);
    shop.until("all are in hand", |status| {
        status.role("worker").iter().map(|it| it.in_flight).sum::<u64>() == 4
    });
    shop.reload();
    // Still served by the old worker, while it may be.
    until_line(&mut events, "data: tick");
    until_line(&mut events, "data: tick");
    old.into_iter().for_each(wait_gone);
    let mut rest = Vec::new();
    let _ = events.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "an answer that was cut must not look whole");
    assert!(poll.receive().is_err());
    assert!(!matches!(held.read(), Ok(Message::Text(_))));
    let log = shop.site.log();
    for named in [
        "cut at the deadline: GET /events from 127.0.0.1",
        "cut at the deadline: GET /poll from 127.0.0.1",
        "cut at the deadline: message from 127.0.0.1",
    ] {
        assert!(log.contains(named), "{named}");
    }
    let messages = log.lines().filter(|line| line.contains("cut at the deadline: message"));
    let listeners = |name: &str| messages.clone().filter(|it| it.contains(name)).count();
    assert_eq!((listeners("on listener web"), listeners("on listener till")), (1, 1));
    assert_eq!(log.matches("cut at the deadline").count(), 4);
    assert_eq!(ring(&mut free, "?"), "resumed");
    shop.stop();
}

#[test]
fn a_stop_tells_them_and_waits_for_them() {
    let mut shop = shop("60s");
    let mut events = listen(&shop, "/events?polite");
    let mut poll = ask(&shop, "/poll?polite");
    let mut held = open(&shop, "/held");
    assert_eq!(say(&mut held, "a long wait"), "holding");
    let mut idle = open(&shop, "/count");
    say(&mut idle, "?");
    let mut till = BufReader::new(stream(shop.till()));
    ring(&mut till, "?");
    shop.until("three are in hand", |status| {
        status.role("worker").iter().map(|it| it.in_flight).sum::<u64>() == 3
    });
    shop.signal(signal::TERM);
    until_line(&mut events, "data: come again");
    until_line(&mut events, "0");
    assert_eq!(poll.receive().unwrap().status, 200);
    for socket in [&mut held, &mut idle] {
        let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close frame") };
        assert_eq!(u16::from(frame.code), 1012);
    }
    let mut line = String::new();
    assert_eq!(till.read_line(&mut line).unwrap(), 0, "{line:?}");
    assert_eq!(shop.wait(), 0);
    shop.site.assert_nothing_left();
}

#[test]
fn what_a_slow_client_has_not_taken_travels() {
    use std::io::Write as _;
    let shop = shop("60s");
    let address = shop.status().address("bytes");
    let mut slow = stream(address);
    slow.write_all(b"much ").unwrap();
    // Some of it, so that the rest is stuck in the worker.
    let mut first = vec![0; 1000];
    slow.read_exact(&mut first).unwrap();
    let old = shop.status().pids("worker", 1);
    shop.reload();
    // The old worker does not wait for the client, though its handler was in the middle of sending.
    old.into_iter().for_each(wait_gone);
    let mut rest = vec![0; 16_000_000 - 1000];
    slow.read_exact(&mut rest).unwrap();
    assert!(first.iter().chain(&rest).enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    slow.write_all(b"alive").unwrap();
    let mut alive = [0; 5];
    slow.read_exact(&mut alive).unwrap();
    assert_eq!(&alive, b"alive");
    shop.stop();
}
