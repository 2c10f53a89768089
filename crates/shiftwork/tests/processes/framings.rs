//! Every framing, over TCP and over Unix sockets, while everything happens that moves connections:
//! each byte is answered once, in its order, and no stream ends.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, Scope};

use shiftwork_sys::signal;
use tungstenite::Message;

use crate::support::binary;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

trait Stream: Read + Write + Send + Sized {
    fn again(&self) -> Self;
}

impl Stream for TcpStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }
}

impl Stream for UnixStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }
}

/// Talks in all framings until it is over, and how often it was answered.
#[derive(Default)]
struct Talk {
    over: AtomicBool,
    answers: [AtomicU64; 4],
}

impl Talk {
    /// So many more answers in each framing.
    fn wait_more(&self, more: u64) {
        for answers in &self.answers {
            let before = answers.load(Relaxed);
            within(LONG, "more answers", || (answers.load(Relaxed) >= before + more).then_some(()));
        }
    }

    fn start<'a, S: Stream + 'a>(
        &'a self,
        scope: &'a Scope<'a, '_>,
        connect: &'a (impl Fn(&str) -> S + Sync),
    ) {
        scope.spawn(move || self.packets(connect("packets")));
        scope.spawn(move || self.bytes(connect("bytes")));
        scope.spawn(move || self.lines(connect("till")));
        scope.spawn(move || self.websocket(connect("web")));
    }

    /// Eight under way at a time, each in two pieces.
    fn packets(&self, mut stream: impl Stream) {
        let mut reading = BufReader::new(stream.again());
        let (mut asked, mut answered) = (0_u64, 0_u64);
        let body = |number: u64| vec![number as u8; (number * 37 % 3000) as usize];
        while !self.over.load(Relaxed) || answered < asked {
            while asked < answered + 8 && !self.over.load(Relaxed) {
                let body = body(asked);
                let mut packet = (body.len() as u32).to_be_bytes().to_vec();
                packet.extend_from_slice(&body);
                let (one, two) = packet.split_at(asked as usize % packet.len());
                stream.write_all(one).unwrap();
                stream.write_all(two).unwrap();
                asked += 1;
            }
            let mut head = [0; 12];
            reading.read_exact(&mut head).expect("a packet");
            let expected = body(answered);
            assert_eq!(head[..4], (expected.len() as u32 + 8).to_be_bytes());
            assert_eq!(head[4..], (answered + 1).to_be_bytes(), "neither lost nor doubled");
            let mut told = vec![0; expected.len()];
            reading.read_exact(&mut told).unwrap();
            assert!(told == expected, "packet {answered}");
            answered += 1;
            self.answers[0].fetch_add(1, Relaxed);
        }
    }

    fn bytes(&self, mut stream: impl Stream) {
        let mut sent = 0_u64;
        while !self.over.load(Relaxed) {
            let size = 1 + sent % 20_000;
            let piece: Vec<u8> = (0..size).map(|it| ((sent + it) % 251) as u8).collect();
            stream.write_all(&piece).unwrap();
            let mut told = vec![0; piece.len()];
            stream.read_exact(&mut told).expect("the same bytes");
            assert!(told == piece, "after {sent} bytes");
            sent += size;
            self.answers[1].fetch_add(1, Relaxed);
        }
    }

    fn lines(&self, mut stream: impl Stream) {
        let mut reading = BufReader::new(stream.again()).lines_of_their_own();
        let mut counted = 0;
        while !self.over.load(Relaxed) {
            stream.write_all(b"one\ntwo\nthr").unwrap();
            stream.write_all(b"ee\n").unwrap();
            for _ in 0..3 {
                counted += 1;
                assert_eq!(reading.next().unwrap(), format!("{counted} in one"));
            }
            self.answers[2].fetch_add(1, Relaxed);
        }
    }

