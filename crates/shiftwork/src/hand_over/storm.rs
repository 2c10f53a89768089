//! The whole of it: connections of every kind pass from worker to worker under load, and every byte
//! of every answer is checked. The workers are loops in one process, the queue and the sockets real.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use shiftwork_sys::socket::Channel;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{NEWEST, Passport, Receiver, Report, Sender, Traveller};
use crate::conn::{Drain, Protocol, Registry, Stream};
use crate::http::{HttpLimits, Outcome, RequestBody, serve};

const BUSY: u64 = 50;
const IDLE: usize = 300;
const ROUNDS: usize = 16;

/// What the worker role will do around the three modules, in the small.
#[derive(Clone)]
struct Worker {
    registry: Registry,
    sender: Sender,
    executed: Arc<AtomicU64>,
    retire: Arc<Notify>,
}

impl Worker {
    fn start(
        (give, take): (&Channel, &Channel),
        listener: Option<Arc<TcpListener>>,
        executed: &Arc<AtomicU64>,
    ) -> (Worker, JoinHandle<Report>) {
        let (sender, sending) = Sender::new(give.try_clone().unwrap(), NEWEST);
        let worker = Worker {
            registry: Registry::new(),
            sender,
            executed: Arc::clone(executed),
            retire: Arc::new(Notify::new()),
        };
        let receiver = Receiver::new(take.try_clone().unwrap()).unwrap();
        tokio::spawn(worker.clone().run(receiver, listener));
        (worker, tokio::spawn(sending.run(pending())))
    }

    async fn run(self, mut receiver: Receiver, listener: Option<Arc<TcpListener>>) {
        let mut sweep = tokio::time::interval(Duration::from_millis(20));
        loop {
            let accept = async {
                match &listener {
                    Some(listener) => listener.accept().await.unwrap().0,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.retire.notified() => break,
                batch = receiver.next() => for adopted in batch.unwrap() {
                    let Passport { unread, idle_for, .. } = adopted.passport;
                    self.serve(adopted.stream, unread, idle_for);
                },
                stream = accept => {
                    self.serve(Stream::accepted_tcp(stream), Bytes::new(), Duration::ZERO);
                }
                _ = sweep.tick() => {
                    self.registry.sweep(std::time::Instant::now(), HttpLimits::default().sweep());
                }
            }
        }
        drop(receiver);
        self.registry.drain_all(Drain::HandOver);
    }

    fn serve(&self, stream: Stream, unread: Bytes, idle_for: Duration) {
        let conn = self.registry.open(Protocol::Http1, stream.peer().unwrap(), idle_for);
        let executed = Arc::clone(&self.executed);
        let service = tower::service_fn(move |it| answer(it, Arc::clone(&executed)));
        let (sender, limits) = (self.sender.clone(), HttpLimits::default());
        tokio::spawn(async move {
            let outcome = serve(stream, unread, conn, service, limits).await;
            let Outcome::HandOver { stream, unread, idle_for } = outcome else { return };
            let passport = Passport {
                protocol: Protocol::Http1,
                listener: "web".into(),
                handler: None,
                unread,
                session: None,
                idle_for,
            };
            sender.send(Traveller { socket: stream.into_fd().unwrap(), passport }).unwrap();
        });
    }
}

async fn answer(
    request: Request<RequestBody>,
    executed: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = match path.starts_with("/echo") {
        true => body.collect().await.unwrap().to_bytes(),
        false => Bytes::new(),
    };
    if path.starts_with("/slow") {
        sleep(Duration::from_millis(3)).await;
    }
    executed.fetch_add(1, Relaxed);
    let size = match path.starts_with("/big") {
        true => 300_000,
        false => 20,
    };
    Ok(Response::new(Full::from(expected(&path, &body, size))))
}

fn expected(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut answer = [path.as_bytes(), b" ", body, b" "].concat();
    while answer.len() < size {
        answer.extend_from_slice(path.as_bytes());
    }
    answer
}

/// Small, repeatable randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    dice: Dice,
    sent: u64,
}

