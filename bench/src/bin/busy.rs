//! The load: kept-alive connections, some idle, some asking again as soon as they are answered. Prints
//! what they felt as one line of JSON.
//!
//! `busy ADDRESS BUSY IDLE SECONDS`

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

/// What all connections felt together.
#[derive(Debug, Serialize)]
struct Felt {
    answers: usize,
    /// Requests that got no whole answer with status 200; each ends its connection.
    failed: usize,
    /// Idle connections that still answer at the end.
    idle_alive: usize,
    p50_us: u32,
    p99_us: u32,
    longest_us: u32,
    /// The longest time in which nobody at all was answered.
    silence_us: u64,
}

/// What is noted at each answer.
#[derive(Debug)]
struct Notes {
    times: RefCell<Vec<u32>>,
    failed: Cell<usize>,
    last: Cell<Instant>,
    silence: Cell<Duration>,
}

impl Notes {
    fn answered(&self, began: Instant) {
        let now = Instant::now();
        self.times.borrow_mut().push(u32::try_from((now - began).as_micros()).unwrap_or(u32::MAX));
        self.silence.set(self.silence.get().max(now - self.last.replace(now)));
    }
}

/// Sends a request and reads the answer, which must come in whole packets of one answer each.
async fn ask(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(REQUEST).await?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(whole) = is_whole(&buffer[..filled]) {
            return if whole { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
    }
}

/// None: more is to come. Otherwise whether it is one answer with status 200 and no more.
fn is_whole(answer: &[u8]) -> Option<bool> {
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).unwrap_or_default();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + 4 + length.unwrap_or(0);
    (answer.len() >= end).then(|| text.starts_with("HTTP/1.1 200") && answer.len() == end)
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn run(address: &str, busy: usize, idle: usize, time: Duration) -> io::Result<Felt> {
    let mut buffer = vec![0; 16 * 1024];
    let mut quiet = Vec::new();
    for _ in 0..idle {
        let mut stream = connect(address).await?;
        ask(&mut stream, &mut buffer).await?;
        quiet.push(stream);
    }
    let mut streams = Vec::new();
    for _ in 0..busy {
        streams.push(connect(address).await?);
    }
    let notes = Rc::new(Notes {
        times: RefCell::new(Vec::with_capacity(1 << 22)),
        failed: Cell::new(0),
        last: Cell::new(Instant::now()),
        silence: Cell::new(Duration::ZERO),
    });
    let until = Instant::now() + time;
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let notes = Rc::clone(&notes);
            spawn_local(async move {
                let mut buffer = vec![0; 16 * 1024];
                while Instant::now() < until {
                    let began = Instant::now();
                    match ask(&mut stream, &mut buffer).await {
                        Ok(()) => notes.answered(began),
                        Err(_) => return notes.failed.set(notes.failed.get() + 1),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
    let silence = notes.silence.get().max(until.saturating_duration_since(notes.last.get()));
    let mut idle_alive = 0;
    for mut stream in quiet {
        idle_alive += usize::from(ask(&mut stream, &mut buffer).await.is_ok());
    }
    let mut times = notes.times.take();
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    Ok(Felt {
        answers: times.len(),
        failed: notes.failed.get(),
        idle_alive,
        p50_us: at(0.5),
        p99_us: at(0.99),
        longest_us: at(1.0),
        silence_us: u64::try_from(silence.as_micros()).unwrap_or(u64::MAX),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "busy ADDRESS BUSY IDLE SECONDS";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, busy, idle, seconds] = arguments.as_slice() else { return Err(usage.into()) };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(seconds.parse()?);
    let felt =
        LocalSet::new().block_on(&runtime, run(address, busy.parse()?, idle.parse()?, time))?;
    println!("{}", serde_json::to_string(&felt)?);
    Ok(())
}
