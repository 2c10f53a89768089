//! Task round trips a second: Shiftwork's client and loop beside a bare ping-pong of the same
//! shape: as many processes that ask and that answer, 64 bytes, 256 outstanding for each that asks.
//!
//! ```text
//! cargo run --release -p shiftwork-bench --bin tasks -- [--rounds 7] [--seconds 2] [--outstanding 256] \
//!     [--senders 1] [--receivers 1]
//! ```
//!
//! The contestants take turns within one run, and the ratio is taken within each turn, so that a
//! neighbour who uses the machine spoils a turn and not the comparison.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shiftwork::task::{ClientOptions, Handlers, LoopOptions, Task, TaskClient, TaskLoop};
use shiftwork_sys::process::{Forked, exit_now, fork, wait_for};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;

/// Room for the queue and for the answers, in bytes: as the server asks for.
const BUFFER: usize = 1 << 20;

/// With head and name, the packet of this task is 64 bytes long.
#[derive(Serialize, Deserialize)]
struct Ping {
    bytes: [u8; 32],
}

impl Task for Ping {
    const NAME: &'static str = "pingpong";
    type Output = [u8; 32];
}

#[derive(Clone, Copy)]
struct Shape {
    time: Duration,
    outstanding: usize,
    senders: usize,
    receivers: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tasks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (mut rounds, mut seconds, mut outstanding) = (7_usize, 2.0_f64, 256_usize);
    let (mut senders, mut receivers) = (1_usize, 1_usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(key) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{key} needs a value"))?;
        match key.as_str() {
            "--rounds" => rounds = value.parse()?,
            "--seconds" => seconds = value.parse()?,
            "--outstanding" => outstanding = value.parse()?,
            "--senders" => senders = value.parse()?,
            "--receivers" => receivers = value.parse()?,
            _ => return Err(format!("unknown option {key}").into()),
        }
    }
    if rounds == 0 || outstanding == 0 || senders == 0 || senders > 255 || receivers == 0 {
        return Err(
            "rounds, outstanding, senders (to 255) and receivers must be more than 0".into()
        );
    }
    let time = Duration::try_from_secs_f64(seconds)?;
    let shape = Shape { time, outstanding, senders, receivers };
    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    println!(
        "{rounds} turns of {seconds} s, {outstanding} outstanding, 64 bytes, {senders} + {receivers} processes"
    );
    println!("turn      bare/s      ours/s   ratio");
    for turn in 1..=rounds {
        let b = race(shape, bare_sender, bare_receiver)?;
        let o = race(shape, our_sender, our_receiver)?;
        println!("{turn:>4} {b:>11.0} {o:>11.0}   {:.2}", o / b);
        bare.push(b);
        ours.push(o);
        ratios.push(o / b);
    }
    for (name, values) in [("bare", &mut bare), ("ours", &mut ours)] {
        let (low, median, high) = spread(values);
        println!("{name}: median {median:.0}/s ({low:.0} to {high:.0})");
    }
    let (low, median, high) = spread(&mut ratios);
    println!("ratio: median {median:.2} ({low:.2} to {high:.2}); the goal is 0.60");
    Ok(())
}

fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// What one that asks has.
struct Asker {
    index: u8,
    queue: Channel,
    replies: Channel,
}

/// What one that answers has.
struct Answerer {
    queue: Channel,
    replies: Vec<Channel>,
}