impl Client {
    async fn connect(address: std::net::SocketAddr, seed: u64) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Client { stream: BufReader::new(stream), dice, sent: 0 }
    }

    /// In so many pieces, cut anywhere, with pauses in which a worker may leave.
    async fn send(&mut self, bytes: &[u8], pieces: usize) {
        let mut rest = bytes;
        for left in (1..pieces).rev() {
            let cut = self.dice.roll(rest.len() + 1).min(rest.len().saturating_sub(left));
            let (piece, after) = rest.split_at(cut);
            self.stream.write_all(piece).await.unwrap();
            self.pause().await;
            rest = after;
        }
        self.stream.write_all(rest).await.unwrap();
    }

    async fn pause(&mut self) {
        match self.dice.roll(3) {
            0 => {}
            1 => tokio::task::yield_now().await,
            _ => sleep(Duration::from_millis(self.dice.roll(4) as u64)).await,
        }
    }

    async fn check(&mut self, path: &str, body: &[u8], slowly: bool) {
        let size = if path.starts_with("/big") { 300_000 } else { 20 };
        let (mut length, mut first) = (None, true);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            assert!(!line.is_empty(), "closed while {path} was awaited");
            let line = line.trim_end().to_ascii_lowercase();
            assert!(!first || line == "http/1.1 200 ok", "{path}: {line}");
            first = false;
            assert!(!line.starts_with("connection:"), "{path}: {line}");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = Some(value.parse::<usize>().unwrap());
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length.unwrap()];
        let step = if slowly { 40_000 } else { answer.len() };
        for part in answer.chunks_mut(step) {
            self.stream.read_exact(part).await.unwrap();
            if slowly {
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(answer == expected(path, body, size), "a wrong answer to {path}");
        assert!(self.stream.buffer().is_empty() || body.is_empty(), "more than was asked for");
    }

    async fn get(&mut self, path: &str, pieces: usize) {
        self.sent += 1;
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(), pieces).await;
        self.check(path, b"", path.starts_with("/big")).await;
    }

    /// One of the kinds of use, chosen by `kind`.
    async fn turn(&mut self, kind: u64, number: u64) {
        match kind {
            0 => self.get(&format!("/plain/{number}"), 1).await,
            1 => {
                let paths: Vec<String> = (0..16).map(|i| format!("/pipe/{number}/{i}")).collect();
                let heads = paths.iter().map(|it| format!("GET {it} HTTP/1.1\r\nhost: x\r\n\r\n"));
                let all: String = heads.collect();
                self.sent += 16;
                self.send(all.as_bytes(), 4).await;
                for path in paths {
                    self.check(&path, b"", false).await;
                }
            }
            2 => {
                let body = vec![b'a' + (number % 26) as u8; 1 + self.dice.roll(20_000)];
                let path = format!("/echo/{number}");
                let length = body.len();
                let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}");
                let all = [head.as_bytes(), b"\r\n\r\n", &body].concat();
                self.sent += 1;
                self.send(&all, 4).await;
                self.check(&path, &body, false).await;
            }
            3 => {
                let path = format!("/echo/{number}");
                let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked");
                let body = "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
                self.sent += 1;
                self.send(format!("{head}\r\n\r\n{body}").as_bytes(), 5).await;
                self.check(&path, b"abc0123456789abcdef", false).await;
            }
            4 => self.get(&format!("/slow/{number}"), 3).await,
            5 => self.get(&format!("/plain/{number}"), 3).await,
            _ => self.get(&format!("/big/{number}"), 1).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_pass_from_worker_to_worker_and_nobody_notices() {
    timeout(Duration::from_secs(120), storm()).await.unwrap();
}

async fn storm() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let queue = Channel::pair_sized(1 << 20).unwrap();
    let executed = Arc::new(AtomicU64::new(0));
    let (mut worker, mut report) = Worker::start((&queue.0, &queue.1), Some(listener), &executed);

    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for seed in 0..BUSY {
        let over = Arc::clone(&over);
        clients.spawn(async move {
            let mut client = Client::connect(address, seed + 1).await;
            let mut number = 0;
            while !over.load(Relaxed) {
                client.turn(seed % 7, number).await;
                number += 1;
            }
            client.sent
        });
    }
    let mut connecting = JoinSet::new();
    for seed in 0..IDLE {
        connecting.spawn(async move {
            let mut client = Client::connect(address, 1000 + seed as u64).await;
            client.get("/plain/first", 1).await;
            client
        });
    }
    let mut idle = connecting.join_all().await;

    let mut moved = 0;
    for round in 0..ROUNDS {
        let (next, next_report) = Worker::start((&queue.0, &queue.1), None, &executed);
        worker.retire.notify_one();
        let old = worker.registry.clone();
        // The last sender goes with the last connection.
        worker = next;
        let done = timeout(Duration::from_secs(20), std::mem::replace(&mut report, next_report));
        let done = done.await.unwrap_or_else(|_| panic!("round {round} hangs: {old:?}")).unwrap();
        assert_eq!((done.sent_again, done.left_in_queue, done.lost), (0, 0, 0));
        assert!(old.is_empty() && old.in_hand() == 0);
        moved += done.handed_over;
        // Some of the idle ones ask something now and then.
        for client in idle.iter_mut().skip(round).step_by(IDLE / 5) {
            client.get("/plain/now-and-then", 1).await;
        }
    }
    over.store(true, Relaxed);
    let mut sent = 0;
    while let Some(client) = clients.join_next().await {
        sent += client.unwrap();
    }
    // Without load now: whatever of them is still open answers at once.
    for mut client in idle {
        client.get("/plain/last", 1).await;
        sent += client.sent;
    }
    assert_eq!(moved, ROUNDS * (BUSY as usize + IDLE));
    assert_eq!(executed.load(Relaxed), sent);
    println!("{sent} requests, {moved} connections moved");
}
