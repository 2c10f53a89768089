//! Ends of loops and clients that were asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::task::{OnFull, TaskError, TaskLoopMode};

type Asking = tokio::task::JoinHandle<Result<String, TaskError>>;

/// One task that runs, and three that wait behind it.
async fn one_runs_three_wait(
    client: &TaskClient,
    starts: &mut mpsc::UnboundedReceiver<String>,
) -> Vec<Asking> {
    let mut asking = Vec::new();
    for label in ["a", "b", "c", "d"] {
        asking.push(tokio::spawn(client.call(Hold(label.to_owned())).into_future()));
        settle().await;
    }
    assert_eq!(starts.recv().await.unwrap(), "a");
    asking
}

async fn answers(asking: Vec<Asking>) -> Vec<Result<String, TaskError>> {
    let mut answers = Vec::new();
    for one in asking {
        answers.push(one.await.unwrap());
    }
    answers
}

#[test]
fn stop_taking_finishes_the_running_one_and_leaves_the_rest() {
    let floor = Floor::new(1);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let worker = floor.task_worker(0, &stage);
        let mut asking = one_runs_three_wait(&client, &mut starts).await;
        worker.control.stop_taking();
        stage.gate.add_permits(4);
        assert_eq!(worker.end(), TaskLoopEnd::Stopped);
        assert_eq!(asking.remove(0).await.unwrap().unwrap(), "a");
        assert_eq!(stage.runs(), 1, "it took another");
        assert_eq!(client.pending(), 3);

        let successor = floor.task_worker(1, &stage);
        assert_eq!(answers(asking).await, ["b", "c", "d"].map(|it| Ok(it.to_owned())));
        successor.stop();
    });
}

#[test]
fn finish_queue_runs_what_waits() {
    let floor = Floor::new(1);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let worker = floor.task_worker(0, &stage);
        let asking = one_runs_three_wait(&client, &mut starts).await;
        worker.control.finish_queue();
        stage.gate.add_permits(4);
        assert_eq!(worker.end(), TaskLoopEnd::QueueEmpty);
        assert_eq!(answers(asking).await, ["a", "b", "c", "d"].map(|it| Ok(it.to_owned())));
        assert_eq!(floor.slab.row(0).counts.tasks(), 4);
    });
}

#[test]
fn an_idle_loop_ends_at_once_whatever_it_is_told() {
    for (tell, expected) in [
        (TaskControl::finish_queue as fn(&TaskControl), TaskLoopEnd::QueueEmpty),
        (TaskControl::stop_taking, TaskLoopEnd::Stopped),
        (TaskControl::cut, TaskLoopEnd::Cut { running: None }),
    ] {
        let floor = Floor::new(1);
        let (stage, _starts) = Stage::new();
        block_on(async {
            let client = floor.client(0);
            let worker = floor.task_worker(0, &stage);
            // Answered: so the loop runs, and goes to sleep next.
            assert_eq!(client.call(Add { a: 1, b: 2 }).await, Ok(3));
            tell(&worker.control);
            assert_eq!(worker.end(), expected);
        });
    }
}

#[test]
fn a_loop_ends_when_every_sender_is_gone() {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    let worker = floor.task_worker(0, &stage);
    drop(floor);
    assert_eq!(worker.end(), TaskLoopEnd::QueueClosed);
}

#[test]
fn control_only_goes_forward() {
    let control = TaskControl::default();
    assert_eq!(control.mode(), TaskLoopMode::Taking);
    control.finish_queue();
    assert_eq!(control.mode(), TaskLoopMode::FinishQueue);
    control.cut();
    control.stop_taking();
    control.finish_queue();
    assert_eq!(control.mode(), TaskLoopMode::Cut);
}

#[test]
fn cut_drops_the_running_task_names_it_and_leaves_the_rest() {
    let floor = Floor::new(1);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let worker = floor.task_worker(0, &stage);
        let mut asking = one_runs_three_wait(&client, &mut starts).await;
        worker.control.finish_queue();
        worker.control.cut();
        let TaskLoopEnd::Cut { running: Some((name, _age)) } = worker.end() else {
            panic!("nothing was cut")
        };
        assert_eq!(name, "hold");
        assert_eq!(floor.slab.row(0).claim(), None);
        assert_eq!(asking.remove(0).await.unwrap(), Err(TaskError::Cut { name: "hold" }));
        assert_eq!(client.pending(), 3);

        stage.gate.add_permits(3);
        let successor = floor.task_worker(1, &stage);
        assert_eq!(answers(asking).await, ["b", "c", "d"].map(|it| Ok(it.to_owned())));
        successor.stop();
    });
}

#[test]
fn a_worker_at_its_deadline_cuts_all_its_tasks_by_name() {
    // Small, so that some of them wait in the worker for room.
    let floor = Floor::sized(1, 4096, 1 << 20);
    let (stage, mut starts) = Stage::new();
    block_on(async {
        let client = floor.client(0);
        let worker = floor.task_worker(0, &stage);
        let mut asking = one_runs_three_wait(&client, &mut starts).await;
        for n in 0..200 {
            asking.push(tokio::spawn(client.call(Hold(n.to_string())).into_future()));
        }
        until(|| client.pending() == 204).await;
        let full = client.call(Add { a: 1, b: 1 }).on_full(OnFull::Fail).detach();
        assert_eq!(full, Err(TaskError::QueueFull { name: "add" }));
        // Answered, though this runtime has not looked yet.
        stage.gate.add_permits(1);
        assert_eq!(starts.recv().await.unwrap(), "b");

        let cut = client.cut_all();
        assert_eq!(cut.len(), 203);
        assert!(cut.iter().all(|task| task.name == "hold"));
        assert!(cut.is_sorted_by(|a, b| a.age >= b.age), "the oldest first");
        assert_eq!(client.pending(), 0);
        client.idle().await;

        let mut answers = answers(asking).await;
        assert_eq!(answers.remove(0).unwrap(), "a", "its answer had come");
        assert!(answers.iter().all(|it| *it == Err(TaskError::Cut { name: "hold" })));
        let later = client.call(Add { a: 1, b: 1 }).await;
        assert_eq!(later, Err(TaskError::Cut { name: "add" }));
        assert!(client.cut_all().is_empty());
        worker.control.cut();
        worker.end();
    });
}

#[test]
fn retirement_is_asked_for_once_and_tasks_go_on_until_it_comes() {
    let floor = Floor::new(1);
    let (stage, _starts) = Stage::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let options = LoopOptions { max_request: Some(5), ..LoopOptions::default() };
    let mut tasks = floor.task_loop(0, handlers(), stage, options);
    tasks.on_retire({
        let asked = Arc::clone(&asked);
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
        }
    });
    let worker = TaskWorker::start(tasks);
    block_on(async {
        let client = floor.client(0);
        for n in 0..4 {
            client.call(Add { a: n, b: n }).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        // It is asked for after the fifth answer was sent, and so before the sixth.
        for n in 0..2 {
            assert_eq!(client.call(Add { a: n, b: n }).await, Ok(2 * n));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        for n in 0..10 {
            assert_eq!(client.call(Add { a: n, b: n }).await, Ok(2 * n));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    });
    assert_eq!(worker.stop(), TaskLoopEnd::Stopped);
}