/// Forks both sides and returns the round trips a second that the senders counted.
fn race(
    shape: Shape,
    sender: fn(Shape, Asker) -> io::Result<u64>,
    receiver: fn(Answerer) -> io::Result<()>,
) -> io::Result<f64> {
    let (queue_in, queue_out) = Channel::pair_sized(BUFFER)?;
    let (result_in, result_out) = Channel::pair()?;
    let (mut writing, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..shape.senders {
        let (reads, writes) = Channel::pair_sized(BUFFER)?;
        writing.push(writes);
        reading.push(reads);
    }
    let mut pids = Vec::new();
    for _ in 0..shape.receivers {
        match child()? {
            Some(pid) => pids.push(pid),
            None => {
                drop((queue_in, reading, result_in, result_out));
                finish(receiver(Answerer { queue: queue_out, replies: writing }));
            }
        }
    }
    for index in 0..shape.senders {
        match child()? {
            Some(pid) => pids.push(pid),
            None => {
                drop((queue_out, writing, result_out));
                let replies = reading.swap_remove(index);
                drop(reading);
                let asker = Asker { index: index as u8, queue: queue_in, replies };
                let began = Instant::now();
                finish(sender(shape, asker).and_then(|count| {
                    let rate = count as f64 / began.elapsed().as_secs_f64();
                    result_in.send_bytes(&rate.to_le_bytes())
                }));
            }
        }
    }
    drop((queue_in, queue_out, reading, writing, result_in));
    for pid in pids {
        let _ = wait_for(pid);
    }
    let mut sum = 0.0;
    for _ in 0..shape.senders {
        let mut bytes = [0; 8];
        match result_out.recv_bytes(&mut bytes)? {
            8 => sum += f64::from_le_bytes(bytes),
            _ => return Err(io::Error::other("a side has failed")),
        }
    }
    Ok(sum)
}

fn child() -> io::Result<Option<i32>> {
    Ok(match fork()? {
        Forked::Parent(pid) => Some(pid),
        Forked::Child => None,
    })
}

fn finish(result: io::Result<()>) -> ! {
    if let Err(error) = &result {
        eprintln!("tasks: {error}");
    }
    exit_now(i32::from(result.is_err()))
}

fn bare_sender(shape: Shape, asker: Asker) -> io::Result<u64> {
    asker.queue.set_blocking(true)?;
    asker.replies.set_blocking(true)?;
    let mut buffer = [asker.index; 64];
    for _ in 0..shape.outstanding {
        asker.queue.send_bytes(&buffer)?;
    }
    let began = Instant::now();
    let mut count = 0;
    loop {
        asker.replies.recv_bytes(&mut buffer)?;
        asker.queue.send_bytes(&buffer)?;
        count += 1;
        if count % 1024 == 0 && began.elapsed() > shape.time {
            return Ok(count);
        }
    }
}

fn bare_receiver(answerer: Answerer) -> io::Result<()> {
    answerer.queue.set_blocking(true)?;
    for replies in &answerer.replies {
        replies.set_blocking(true)?;
    }
    let mut buffer = [0; 128];
    loop {
        let length = answerer.queue.recv_bytes(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(replies) = answerer.replies.get(usize::from(buffer[0])) {
            // A sender leaves while answers are under way.
            let _ = replies.send_bytes(&buffer[..length]);
        }
    }
}

fn our_sender(shape: Shape, asker: Asker) -> io::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = ClientOptions::default();
    let index = u32::from(asker.index);
    runtime.block_on(async move {
        let client = TaskClient::start(asker.queue, asker.replies, index, options)?;
        let count = Arc::new(AtomicU64::new(0));
        // The first to see that time is over ends the race for all, as in the bare one.
        let (over, mut end) = tokio::sync::mpsc::channel(1);
        let began = Instant::now();
        for _ in 0..shape.outstanding {
            let (client, count, over) = (client.clone(), Arc::clone(&count), over.clone());
            tokio::spawn(async move {
                let outcome = loop {
                    match client.call(Ping { bytes: [7; 32] }).await {
                        Ok(_) => {}
                        Err(error) => break Err(io::Error::other(error)),
                    }
                    // One thread: a plain load and store count right.
                    let done = count.load(Ordering::Relaxed) + 1;
                    count.store(done, Ordering::Relaxed);
                    if done % 1024 == 0 && began.elapsed() > shape.time {
                        break Ok(());
                    }
                };
                let _ = over.try_send(outcome);
            });
        }
        drop(over);
        end.recv().await.unwrap_or(Ok(()))?;
        Ok(count.load(Ordering::Relaxed))
    })
}

fn our_receiver(answerer: Answerer) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut handlers = Handlers::new();
        handlers
            .register(|_: Arc<()>, ping: Ping| async move { Ok::<_, io::Error>(ping.bytes) })
            .map_err(io::Error::other)?;
        let slab = Arc::new(Slab::create(1)?);
        let mut tasks = TaskLoop::new(
            answerer.queue,
            slab,
            0,
            Arc::new(handlers),
            Arc::new(()),
            LoopOptions::default(),
        );
        for (index, replies) in answerer.replies.into_iter().enumerate() {
            tasks.add_reply(index as u32, replies);
        }
        tasks.run().await.map(drop)
    })
}