    fn websocket(&self, stream: impl Stream) {
        let (mut socket, _) = tungstenite::client("ws://shop/count", stream).ok().unwrap();
        let mut counted = 0;
        while !self.over.load(Relaxed) {
            for text in ["a", "long enough for more than one read".repeat(1000).as_str()] {
                socket.send(Message::text(text)).unwrap();
            }
            for _ in 0..2 {
                counted += 1;
                let answer = socket.read().unwrap();
                assert_eq!(answer, Message::text(format!("{counted} in one")));
            }
            self.answers[3].fetch_add(1, Relaxed);
        }
    }
}

/// The answers among what comes; what a hand-over lets the server say is left out.
struct Answers<S>(BufReader<S>);

trait TheirOwn<S> {
    fn lines_of_their_own(self) -> Answers<S>;
}

impl<S> TheirOwn<S> for BufReader<S> {
    fn lines_of_their_own(self) -> Answers<S> {
        Answers(self)
    }
}

impl<S: Read> Iterator for Answers<S> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut self.0, &mut line).unwrap();
            assert!(line.ends_with('\n'), "the stream has ended: {line:?}");
            if line != "resumed\n" {
                return Some(line.trim_end().to_owned());
            }
        }
    }
}

/// A reload, an upgrade, a retirement, and other numbers of workers.
fn everything(shop: &Shop, talk: &Talk) {
    for _ in 0..3 {
        shop.reload();
        talk.wait_more(5);
    }
    for command in [&["upgrade"][..], &["scale", "4"], &["scale", "1"], &["scale", "2"]] {
        shop.site.run(command).expect(0);
        talk.wait_more(5);
    }
    for _ in 0..3 {
        let worker = shop.status().role("worker").iter().map(|it| it.pid).find(|pid| *pid > 0);
        let worker = worker.unwrap();
        send(worker, signal::TERM);
        wait_gone(worker);
        talk.wait_more(5);
    }
}

fn talk_while<S: Stream>(
    shop: &Shop,
    connect: impl Fn(&str) -> S + Sync,
    events: impl FnOnce(&Shop, &Talk),
) {
    let talk = Talk::default();
    thread::scope(|scope| {
        talk.start(scope, &connect);
        talk.wait_more(5);
        // A failed event must not leave those who talk talking for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| events(shop, &talk)));
        talk.over.store(true, Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn every_framing_outlives_everything_over_tcp() {
    let site = Site::new();
    site.release("tally-1", &binary::talkers());
    let shop = site.start();
    let status = shop.status();
    let connect = |listener: &str| {
        let stream = TcpStream::connect(status.address(listener)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    talk_while(&shop, connect, everything);
    shop.stop();
}

#[test]
fn every_framing_outlives_everything_over_unix_sockets() {
    let mut site = Site::new();
    site.release("tally-1", &binary::talkers());
    for listener in ["web", "till", "packets", "bytes"] {
        let path = site.path(&format!("{listener}.sock"));
        site.put(&format!("listen.{listener}.address"), format!("unix:{}", path.display()));
    }
    let shop = site.start();
    let connect = |listener: &str| {
        let path = shop.site.path(&format!("{listener}.sock"));
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    };
    talk_while(&shop, connect, everything);
    shop.stop();
}

#[test]
fn every_framing_outlives_workers_that_are_worn_out() {
    for (setting, value, reason) in [
        ("server.max_request", "40", "max_request is reached"),
        ("server.max_lifetime", "1s", "max_lifetime is reached"),
        ("server.max_memory", "12MiB", "max_memory is reached"),
    ] {
        let mut site = Site::new();
        site.release("tally-1", &binary::talkers());
        match value.parse::<i64>() {
            Ok(number) => site.put(setting, number),
            Err(_) => site.put(setting, value),
        }
        let shop = site.start();
        let status = shop.status();
        let connect = |listener: &str| {
            let stream = TcpStream::connect(status.address(listener)).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream
        };
        talk_while(&shop, connect, |shop, talk| {
            for _ in 0..3 {
                let before = shop.site.log().matches(reason).count();
                if setting == "server.max_memory" {
                    let mut client = shop.client();
                    client.get("/leak").unwrap();
                    client.get("/leak").unwrap();
                }
                within(LONG, reason, || {
                    (shop.site.log().matches(reason).count() > before).then_some(())
                });
                talk.wait_more(5);
            }
        });
        shop.stop();
    }
}
