//! Clients and loops in one process, over real sockets and a real slab; each task worker has a
//! thread and a runtime of its own.
#![allow(clippy::unwrap_used)]

mod deaths;
mod drains;
mod load;
mod pending;
mod rounds;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;
use tokio::sync::{Semaphore, mpsc};

use super::{
    ClientOptions, Handlers, LoopOptions, Task, TaskClient, TaskControl, TaskLoop, TaskLoopEnd,
};

/// No test waits longer than this for anything.
const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add {
    a: u64,
    b: u64,
}

impl Task for Add {
    const NAME: &'static str = "add";
    type Output = u64;
}

/// Runs until the gate has a permit for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hold(String);

impl Task for Hold {
    const NAME: &'static str = "hold";
    type Output = String;
}

/// May be run twice.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Repeat(u64);

impl Task for Repeat {
    const NAME: &'static str = "repeat";
    type Output = u64;
    const IDEMPOTENT: bool = true;
}

/// What the handlers share with the test.
struct Stage {
    started: mpsc::UnboundedSender<String>,
    gate: Semaphore,
    runs: AtomicU64,
}

impl Stage {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (started, starts) = mpsc::unbounded_channel();
        (Arc::new(Self { started, gate: Semaphore::new(0), runs: AtomicU64::new(0) }), starts)
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

fn handlers() -> Handlers<Stage> {
    let mut handlers = Handlers::new();
    handlers
        .register(|stage: Arc<Stage>, task: Add| async move {
            stage.runs.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(task.a + task.b)
        })
        .unwrap();
    handlers
        .register(|stage: Arc<Stage>, Hold(label): Hold| async move {
            stage.runs.fetch_add(1, Ordering::SeqCst);
            stage.started.send(label.clone()).unwrap();
            stage.gate.acquire().await.unwrap().forget();
            Ok::<_, String>(label)
        })
        .unwrap();
    handlers
        .register(|_: Arc<Stage>, Repeat(n): Repeat| async move { Ok::<_, String>(n) })
        .unwrap();
    handlers
}

/// A generation's queue, reply sockets and slab.
struct Floor {
    queue_in: Channel,
    queue_out: Channel,
    /// By index: what task workers write, what the owner reads.
    replies: Vec<(Channel, Channel)>,
    slab: Arc<Slab>,
}

impl Floor {
    fn new(clients: usize) -> Self {
        Self::sized(clients, 1 << 20, 1 << 20)
    }

    fn sized(clients: usize, queue: usize, reply: usize) -> Self {
        let (queue_in, queue_out) = Channel::pair_sized(queue).unwrap();
        Self {
            queue_in,
            queue_out,
            replies: (0..clients).map(|_| Channel::pair_sized(reply).unwrap()).collect(),
            slab: Arc::new(Slab::create(8).unwrap()),
        }
    }

    /// Inside a runtime.
    fn client(&self, index: u32) -> TaskClient {
        self.client_with(index, ClientOptions::default())
    }

    fn client_with(&self, index: u32, options: ClientOptions) -> TaskClient {
        let replies = self.replies[index as usize].1.try_clone().unwrap();
        TaskClient::start(self.queue_in.try_clone().unwrap(), replies, index, options).unwrap()
    }

    fn task_loop<S: Send + Sync + 'static>(
        &self,
        row: u32,
        handlers: Handlers<S>,
        state: Arc<S>,
        options: LoopOptions,
    ) -> TaskLoop<S> {
        let queue = self.queue_out.try_clone().unwrap();
        let slab = Arc::clone(&self.slab);
        let mut tasks = TaskLoop::new(queue, slab, row, Arc::new(handlers), state, options);
        for (index, (channel, _)) in self.replies.iter().enumerate() {
            tasks.add_reply(index as u32, channel.try_clone().unwrap());
        }
        tasks
    }

    fn task_worker(&self, row: u32, stage: &Arc<Stage>) -> TaskWorker {
        let options = LoopOptions::default();
        TaskWorker::start(self.task_loop(row, handlers(), Arc::clone(stage), options))
    }

    /// What a task worker would receive next; panics if nothing waits.
    fn take(&self) -> Taken {
        let mut buffer = vec![0; 1 << 17];
        let length = self.queue_out.recv_bytes(&mut buffer).unwrap();
        buffer.truncate(length);
        let id = super::wire::TaskPacket::decode(&buffer).unwrap().id;
        Taken { id, packet: buffer }
    }

    fn queue_is_empty(&self) -> bool {
        !self.queue_is_readable()
    }

    fn queue_is_readable(&self) -> bool {
        shiftwork_sys::wait::is_readable(&self.queue_out)
    }

    /// Answers as a task worker would.
    fn answer<T: Serialize>(&self, index: u32, id: u64, output: &T) {
        let mut packet = Vec::new();
        super::wire::ReplyPacket::begin(&mut packet, super::wire::Status::Done, id);
        super::wire::append(&mut packet, output).unwrap();
        self.replies[index as usize].0.send_bytes(&packet).unwrap();
    }
}

struct Taken {
    id: u64,
    packet: Vec<u8>,
}

/// A loop on a thread with its own runtime.
struct TaskWorker {
    control: TaskControl,
    thread: JoinHandle<TaskLoopEnd>,
}

impl TaskWorker {
    fn start<S: Send + Sync + 'static>(tasks: TaskLoop<S>) -> Self {
        let control = tasks.control();
        let thread = std::thread::spawn(move || runtime().block_on(tasks.run()).unwrap());
        Self { control, thread }
    }

    fn end(self) -> TaskLoopEnd {
        self.thread.join().unwrap()
    }

    fn stop(self) -> TaskLoopEnd {
        self.control.stop_taking();
        self.end()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a test's future, which must not take long.
fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(async { tokio::time::timeout(LONG, future).await }).unwrap()
}

/// Lets everything that is ready in this runtime have its turn.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// Lets this runtime turn until something is true.
async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::task::yield_now().await;
    }
}
