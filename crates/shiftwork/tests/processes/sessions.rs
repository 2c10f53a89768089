//! Connections that talk for long pass on with everything that belongs to them: sessions, half
//! messages, what was sent too early.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use shiftwork_sys::signal;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::binary;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::talk::{answer, heard, open, ring, say, stream};
use crate::support::wait::{LONG, within};

#[test]
fn twenty_reloads_are_not_heard_of() {
    let shop = Shop::start();
    let mut sockets: Vec<_> = (0..8).map(|_| open(&shop, "/ws")).collect();
    let mut tills: Vec<_> = (0..8).map(|_| BufReader::new(stream(shop.till()))).collect();
    for round in 1..=20_u64 {
        for socket in &mut sockets {
            assert_eq!(say(socket, "count"), (2 * round - 1).to_string());
        }
        for till in &mut tills {
            assert_eq!(ring(till, "count"), (2 * round - 1).to_string());
        }
        // On its way while the connection passes on.
        for socket in &mut sockets {
            socket.send(Message::text(format!("round {round}"))).unwrap();
        }
        for till in &mut tills {
            till.get_mut().write_all(format!("round {round}\n").as_bytes()).unwrap();
        }
        shop.reload();
        for socket in &mut sockets {
            assert_eq!(heard(socket), format!("round {round}"));
        }
        for till in &mut tills {
            assert_eq!(answer(till), format!("round {round}"));
        }
    }
    shop.until("nothing drains", |status| {
        status.processes.iter().all(|it| it.generation.is_none_or(|it| it == 21))
    });
    for mut socket in sockets {
        assert_eq!(say(&mut socket, "count"), "41");
    }
    shop.stop();
}

#[test]
fn halves_travel() {
    let shop = Shop::start();
    let mut socket = open(&shop, "/ws");
    assert_eq!(say(&mut socket, "one"), "one");
    let mut till = BufReader::new(stream(shop.till()));
    assert_eq!(ring(&mut till, "one"), "one");
    for part in ["two, ", "three, ", "four"] {
        let data = if part == "two, " { Data::Text } else { Data::Continue };
        let frame = Frame::message(part.as_bytes().to_vec(), OpCode::Data(data), part == "four");
        // A frame in two pieces.
        let mut bytes = Vec::new();
        let mut masked = frame;
        masked.header_mut().mask = Some([1, 2, 3, 4]);
        masked.format(&mut bytes).unwrap();
        let cut = bytes.len() / 2;
        socket.get_mut().write_all(&bytes[..cut]).unwrap();
        till.get_mut().write_all(part.as_bytes()).unwrap();
        shop.reload();
        socket.get_mut().write_all(&bytes[cut..]).unwrap();
        shop.reload();
    }
    till.get_mut().write_all(b"\n").unwrap();
    assert_eq!(heard(&mut socket), "two, three, four");
    assert_eq!(answer(&mut till), "two, three, four");
    assert_eq!(say(&mut socket, "count"), "3");
    assert_eq!(ring(&mut till, "count"), "3");
    shop.stop();
}

#[test]
fn a_worker_that_retires_passes_them_on() {
    let shop = Site::new().with("server.worker_num", 1).with("server.max_request", 40).start();
    let mut socket = open(&shop, "/ws");
    let mut till = BufReader::new(stream(shop.till()));
    let mut counted = 0;
    for _ in 0..3 {
        counted += 1;
        assert_eq!(say(&mut socket, "count"), counted.to_string());
        assert_eq!(ring(&mut till, "count"), counted.to_string());
        let worker = shop.status().role("worker")[0].pid;
        send(worker, signal::TERM);
        wait_gone(worker);
    }
    let before = shop.status().role("worker")[0].pid;
    let mut client = shop.client();
    within(LONG, "max_request replaces the worker", || {
        client.get("/hello").unwrap();
        (client.get("/hello").unwrap().worker_pid() != before).then_some(())
    });
    counted += 1;
    assert_eq!(say(&mut socket, "count"), counted.to_string());
    assert_eq!(ring(&mut till, "count"), counted.to_string());
    shop.stop();
}

#[test]
fn over_a_unix_socket_too() {
    let site = Site::new();
    let (web, till) = (site.path("web.sock"), site.path("till.sock"));
    let shop = site
        .with("listen.web.address", format!("unix:{}", web.display()))
        .with("listen.till.address", format!("unix:{}", till.display()))
        .start();
    let connect = |path| {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    let mut line = BufReader::new(connect(&till));
    let (mut socket, _) = tungstenite::client("ws://shop/ws", connect(&web)).unwrap();
    for count in 1..=5 {
        assert_eq!(ring(&mut line, "count"), count.to_string());
        socket.send(Message::text("count")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(count.to_string()));
        shop.reload();
    }
    shop.stop();
}

#[test]
fn the_feed_goes_on() {
    let shop = Shop::start();
    let mut feed = open(&shop, "/feed");
    heard(&mut feed);
    for generation in 2..=3 {
        shop.reload();
        within(LONG, "the feed tells of the new generation", || {
            let status: serde_json::Value = serde_json::from_str(&heard(&mut feed)).unwrap();
            (status["generation"] == generation).then_some(())
        });
    }
    shop.stop();
}

#[test]
fn one_that_never_pauses_does_not_hold_up_a_reload() {
    let shop = Shop::start();
    let mut socket = open(&shop, "/ws");
    let worker = shop.status().pids("worker", 1);
    let mut sent = 0_u64;
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload_with(&["--wait"]));
        while !reload.is_finished() {
            sent += 1;
            let text = format!("message {sent}");
            assert_eq!(say(&mut socket, &text), text);
        }
        assert_eq!(reload.join().unwrap().code, 0);
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    worker.into_iter().for_each(wait_gone);
    assert_eq!(say(&mut socket, "count"), (sent + 1).to_string());
    shop.stop();
}

