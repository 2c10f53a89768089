//! The queue between two workers, with adopters that die and queues that are full.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::{Channel, Received};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::sender::Queue;
use super::{Adopted, NEWEST, Passport, Receiver, Report, Sender, Traveller};
use crate::conn::{Counters, Protocol, Stream};

fn passport(number: usize) -> Passport {
    Passport {
        protocol: Protocol::Http1,
        listener: "web".into(),
        handler: None,
        unread: Bytes::from(format!("number {number}")),
        session: None,
        idle_for: Duration::from_millis(number as u64),
    }
}

/// A connection's client, and its other half ready to leave.
fn traveller(number: usize) -> (UnixStream, Traveller) {
    let (client, server) = UnixStream::pair().unwrap();
    let socket = OwnedFd::from(server.into_std().unwrap());
    (client, Traveller { socket, passport: passport(number) })
}

async fn adopt(receiver: &mut Receiver) -> Vec<Adopted> {
    timeout(Duration::from_secs(10), receiver.next()).await.unwrap().unwrap()
}

/// Takes a packet as an adopter would, and does nothing with it.
async fn take(queue: &Channel) -> Received {
    let mut buffer = [0; 1024];
    loop {
        match queue.recv(&mut buffer) {
            Ok(packet) => return packet,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The client's bytes arrive at the adopter, and the other way round.
async fn check(mut client: UnixStream, adopted: Adopted) {
    let mut stream = adopted.stream;
    client.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
    stream.write_all(b"pong").await.unwrap();
    client.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"pong");
}

#[tokio::test]
async fn connections_arrive_in_order_with_what_travels() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    let slab = Arc::new(Slab::create(1).unwrap());
    let counters = Arc::new(Counters::shown(Arc::clone(&slab), 0));
    let (sender, task) = Sender::counting(one, NEWEST, counters);
    let task = tokio::spawn(task.run(pending()));
    let mut clients = VecDeque::new();
    for number in 0..100 {
        let (client, traveller) = traveller(number);
        sender.send(traveller).unwrap();
        clients.push_back((number, client));
    }
    while !clients.is_empty() {
        for adopted in adopt(&mut receiver).await {
            let (number, client) = clients.pop_front().unwrap();
            assert_eq!(adopted.passport, passport(number));
            check(client, adopted).await;
        }
    }
    drop(sender);
    let report = timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(report, Report { handed_over: 100, ..Report::default() });
    assert_eq!(slab.row(0).counts.handed_over(), 100);
}

#[tokio::test]
async fn an_adopter_that_dies_before_it_acknowledges_costs_nothing() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let (client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    // An adopter that takes the packet and is killed.
    assert_eq!(take(&two).await.fds.len(), 2);
    let mut receiver = Receiver::new(two).unwrap();
    let adopted = adopt(&mut receiver).await.pop().unwrap();
    check(client, adopted).await;
    drop(sender);
    let report = timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(report, Report { handed_over: 1, sent_again: 1, ..Report::default() });
}

#[tokio::test]
async fn the_sender_lets_go_only_when_all_is_acknowledged() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let mut task = tokio::spawn(task.run(pending()));
    let (mut client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    let waiting = sender.clone();
    drop(sender);
    assert_eq!(waiting.waiting(), 1);
    let packet = take(&two).await;
    // The adopter closes the socket without a word; the client must not notice.
    let mut fds = packet.fds;
    drop(fds.pop());
    let mut byte = [0];
    let read = timeout(Duration::from_millis(50), client.read(&mut byte)).await;
    assert!(read.is_err(), "the client saw {read:?}");
    assert!(timeout(Duration::from_millis(1), &mut task).await.is_err());
    assert_eq!(waiting.waiting(), 1);
}

#[tokio::test]
async fn a_deadline_leaves_in_the_queue_what_is_there() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(task.run(async move { drop(stopped.await) }));
    let (client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    let report = timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(report, Report { left_in_queue: 1, ..Report::default() });
    let mut receiver = Receiver::new(two).unwrap();
    check(client, adopt(&mut receiver).await.pop().unwrap()).await;
}

/// Refuses with these errors first.
struct Refusing(Channel, Arc<Mutex<VecDeque<i32>>>);

impl Queue for Refusing {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self.1.lock().unwrap().pop_front() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.0.send(bytes, fds),
        }
    }
}

