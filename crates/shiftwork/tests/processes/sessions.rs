//! Connections that talk for long pass on with everything that belongs to them: sessions, half
//! messages, what was sent too early.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use shiftwork_sys::signal;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

fn stream(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn open(shop: &Shop, path: &str) -> WebSocket<TcpStream> {
    let url = format!("ws://{}{path}", shop.web());
    tungstenite::client(url, stream(shop.web())).unwrap().0
}

#[track_caller]
fn heard(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).unwrap();
    heard(socket)
}

#[track_caller]
fn ring(till: &mut BufReader<impl Read + Write>, line: &str) -> String {
    till.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    answer(till)
}

#[track_caller]
fn answer(till: &mut BufReader<impl Read + Write>) -> String {
    let mut answer = String::new();
    till.read_line(&mut answer).unwrap();
    assert!(answer.ends_with('\n'), "{answer:?}");
    answer.trim_end().to_owned()
}

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
fn those_who_adopt_share_them() {
    let shop = Site::new().with("server.worker_num", 2).start();
    let mut tills: Vec<_> = (0..400).map(|_| BufReader::new(stream(shop.till()))).collect();
    for till in &mut tills {
        assert_eq!(ring(till, "count"), "1");
    }
    shop.reload();
    for till in &mut tills {
        assert_eq!(ring(till, "count"), "2");
    }
    let status = shop.until("all are counted where they are", |status| {
        let held = status.role("worker").iter().map(|it| it.connections).sum::<u64>();
        held == 400 && status.role("worker").len() == 2
    });
    for worker in status.role("worker") {
        assert!((40..=360).contains(&worker.connections), "uneven: {status:#?}");
    }
    shop.stop();
}

#[test]
fn an_adopter_that_dies_costs_only_what_it_had_taken() {
    let shop = Site::new().with("server.worker_num", 2).start();
    let mut tills: Vec<_> = (0..300).map(|_| BufReader::new(stream(shop.till()))).collect();
    for till in &mut tills {
        assert_eq!(ring(till, "count"), "1");
    }
    // One of the adopters is stopped before anything is handed over, and killed when it may have
    // taken some of it: what it has not acknowledged is sent again.
    let victim = std::thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload());
        let victim = within(LONG, "a worker of the new generation", || {
            shop.status().pids("worker", 2).first().copied().filter(|pid| *pid > 0)
        });
        reload.join().unwrap();
        send(victim, signal::KILL);
        victim
    });
    wait_gone(victim);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for till in &mut tills {
        let mut answer = String::new();
        let asked = till.get_mut().write_all(b"count\n").is_ok();
        let told = asked && till.read_line(&mut answer).is_ok_and(|read| read > 0);
        let told = if told { answer.trim_end().to_owned() } else { "lost".to_owned() };
        *counts.entry(told).or_default() += 1;
    }
    // Nobody's count begins anew, and nobody waits for ever.
    let (kept, lost) = (counts.get("2").copied(), counts.get("lost").copied());
    assert_eq!(kept.unwrap_or(0) + lost.unwrap_or(0), 300, "{counts:?}");
    assert!(kept.unwrap_or(0) >= 1, "{counts:?}");
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