/// What a WebSocket was closed with.
#[track_caller]
fn closed_with(socket: &mut tungstenite::WebSocket<std::net::TcpStream>) -> u16 {
    loop {
        match socket.read().unwrap() {
            Message::Close(Some(frame)) => return frame.code.into(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_release_reads_the_sessions_of_the_one_before() {
    let talkers = binary::talkers();
    let site = Site::new();
    site.release("tally-1", &talkers);
    let shop = site.start();
    let mut socket = open(&shop, "/count");
    let mut till = BufReader::new(stream(shop.till()));
    assert_eq!(say(&mut socket, "?"), "1 in one");
    assert_eq!(ring(&mut till, "?"), "1 in one");
    shop.site.release("tally-2", &talkers);
    shop.reload();
    assert_eq!(answer(&mut till), "resumed");
    assert_eq!(say(&mut socket, "?"), "2 in two, 1 new");
    assert_eq!(ring(&mut till, "?"), "2 in two, 1 new");
    // Into its own version and out of it again.
    shop.reload();
    assert_eq!(answer(&mut till), "resumed");
    assert_eq!(say(&mut socket, "?"), "3 in two, 2 new");
    assert_eq!(ring(&mut till, "?"), "3 in two, 2 new");
    shop.stop();
}

#[test]
fn what_a_release_cannot_read_is_closed_and_logged() {
    let talkers = binary::talkers();
    let site = Site::new();
    site.release("tally-2", &talkers);
    let shop = site.start();
    let mut socket = open(&shop, "/count");
    let mut till = BufReader::new(stream(shop.till()));
    let mut client = shop.client();
    client.get("/hello").unwrap();
    say(&mut socket, "?");
    ring(&mut till, "?");
    // The release before cannot read what the next one has written in its own version.
    shop.site.release("tally-1", &talkers);
    shop.reload();
    assert_eq!(closed_with(&mut socket), 1012);
    let mut end = String::new();
    assert_eq!(std::io::BufRead::read_line(&mut till, &mut end).unwrap(), 0, "{end:?}");
    for protocol in ["websocket", "tcp"] {
        shop.wait_log(&format!(
            "this release cannot read the session of a connection; it is closed protocol=\"{protocol}\""
        ));
    }
    client.get("/hello").unwrap();
    shop.stop();
}

#[test]
fn the_older_form_is_written_as_long_as_the_setting_says_so() {
    let talkers = binary::talkers();
    let site = Site::new();
    site.release("tally-1", &talkers);
    let mut shop = site.start();
    let mut socket = open(&shop, "/count");
    let mut till = BufReader::new(stream(shop.till()));
    assert_eq!(say(&mut socket, "?"), "1 in one");
    assert_eq!(ring(&mut till, "?"), "1 in one");
    // Deployed with the version of the release before, and returned from.
    shop.put("server.session_write_version", 1);
    shop.site.release("tally-2", &talkers);
    shop.reload();
    assert_eq!(answer(&mut till), "resumed");
    assert_eq!(say(&mut socket, "?"), "2 in two, 1 new");
    assert_eq!(ring(&mut till, "?"), "2 in two, 1 new");
    shop.site.release("tally-1", &talkers);
    shop.reload();
    assert_eq!(answer(&mut till), "resumed");
    assert_eq!(say(&mut socket, "?"), "3 in one");
    assert_eq!(ring(&mut till, "?"), "3 in one");
    shop.stop();
}

#[test]
fn the_ending_of_a_clients_lines_is_remembered() {
    let site = Site::new();
    site.release("tally-1", &binary::talkers());
    let shop = site.start();
    let mut till = BufReader::new(stream(shop.till()));
    till.get_mut().write_all(b"?\r\n").unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut till, &mut line).unwrap();
    assert_eq!(line, "1 in one\r\n");
    shop.reload();
    line.clear();
    std::io::BufRead::read_line(&mut till, &mut line).unwrap();
    assert_eq!(line, "resumed\r\n");
    shop.stop();
}

#[test]
fn connections_that_come_over_are_no_requests() {
    // Else a worker that takes up forty connections would be worn out by that alone, and the next.
    let shop =
        Site::new().with("server.max_request", 60).with("server.max_request_grace", 0).start();
    let mut tills: Vec<_> = (0..80).map(|_| BufReader::new(stream(shop.till()))).collect();
    for generation in 2..=3 {
        shop.reload();
        shop.until("the old ones are gone", |status| {
            status.role("worker").iter().all(|it| it.generation == Some(generation))
                && status.role("worker").iter().map(|it| it.connections).sum::<u64>() == 80
        });
    }
    let status = shop.status();
    assert!(status.role("worker").iter().all(|it| it.requests == 0), "{status:#?}");
    assert!(!shop.site.log().contains("max_request is reached"));
    for till in &mut tills[..20] {
        assert_eq!(ring(till, "count"), "1");
    }
    shop.stop();
}