#[tokio::test]
async fn a_queue_that_takes_nothing_is_asked_again() {
    const EAGAIN: i32 = 11;
    const EMFILE: i32 = 24;
    const ETOOMANYREFS: i32 = 109;
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    let errors = Arc::new(Mutex::new(VecDeque::from([EAGAIN, ETOOMANYREFS, EMFILE, EAGAIN])));
    let (sender, task) = Sender::over(Box::new(Refusing(one, Arc::clone(&errors))), NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let (client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    drop(sender);
    check(client, adopt(&mut receiver).await.pop().unwrap()).await;
    let report = timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(report.handed_over, 1);
    assert!(errors.lock().unwrap().is_empty());
}

/// In a process of its own, whose descriptors it uses up.
#[test]
fn a_worker_without_descriptors_gets_rid_of_its_connections() {
    let inner = "hand_over::tests::without_descriptors";
    let tests = std::env::current_exe().unwrap();
    let run = std::process::Command::new(tests).args(["--exact", inner, "--ignored"]).output();
    let run = run.unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "uses up the descriptors of its process"]
async fn without_descriptors() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let mut clients = VecDeque::new();
    for number in 0..40 {
        let (client, traveller) = traveller(number);
        clients.push_back((client, traveller));
    }
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let mut kept = Vec::new();
    for (client, traveller) in clients {
        sender.send(traveller).unwrap();
        kept.push(client);
    }
    drop(sender);
    timeout(Duration::from_secs(10), receiver.something()).await.expect("a packet").unwrap();
    // Another process would have room for it; here both sides share the lack.
    held.clear();
    let mut adopted = Vec::new();
    while adopted.len() < kept.len() {
        adopted.extend(adopt(&mut receiver).await);
    }
    for (client, adopted) in kept.into_iter().zip(adopted) {
        check(client, adopted).await;
    }
    assert_eq!(task.await.unwrap().handed_over, 40);
}

#[tokio::test]
async fn a_queue_that_is_really_full_loses_nothing() {
    // The smallest there is: a few packets at most.
    let (one, two) = Channel::pair_sized(1).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let mut clients = Vec::new();
    for number in 0..300 {
        let (client, mut traveller) = traveller(number);
        traveller.passport.unread = Bytes::from(vec![b'u'; 200]);
        sender.send(traveller).unwrap();
        clients.push(client);
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let mut receiver = Receiver::new(two).unwrap();
    let mut adopted = Vec::new();
    while adopted.len() < clients.len() {
        adopted.extend(adopt(&mut receiver).await);
    }
    drop(sender);
    for (client, adopted) in clients.into_iter().zip(adopted) {
        check(client, adopted).await;
    }
    assert_eq!(task.await.unwrap().handed_over, 300);
}

#[tokio::test]
async fn a_passport_longer_than_a_packet_travels_too() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let mut clients = Vec::new();
    for size in [10, 3_000_000, 64 * 1024, 20] {
        let (client, mut traveller) = traveller(1);
        traveller.passport.session = Some(Bytes::from(vec![7; size]));
        sender.send(traveller).unwrap();
        clients.push((client, size));
    }
    drop(sender);
    let mut adopted = Vec::new();
    while adopted.len() < 4 {
        adopted.extend(adopt(&mut receiver).await);
    }
    for ((client, size), adopted) in clients.into_iter().zip(adopted) {
        assert_eq!(adopted.passport.session.as_ref().unwrap().len(), size);
        check(client, adopted).await;
    }
    assert_eq!(task.await.unwrap().handed_over, 4);
}

#[tokio::test]
async fn what_is_not_awaited_is_not_taken() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut draining = Receiver::new(two.try_clone().unwrap()).unwrap();
    let mut serving = Receiver::new(two).unwrap();
    {
        // A worker that waits, and begins to drain.
        let mut next = Box::pin(draining.next());
        assert!(timeout(Duration::from_millis(1), &mut next).await.is_err());
    }
    let (sender, task) = Sender::new(one, NEWEST);
    let task = tokio::spawn(task.run(pending()));
    let (client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    drop(sender);
    check(client, adopt(&mut serving).await.pop().unwrap()).await;
    assert_eq!(task.await.unwrap().handed_over, 1);
}

#[tokio::test]
async fn a_worker_that_drains_leaves_even_what_waits() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let (sender, task) = Sender::new(one, NEWEST);
    let (client, traveller) = traveller(1);
    sender.send(traveller).unwrap();
    drop(sender);
    let task = tokio::spawn(task.run(pending()));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let draining = Receiver::new(two.try_clone().unwrap()).unwrap();
    draining.run(async {}, |_| panic!("taken by the worker that drains")).await.unwrap();
    let mut serving = Receiver::new(two).unwrap();
    check(client, adopt(&mut serving).await.pop().unwrap()).await;
    assert_eq!(task.await.unwrap().handed_over, 1);
}

#[tokio::test]
async fn the_end_of_the_queue_is_an_error_and_the_sender_does_not_hang() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    drop(one);
    assert_eq!(receiver.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    drop(two);
    let (sender, task) = Sender::new(one, NEWEST);
    sender.send(traveller(1).1).unwrap();
    let report = timeout(Duration::from_secs(10), task.run(pending())).await.unwrap();
    assert_eq!(report, Report { lost: 1, ..Report::default() });
}

#[tokio::test]
async fn a_packet_of_garbage_is_closed_and_not_sent_for_ever() {
    let (one, two) = Channel::pair_sized(1 << 20).unwrap();
    let mut receiver = Receiver::new(two).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let (mut client, traveller) = traveller(1);
    use std::os::fd::AsFd;
    one.send(b"\xffgarbage", &[writer.as_fd(), traveller.socket.as_fd()]).unwrap();
    drop((writer, traveller));
    assert!(adopt(&mut receiver).await.is_empty());
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let mut acks = Vec::new();
    io::Read::read_to_end(&mut &reader, &mut acks).unwrap();
    assert_eq!(acks, [0]);
}

#[tokio::test]
async fn both_families_are_recognised() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    drop(client);
    let socket = Stream::from(server).into_fd().unwrap();
    assert!(matches!(Stream::adopt(socket), Ok(Stream::Tcp(_))));
    let (_client, traveller) = traveller(1);
    assert!(matches!(Stream::adopt(traveller.socket), Ok(Stream::Unix(_))));
    let (one, _two) = io::pipe().unwrap();
    assert!(Stream::adopt(one.into()).is_err());
}
