//! Round trips, and every way of ending that is nobody's death.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::*;
use crate::task::{DuplicateTask, OnFull, TaskError};

macro_rules! task {
    ($type:ident($inner:ty) -> $output:ty, $name:literal) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        struct $type($inner);
        impl Task for $type {
            const NAME: &'static str = $name;
            type Output = $output;
        }
    };
}

task!(Fails(()) -> (), "fails");
task!(Panics(bool) -> (), "panics");
task!(PanicsEarly(bool) -> (), "panics_early");
task!(PanicsInDrop(()) -> (), "panics_in_drop");
task!(Nobodys(()) -> (), "nobodys");
task!(Bytes(Vec<u8>) -> u64, "bytes");
task!(Many(usize) -> Vec<u8>, "many");
// Another release's idea of `add`.
task!(AddOfOld((u8,)) -> u64, "add");
task!(AddOfNew((u64, u64)) -> (u64, u64, u64), "add");

#[derive(Debug, thiserror::Error)]
#[error("no stamp")]
struct NoStamp(#[source] std::num::ParseIntError);

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn all_handlers() -> Handlers<Stage> {
    let mut all = handlers();
    all.register(|_, _: Fails| async { Err::<(), _>(NoStamp("x".parse::<u8>().unwrap_err())) })
        .unwrap();
    all.register(|_, task: Panics| async move {
        tokio::task::yield_now().await;
        if task.0 {
            panic!("at {}", 3);
        }
        Ok::<(), String>(())
    })
    .unwrap();
    all.register(|_, task: PanicsEarly| {
        assert!(!task.0, "before the first await");
        async { Ok::<(), String>(()) }
    })
    .unwrap();
    all.register(|_, _: PanicsInDrop| async {
        let _late = PanicsWhenDropped;
        Ok::<(), String>(())
    })
    .unwrap();
    all.register(|_, task: Bytes| async move { Ok::<_, String>(task.0.len() as u64) }).unwrap();
    all.register(|_, task: Many| async move { Ok::<_, String>(vec![7; task.0]) }).unwrap();
    all
}

/// A client and a task worker that knows all of the above.
fn with_all<F: Future>(test: impl FnOnce(TaskClient) -> F) -> F::Output {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    let worker =
        TaskWorker::start(floor.task_loop(0, all_handlers(), stage, LoopOptions::default()));
    let output = block_on(async { test(floor.client(0)).await });
    assert_eq!(worker.stop(), TaskLoopEnd::Stopped);
    output
}

#[test]
fn a_task_is_answered() {
    with_all(|client| async move {
        assert_eq!(client.call(Add { a: 2, b: 3 }).await, Ok(5));
        assert_eq!(client.call(Bytes(vec![1; 1000])).await, Ok(1000));
        assert_eq!(client.call(Many(40_000)).await, Ok(vec![7; 40_000]));
        assert_eq!(client.call(Repeat(8)).await, Ok(8));
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn every_failure_has_its_own_error_and_the_task_worker_goes_on() {
    with_all(|client| async move {
        let name = "fails";
        let message = "no stamp: invalid digit found in string".to_owned();
        assert_eq!(client.call(Fails(())).await, Err(TaskError::Failed { name, message }));

        for (answer, name, message) in [
            (client.call(Panics(true)).await, "panics", "at 3"),
            (client.call(PanicsEarly(true)).await, "panics_early", "before the first await"),
            (client.call(PanicsInDrop(())).await, "panics_in_drop", "dropped"),
        ] {
            let message = message.to_owned();
            assert_eq!(answer, Err(TaskError::Panicked { name, message }));
        }

        let unknown = client.call(Nobodys(())).await;
        assert_eq!(unknown, Err(TaskError::Unknown { name: "nobodys" }));

        let unreadable = client.call(AddOfOld((1,))).await.unwrap_err();
        assert!(matches!(&unreadable, TaskError::Unreadable { name: "add", .. }), "{unreadable}");

        let output = client.call(AddOfNew((1, 2))).await.unwrap_err();
        assert!(matches!(&output, TaskError::OutputUnreadable { name: "add", .. }), "{output}");

        assert_eq!(client.call(Add { a: 2, b: 3 }).await, Ok(5));
    });
}

#[test]
fn sizes_over_the_limit_are_refused_by_name_and_size_on_both_sides() {
    with_all(|client| async move {
        let limit = crate::task::DEFAULT_MAX_SIZE;
        // Two or three bytes are the length of the sequence.
        assert_eq!(client.call(Bytes(vec![0; limit - 3])).await, Ok(limit as u64 - 3));
        let error = client.call(Bytes(vec![0; limit])).await.unwrap_err();
        assert_eq!(error, TaskError::TooLarge { name: "bytes", size: limit + 3, limit });
        assert_eq!(error.to_string(), "task `bytes`: 65539 bytes are over the limit of 65536");

        assert_eq!(client.call(Many(limit - 3)).await.unwrap().len(), limit - 3);
        let error = client.call(Many(limit)).await.unwrap_err();
        assert_eq!(error, TaskError::OutputTooLarge { name: "many", size: limit + 3, limit });
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn a_limit_that_the_socket_cannot_hold_is_too_large_as_well() {
    let floor = Floor::sized(1, 4096, 4096);
    let (stage, _starts) = Stage::new();
    let max_size = 1 << 20;
    let options = LoopOptions { max_size, ..LoopOptions::default() };
    let worker = TaskWorker::start(floor.task_loop(0, all_handlers(), stage, options));
    block_on(async {
        let options = ClientOptions { max_size, ..ClientOptions::default() };
        let client = floor.client_with(0, options);
        let size = (1 << 19) + 3;
        let error = client.call(Bytes(vec![0; 1 << 19])).await.unwrap_err();
        assert_eq!(error, TaskError::TooLarge { name: "bytes", size, limit: size - 1 });
        let error = client.call(Many(1 << 19)).await.unwrap_err();
        assert_eq!(error, TaskError::OutputTooLarge { name: "many", size, limit: size - 1 });
        assert_eq!(client.pending(), 0);
    });
    worker.stop();
}

#[test]
fn two_handlers_for_one_name_are_an_error() {
    let mut handlers = all_handlers();
    let again = handlers.register(|_, _: AddOfOld| async { Ok::<u64, String>(1) });
    assert_eq!(again, Err(DuplicateTask { name: "add" }));
}

#[test]
fn without_task_workers_every_task_says_so() {
    block_on(async {
        let client = TaskClient::without_task_workers();
        let error = client.call(Add { a: 1, b: 1 }).await.unwrap_err();
        assert_eq!(error, TaskError::NoTaskWorkers { name: "add" });
        assert_eq!(client.pending(), 0);
        client.idle().await;
    });
}

#[test]
fn an_unanswered_task_times_out_and_is_not_run_afterwards() {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        // A later deadline first, so that the sweeper has to be told of the sooner one.
        let late = client.call(Add { a: 1, b: 1 });
        let late = tokio::spawn(late.into_future());
        settle().await;
        let after = Duration::from_millis(20);
        let error = client.call(Add { a: 1, b: 2 }).timeout(after).await.unwrap_err();
        assert_eq!(error, TaskError::TimedOut { name: "add", after });
        assert_eq!(client.pending(), 1);

        let for_ever = client.call(Add { a: 1, b: 3 }).timeout(Duration::ZERO);
        let for_ever = tokio::spawn(for_ever.into_future());
        settle().await;
        let worker = floor.task_worker(0, &stage);
        assert_eq!(late.await.unwrap(), Ok(2));
        assert_eq!(for_ever.await.unwrap(), Ok(4));
        worker.control.finish_queue();
        assert_eq!(worker.end(), TaskLoopEnd::QueueEmpty);
        assert_eq!(stage.runs(), 2, "the one that nobody waited for was run");
        let sums = floor.slab.row(0).counts.read();
        // That one failed: nobody got its answer.
        assert_eq!((sums.tasks, sums.tasks_failed, sums.task_latency.count()), (3, 1, 3));
    });
}

#[test]
fn a_full_queue_fails_at_once_or_waits_as_chosen() {
    let floor = Floor::sized(1, 4096, 1 << 20);
    let (stage, _starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let sum = Arc::new(AtomicU64::new(0));
        let mut waiting = Vec::new();
        for n in 0..500 {
            let (call, sum) = (client.call(Add { a: n, b: 0 }), Arc::clone(&sum));
            waiting.push(tokio::spawn(async move {
                sum.fetch_add(call.await.unwrap(), Ordering::SeqCst);
            }));
        }
        until(|| client.pending() == 500).await;
        let error = client.call(Add { a: 0, b: 0 }).on_full(OnFull::Fail).await.unwrap_err();
        assert_eq!(error, TaskError::QueueFull { name: "add" });
        assert_eq!(client.pending(), 500);

        // One that waits for room and is dropped has never been in hand.
        let mut unsent = client.call(Add { a: 10_000, b: 0 }).into_future();
        let _ = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut unsent).poll(context))
        })
        .await;
        assert_eq!(client.pending(), 501);
        drop(unsent);
        assert_eq!(client.pending(), 500);

        let worker = floor.task_worker(0, &stage);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(sum.load(Ordering::SeqCst), 499 * 500 / 2);
        assert_eq!(stage.runs(), 500);
        worker.stop();
    });
}

