//! Task round trips a second: Shiftwork's client and loop beside a bare ping-pong of the same
//! shape, two processes each (one asks, one answers), 64 bytes, 256 outstanding.
//!
//! ```text
//! cargo run --release -p shiftwork-bench --bin tasks -- [--rounds 7] [--seconds 2] [--outstanding 256]
//! ```
//!
//! The contestants take turns within one run, and the ratio is taken within each turn, so that a
//! neighbour who uses the machine spoils a turn and not the comparison.

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
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
    let mut arguments = std::env::args().skip(1);
    while let Some(key) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{key} needs a value"))?;
        match key.as_str() {
            "--rounds" => rounds = value.parse()?,
            "--seconds" => seconds = value.parse()?,
            "--outstanding" => outstanding = value.parse()?,
            _ => return Err(format!("unknown option {key}").into()),
        }
    }
    if rounds == 0
        || outstanding == 0
        || seconds.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater)
    {
        return Err("rounds, seconds and outstanding must be more than 0".into());
    }
    let shape = Shape { time: Duration::from_secs_f64(seconds), outstanding };
    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    println!("{rounds} turns of {seconds} s, {outstanding} outstanding, 64 bytes, 1 + 1 processes");
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

/// What each side has: the queue's end and the answers' end.
struct Ends {
    queue: Channel,
    replies: Channel,
}

/// Forks both sides and returns the round trips a second that the sender counted.
fn race(
    shape: Shape,
    sender: fn(Shape, Ends) -> io::Result<u64>,
    receiver: fn(Ends) -> io::Result<()>,
) -> io::Result<f64> {
    let (queue_in, queue_out) = Channel::pair_sized(BUFFER)?;
    let (reply_in, reply_out) = Channel::pair_sized(BUFFER)?;
    let (result_in, result_out) = Channel::pair()?;
    let mut pids = Vec::new();
    if let Some(pid) = child()? {
        pids.push(pid);
    } else {
        drop((queue_in, reply_out, result_in, result_out));
        finish(receiver(Ends { queue: queue_out, replies: reply_in }));
    }
    if let Some(pid) = child()? {
        pids.push(pid);
    } else {
        drop((queue_out, reply_in, result_out));
        let began = Instant::now();
        finish(sender(shape, Ends { queue: queue_in, replies: reply_out }).and_then(|count| {
            let rate = count as f64 / began.elapsed().as_secs_f64();
            result_in.send_bytes(&rate.to_le_bytes())
        }));
    }
    drop((queue_in, queue_out, reply_in, reply_out, result_in));
    pids.into_iter().for_each(wait_for);
    let mut bytes = [0; 8];
    match result_out.recv_bytes(&mut bytes)? {
        8 => Ok(f64::from_le_bytes(bytes)),
        _ => Err(io::Error::other("a side has failed")),
    }
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

fn bare_sender(shape: Shape, ends: Ends) -> io::Result<u64> {
    ends.queue.set_blocking(true)?;
    ends.replies.set_blocking(true)?;
    let mut buffer = [7; 64];
    for _ in 0..shape.outstanding {
        ends.queue.send_bytes(&buffer)?;
    }
    let began = Instant::now();
    let mut count = 0;
    loop {
        ends.replies.recv_bytes(&mut buffer)?;
        ends.queue.send_bytes(&buffer)?;
        count += 1;
        if count % 1024 == 0 && began.elapsed() > shape.time {
            return Ok(count);
        }
    }
}

fn bare_receiver(ends: Ends) -> io::Result<()> {
    ends.queue.set_blocking(true)?;
    ends.replies.set_blocking(true)?;
    let mut buffer = [0; 128];
    loop {
        let length = ends.queue.recv_bytes(&mut buffer)?;
        // The sender leaves while answers are under way.
        if length == 0 || ends.replies.send_bytes(&buffer[..length]).is_err() {
            return Ok(());
        }
    }
}

fn our_sender(shape: Shape, ends: Ends) -> io::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let client = TaskClient::start(ends.queue, ends.replies, 0, ClientOptions::default())?;
        let count = Rc::new(Cell::new(0));
        let began = Instant::now();
        let asking: Vec<_> = (0..shape.outstanding)
            .map(|_| {
                let (client, count) = (client.clone(), Rc::clone(&count));
                tokio::task::spawn_local(async move {
                    loop {
                        client.call(Ping { bytes: [7; 32] }).await.map_err(io::Error::other)?;
                        count.set(count.get() + 1);
                        if count.get() % 1024 == 0 && began.elapsed() > shape.time {
                            return Ok::<(), io::Error>(());
                        }
                    }
                })
            })
            .collect();
        // The first to see that time is over ends the race for all, as in the bare one.
        let mut asking = asking;
        std::future::poll_fn(|context| {
            asking
                .iter_mut()
                .find_map(|asks| match std::pin::Pin::new(asks).poll(context) {
                    std::task::Poll::Ready(it) => Some(it),
                    std::task::Poll::Pending => None,
                })
                .map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
        .map_err(io::Error::other)??;
        Ok(count.get())
    })
}

fn our_receiver(ends: Ends) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut handlers = Handlers::new();
        handlers
            .register(|_: Arc<()>, ping: Ping| async move { Ok::<_, io::Error>(ping.bytes) })
            .map_err(io::Error::other)?;
        let slab = Arc::new(Slab::create(1)?);
        let mut tasks = TaskLoop::new(
            ends.queue,
            slab,
            0,
            Arc::new(handlers),
            Arc::new(()),
            LoopOptions::default(),
        );
        tasks.add_reply(0, ends.replies);
        tasks.run().await.map(drop)
    })
}
