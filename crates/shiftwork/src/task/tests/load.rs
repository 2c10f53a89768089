//! Many at once: nothing is lost, nothing is answered twice or to another.

use std::sync::Arc;

use super::*;
use crate::task::OnFull;
use crate::task::wire::{ReplyPacket, Status, TaskPacket, append, read};

const OUTSTANDING: u64 = 256;

/// 256 callers, each with its share of `tasks`; every answer must be its own.
async fn ask(client: TaskClient, tasks: u64) {
    let callers: Vec<_> = (0..OUTSTANDING)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..tasks / OUTSTANDING {
                    let answer = client.call(Add { a: caller << 32, b: n }).await;
                    assert_eq!(answer, Ok((caller << 32) + n));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    client.idle().await;
}

#[test]
fn two_senders_and_two_receivers_lose_nothing() {
    const TASKS: u64 = 64 * OUTSTANDING;
    // Small buffers, so that both sides meet full ones now and then.
    let floor = Arc::new(Floor::sized(2, 64 << 10, 32 << 10));
    let (stage, _starts) = Stage::new();
    let workers = [floor.task_worker(0, &stage), floor.task_worker(1, &stage)];
    let senders: Vec<_> = (0..2)
        .map(|index| {
            let floor = Arc::clone(&floor);
            std::thread::spawn(move || block_on(async { ask(floor.client(index), TASKS).await }))
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    for worker in workers {
        worker.stop();
    }
    assert_eq!(stage.runs(), 2 * TASKS);
    assert_eq!(floor.slab.row(0).counts.tasks() + floor.slab.row(1).counts.tasks(), 2 * TASKS);
}

#[test]
fn a_runtime_of_several_threads_loses_nothing_either() {
    const TASKS: u64 = 32 * OUTSTANDING;
    let floor = Floor::sized(1, 64 << 10, 32 << 10);
    let (stage, _starts) = Stage::new();
    let worker = floor.task_worker(0, &stage);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(LONG, ask(floor.client(0), TASKS)).await })
        .unwrap();
    worker.stop();
    assert_eq!(stage.runs(), TASKS);
}

#[test]
fn a_full_reply_socket_is_waited_for() {
    const TASKS: u64 = 1000;
    let floor = Floor::sized(1, 1 << 20, 4096);
    let (stage, _starts) = Stage::new();
    for n in 0..TASKS {
        let mut packet = Vec::new();
        TaskPacket::begin(&mut packet, 0, 0, u64::MAX, "add");
        TaskPacket::set_id(&mut packet, n);
        append(&mut packet, &Add { a: n, b: 1 }).unwrap();
        floor.queue_in.send_bytes(&packet).unwrap();
    }
    let worker = floor.task_worker(0, &stage);
    let replies = floor.replies[0].1.try_clone().unwrap();
    replies.set_blocking(true).unwrap();
    let mut buffer = [0; 64];
    for n in 0..TASKS {
        let length = replies.recv_bytes(&mut buffer).unwrap();
        let reply = ReplyPacket::decode(&buffer[..length]).unwrap();
        assert_eq!((reply.status, reply.id), (Status::Done, n));
        assert_eq!(read::<u64>(reply.payload), Ok(n + 1));
    }
    worker.stop();
}

/// A worker that died leaves a full reply socket behind: the task worker waits for it once, not
/// once for each of its tasks, and serves it again when a successor reads.
#[test]
fn a_reply_socket_that_nobody_reads_is_waited_for_once() {
    let floor = Floor::sized(2, 1 << 20, 4096);
    let (stage, _starts) = Stage::new();
    let reply_wait = Duration::from_millis(100);
    let options = LoopOptions { reply_wait, ..LoopOptions::default() };
    for id in 0..200 {
        let mut packet = Vec::new();
        TaskPacket::begin(&mut packet, 0, 0, u64::MAX, "add");
        TaskPacket::set_id(&mut packet, id);
        append(&mut packet, &Add { a: 1, b: 1 }).unwrap();
        floor.queue_in.send_bytes(&packet).unwrap();
    }
    let began = std::time::Instant::now();
    let worker = TaskWorker::start(floor.task_loop(0, handlers(), Arc::clone(&stage), options));
    block_on(async {
        assert_eq!(floor.client(1).call(Add { a: 1, b: 2 }).await, Ok(3));
        let took = began.elapsed();
        assert!(took >= reply_wait, "it was not waited for");
        assert!(took < reply_wait * 20, "it was waited for again and again: {took:?}");
        // The successor finds its predecessor's answers first, and ignores them.
        let successor = floor.client(0);
        assert_eq!(successor.call(Add { a: 2, b: 2 }).await, Ok(4));
    });
    assert_eq!(stage.runs(), 202);
    worker.stop();
}

/// More answers at once than the reader delivers in one go, and none after them that would wake it.
#[test]
fn a_heap_of_answers_is_delivered_to_the_last() {
    const TASKS: u64 = 1000;
    let floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        for n in 0..TASKS {
            client.call(Add { a: n, b: 1 }).detach().unwrap();
            let id = floor.take().id;
            floor.answer(0, id, &(n + 1));
        }
        assert_eq!(client.pending() as u64, TASKS);
        client.idle().await;
    });
}

#[test]
fn a_later_task_does_not_overtake_one_that_waits_for_room() {
    let floor = Floor::sized(1, 4096, 1 << 20);
    block_on(async {
        let client = floor.client(0);
        while client.call(Add { a: 0, b: 0 }).on_full(OnFull::Fail).detach().is_ok() {}
        let sent = client.pending();
        client.call(Add { a: 1, b: 0 }).detach().unwrap();
        for _ in 0..sent {
            floor.take();
        }
        // There is room now, and the one before has not been told so yet.
        client.call(Add { a: 2, b: 0 }).detach().unwrap();
        let mut order = Vec::new();
        while order.len() < 2 {
            settle().await;
            while !floor.queue_is_readable() {
                tokio::task::yield_now().await;
            }
            let packet = floor.take().packet;
            let task = TaskPacket::decode(&packet).unwrap();
            order.push(read::<Add>(task.payload).unwrap().a);
        }
        assert_eq!(order, [1, 2]);
    });
}
