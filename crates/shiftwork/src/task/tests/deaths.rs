//! Task workers that die, and answers that belong to the dead.

use super::*;
use crate::task::TaskError;

/// Sends `task` and returns what the queue then holds.
async fn taken<T: Task>(
    floor: &Floor,
    client: &TaskClient,
    task: T,
) -> (tokio::task::JoinHandle<Result<T::Output, TaskError>>, Taken) {
    let asking = tokio::spawn(client.call(task).into_future());
    settle().await;
    (asking, floor.take())
}

#[test]
fn a_task_whose_task_worker_died_is_answered_so() {
    let floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        let (asking, lost) = taken(&floor, &client, Hold("a".to_owned())).await;
        client.lost(lost.id ^ 1 << 40); // somebody else's
        settle().await;
        assert!(!asking.is_finished());
        client.lost(lost.id);
        assert_eq!(asking.await.unwrap(), Err(TaskError::WorkerDied { name: "hold" }));
        assert_eq!(client.pending(), 0);
        assert!(floor.queue_is_empty(), "it was sent again");
        client.lost(lost.id); // told twice
        assert_eq!(client.pending(), 0);
    });
}

#[test]
fn an_idempotent_task_is_sent_again_but_not_for_ever() {
    let floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        let (asking, first) = taken(&floor, &client, Repeat(7)).await;
        client.lost(first.id);
        let second = floor.take();
        assert_eq!(second.packet, first.packet);
        client.lost(second.id);
        let third = floor.take();
        assert_eq!(third.packet, first.packet);
        assert_eq!(client.pending(), 1);
        client.lost(third.id);
        assert_eq!(asking.await.unwrap(), Err(TaskError::WorkerDied { name: "repeat" }));
        assert!(floor.queue_is_empty());
    });
}

#[test]
fn an_idempotent_task_is_answered_by_its_second_run() {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let (asking, first) = taken(&floor, &client, Repeat(7)).await;
        client.lost(first.id);
        let worker = floor.task_worker(0, &stage);
        assert_eq!(asking.await.unwrap(), Ok(7));
        worker.stop();
    });
}

#[test]
fn sending_again_waits_for_room() {
    let floor = Floor::sized(1, 4096, 1 << 20);
    let (stage, _starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let (asking, first) = taken(&floor, &client, Repeat(7)).await;
        let mut filling = 0;
        while client.call(Add { a: 1, b: 1 }).on_full(crate::task::OnFull::Fail).detach().is_ok() {
            filling += 1;
        }
        client.lost(first.id);
        assert_eq!(client.pending(), filling + 1);
        let worker = floor.task_worker(0, &stage);
        assert_eq!(asking.await.unwrap(), Ok(7));
        client.idle().await;
        worker.stop();
    });
}

#[test]
fn an_answer_sent_before_the_death_counts() {
    let floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        let (asking, taken) = taken(&floor, &client, Hold("a".to_owned())).await;
        // The reader has had no turn when the manager's word arrives.
        floor.answer(0, taken.id, &"a");
        client.lost(taken.id);
        assert_eq!(asking.await.unwrap().unwrap(), "a");
    });
}

/// A loop that is dropped in mid-task, as by SIGKILL: what the manager then finds in the slab is
/// what the worker has to be told.
#[test]
fn the_claim_of_the_dead_leads_to_its_sender() {
    let floor = Floor::new(2);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(1);
        let tasks =
            floor.task_loop(0, handlers(), std::sync::Arc::clone(&stage), LoopOptions::default());
        let dying = tokio::spawn(tasks.run());
        let first = tokio::spawn(client.call(Hold("a".to_owned())).into_future());
        starts.recv().await.unwrap();
        let second = tokio::spawn(client.call(Hold("b".to_owned())).into_future());
        settle().await;
        dying.abort();
        assert!(dying.await.unwrap_err().is_cancelled());

        let (reply, task) = floor.slab.row(0).claim().unwrap();
        assert_eq!(reply, 1);
        client.lost(task);
        assert_eq!(first.await.unwrap(), Err(TaskError::WorkerDied { name: "hold" }));

        // The second waited in the queue all the time, for the successor.
        stage.gate.add_permits(1);
        let successor = floor.task_worker(0, &stage);
        assert_eq!(second.await.unwrap().unwrap(), "b");
        successor.stop();
    });
}

#[test]
fn a_predecessors_answers_are_ignored() {
    let floor = Floor::new(1);
    block_on(async {
        let predecessor = floor.client(0);
        let (asking, old) = taken(&floor, &predecessor, Add { a: 1, b: 1 }).await;
        asking.abort();
        let _ = asking.await;
        drop(predecessor);
        // Between two owners there is at least a fork; here, a tick of the clock will do.
        let tick = shiftwork_sys::clock::monotonic_ms();
        while shiftwork_sys::clock::monotonic_ms() == tick {}

        let client = floor.client(0);
        let (asking, new) = taken(&floor, &client, Add { a: 2, b: 2 }).await;
        assert_ne!(old.id, new.id);
        floor.answer(0, old.id, &2_u64);
        floor.replies[0].0.send_bytes(b"garbage").unwrap();
        settle().await;
        assert!(!asking.is_finished());
        floor.answer(0, new.id, &4_u64);
        assert_eq!(asking.await.unwrap(), Ok(4));
    });
}

#[test]
fn an_answer_that_comes_too_late_is_nobodys() {
    let floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        let call = client.call(Add { a: 1, b: 1 }).timeout(Duration::from_millis(5));
        assert!(matches!(call.await, Err(TaskError::TimedOut { .. })));
        let late = floor.take();
        // Its place in the table is taken by the next.
        let (asking, new) = taken(&floor, &client, Add { a: 2, b: 2 }).await;
        floor.answer(0, late.id, &2_u64);
        floor.answer(0, new.id, &4_u64);
        assert_eq!(asking.await.unwrap(), Ok(4));
    });
}

#[test]
fn when_nobody_is_left_to_answer_tasks_say_so() {
    let mut floor = Floor::new(1);
    block_on(async {
        let client = floor.client(0);
        let asking = tokio::spawn(client.call(Add { a: 1, b: 1 }).into_future());
        settle().await;
        // The task workers' ends close: their server is gone.
        let (sending, _) = floor.replies.remove(0);
        drop(sending);
        assert_eq!(asking.await.unwrap(), Err(TaskError::NoTaskWorkers { name: "add" }));
        let later = client.call(Add { a: 1, b: 1 }).await;
        assert_eq!(later, Err(TaskError::NoTaskWorkers { name: "add" }));
    });
}

#[test]
fn a_sender_that_is_gone_does_not_stop_the_task_worker() {
    let mut floor = Floor::new(2);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let worker = floor.task_worker(0, &stage);
        let gone = floor.client(0);
        gone.call(Hold("a".to_owned())).detach().unwrap();
        starts.recv().await.unwrap();
        drop(gone);
        settle().await;
        drop(floor.replies.remove(0));
        stage.gate.add_permits(1);
        let (sending, receiving) = floor.replies.remove(0);
        floor.replies = vec![Channel::pair().unwrap(), (sending, receiving)];
        let client = floor.client(1);
        assert_eq!(client.call(Add { a: 1, b: 2 }).await, Ok(3));
        worker.stop();
    });
}