#[test]
fn full_and_told_to_fail_with_nobody_waiting_yet() {
    let floor = Floor::sized(1, 4096, 1 << 20);
    block_on(async {
        let client = floor.client(0);
        let sent = (0..500)
            .map(|n| client.call(Add { a: n, b: 0 }).on_full(OnFull::Fail).detach())
            .take_while(Result::is_ok)
            .count();
        assert!(sent > 0 && sent < 500, "{sent}");
        assert_eq!(client.pending(), sent, "a refused task is not in hand");
    });
}

#[test]
fn a_dropped_future_leaves_its_task_in_hand() {
    let floor = Floor::new(1);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let worker = floor.task_worker(0, &stage);
        let asking = tokio::spawn(client.call(Hold("a".to_owned())).into_future());
        assert_eq!(starts.recv().await.unwrap(), "a");
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());

        assert_eq!(client.pending(), 1);
        let in_hand = client.in_hand();
        assert_eq!(in_hand.len(), 1);
        assert_eq!(in_hand[0].name, "hold");

        let idle = tokio::spawn({
            let client = client.clone();
            async move { client.idle().await }
        });
        settle().await;
        assert!(!idle.is_finished(), "idle with a task in hand");
        stage.gate.add_permits(1);
        idle.await.unwrap();
        assert_eq!(client.pending(), 0);
        worker.stop();
    });
}

#[test]
fn a_detached_task_runs_and_is_in_hand_until_answered() {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        client.call(Add { a: 1, b: 2 }).detach().unwrap();
        assert_eq!(client.pending(), 1);
        let worker = floor.task_worker(0, &stage);
        client.idle().await;
        assert_eq!(stage.runs(), 1);
        worker.stop();
    });
}

#[test]
fn the_slab_shows_what_runs_and_counts_what_was_done() {
    let floor = Floor::new(2);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(1);
        let worker = floor.task_worker(3, &stage);
        let asking = tokio::spawn(client.call(Hold("a".to_owned())).into_future());
        starts.recv().await.unwrap();
        let row = floor.slab.row(3);
        assert_eq!(row.claim().unwrap().0, 1, "claimed for the owner of reply socket 1");
        assert_eq!((row.in_flight(), row.counts.tasks()), (1, 0));
        assert!(row.oldest_ms() > 0);
        stage.gate.add_permits(1);
        assert_eq!(asking.await.unwrap().unwrap(), "a");
        worker.stop();
        assert_eq!(row.claim(), None);
        assert_eq!((row.in_flight(), row.counts.tasks(), row.oldest_ms()), (0, 1, 0));
    });
}
