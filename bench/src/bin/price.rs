//! What a request costs beside bare hyper, in nanoseconds, without a network between: one thread, one
//! socket pair a contestant, and a client that asks as soon as it is answered. The contestants take
//! turns of half a millisecond in an order drawn anew each round, so that whatever else the machine does
//! falls on all alike; each round has its own differences, and their median counts.
//!
//! `price [ROUNDS] [CONTESTANT]`; with a contestant's name it runs alone, for a profiler. They are:
//!
//! - `bare`: hyper.
//! - `in-place`: hyper's own connection with a worker's service: counters and latencies, limits, the
//!   peer's address, panics; but on the socket itself, so that it can never leave.
//! - `driven`: the same in Shiftwork's driver and on its socket, as a worker has it.
//!
//! So `driven - in-place` is the price of hand-over, `driven - bare` that of all.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shiftwork::conn::{Protocol, Registry, Stream};
use shiftwork::http::HttpLimits;
use shiftwork_bench::Plain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const TURN: usize = 100;
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:45893\r\n\r\n";

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Bare,
    InPlace,
    Driven,
}

fn serve(contestant: Contestant, stream: UnixStream, registry: &Registry) {
    let open = |stream: &Stream| {
        stream.peer().map(|peer| registry.open(Protocol::Http1, peer, Duration::ZERO))
    };
    let limits = HttpLimits::default();
    let http1 = hyper::server::conn::http1::Builder::new();
    match contestant {
        Contestant::Bare => {
            let service = TowerToHyperService::new(Plain);
            tokio::spawn(http1.serve_connection(TokioIo::new(stream), service));
        }
        Contestant::InPlace => {
            let stream = Stream::Unix(stream);
            let Ok(conn) = open(&stream) else { return };
            tokio::spawn(shiftwork::http::serve_in_place(stream, conn, Plain, limits));
        }
        Contestant::Driven => {
            let stream = Stream::Unix(stream);
            let Ok(conn) = open(&stream) else { return };
            tokio::spawn(shiftwork::http::serve(stream, Bytes::new(), conn, Plain, limits));
        }
    }
}

/// Nanoseconds a request, both sides together.
async fn turn(client: &mut UnixStream) -> std::io::Result<f64> {
    let mut answer = [0; 512];
    let begun = Instant::now();
    for _ in 0..TURN {
        client.write_all(ASK).await?;
        let read = client.read(&mut answer).await?;
        if !answer[..read].ends_with(b"hello\n") {
            return Err(std::io::Error::other("an answer that is none"));
        }
    }
    Ok(begun.elapsed().as_nanos() as f64 / TURN as f64)
}

const CONTESTANTS: [(&str, Contestant); 3] =
    [("bare", Contestant::Bare), ("in-place", Contestant::InPlace), ("driven", Contestant::Driven)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(10_000), |it| it.parse())?;
    let alone = std::env::args().nth(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = runtime.block_on(async {
        let registry = Registry::new();
        let mut clients = Vec::new();
        for (_, contestant) in CONTESTANTS {
            let (client, server) = UnixStream::pair()?;
            serve(contestant, server, &registry);
            clients.push(client);
        }
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut all = Vec::new();
        for _ in 0..rounds {
            let mut order = [0, 1, 2];
            for place in (1..3).rev() {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                order.swap(place, (seed % (place as u64 + 1)) as usize);
            }
            let mut round = [0.0; 3];
            for who in order {
                if alone.as_ref().is_some_and(|name| name != CONTESTANTS[who].0) {
                    continue;
                }
                round[who] = turn(&mut clients[who]).await?;
            }
            all.push(round);
        }
        Ok::<_, std::io::Error>(all)
    })?;
    let show = |what: &str, of: &dyn Fn(&[f64; 3]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: usize| values[values.len() * share / 100];
        println!(
            "{what:<28} {:>7.0} ns  ({:.0} to {:.0}, the middle half)",
            at(50),
            at(25),
            at(75)
        );
    };
    show("bare", &|it| it[0]);
    show("in place", &|it| it[1]);
    show("driven", &|it| it[2]);
    show("all that a worker does", &|it| it[2] - it[0]);
    show("hand-over alone", &|it| it[2] - it[1]);
    Ok(())
}
