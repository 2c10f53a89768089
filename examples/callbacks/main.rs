//! Every callback there is, each leaving a line in a file: what the process tests look at to see
//! which of them ran, where, how often and in which order.
//!
//! ```text
//! cargo run --example callbacks -- --set app.trace=/tmp/trace
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use shiftwork::{BoxError, HookCall, Http, OnFull, Server, Task, Worker};

/// The `[app]` table.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct App {
    /// Where the lines go.
    trace: PathBuf,
    /// Bytes that `preload` loads.
    load: usize,
}

/// Writes a line, whole, whatever other processes write.
fn trace(file: &std::path::Path, line: &str) {
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(file) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// What is loaded once per generation.
struct Preloaded {
    bytes: Vec<u8>,
    pid: u32,
}

/// What each worker has.
struct State {
    worker: Worker,
    app: Arc<App>,
    preloaded: Arc<Preloaded>,
}

/// Fails or panics as it is told.
#[derive(Serialize, Deserialize)]
struct Work {
    how: String,
}

impl Task for Work {
    const NAME: &'static str = "work";
    type Output = u32;
}

async fn work(state: Arc<State>, work: Work) -> Result<u32, BoxError> {
    match work.how.as_str() {
        "fail" => Err("it was told to fail".into()),
        "late" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            trace(&state.app.trace, "a late task is done");
            Err("it was told to fail late".into())
        }
        "hang" => std::future::pending().await,
        "panic" => panic!("it was told to panic"),
        "die" => std::process::abort(),
        _ => Ok(state.worker.id()),
    }
}

fn router(state: &Arc<State>) -> Router {
    let [spawning, guarding, asking, leaving, trying, telling] =
        std::array::from_fn(|_| Arc::clone(state));
    Router::new()
        .route("/who", get(|| async { who(&shiftwork::worker()) }))
        .route(
            "/drains",
            get(|| async {
                shiftwork::worker().draining().await;
                "drains"
            }),
        )
        .route("/stats", get(|| async { told(shiftwork::worker().server().stats().await) }))
        .route("/shutdown", post(|| async { told(shiftwork::worker().server().shutdown().await) }))
        .route(
            "/preloaded",
            get(move || async move {
                format!("{} {}", telling.preloaded.bytes.len(), telling.preloaded.pid)
            }),
        )
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a handler panics")
                }
            }),
        )
        .route(
            "/spawn/{ms}",
            post(move |Path(ms): Path<u64>| async move {
                let state = Arc::clone(&spawning);
                spawning.worker.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    trace(&state.app.trace, "spawned work is done");
                });
            }),
        )
        .route(
            "/guard/{ms}",
            post(move |Path(ms): Path<u64>| async move {
                let state = Arc::clone(&guarding);
                guarding
                    .worker
                    .guard(async move {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        trace(&state.app.trace, "the guarded section is done");
                    })
                    .await;
            }),
        )
        .route(
            "/detach/{how}",
            post(move |Path(how): Path<String>| async move {
                format!("{:?}", leaving.worker.task(Work { how }).detach())
            }),
        )
        .route(
            "/try/{how}",
            post(move |Path(how): Path<String>| async move {
                let call = trying.worker.task(Work { how }).on_full(OnFull::Fail);
                match call.detach() {
                    Ok(()) => "sent".to_owned(),
                    Err(error) => error.to_string(),
                }
            }),
        )
        .route(
            "/task/{how}",
            post(move |Path(how): Path<String>| async move {
                match asking.worker.task(Work { how }).await {
                    Ok(id) => format!("done by {id}"),
                    Err(error) => error.to_string(),
                }
            }),
        )
}

/// All that a worker knows of itself.
fn who(worker: &Worker) -> String {
    format!(
        "{} {} {} {} {} {}",
        worker.id(),
        worker.pid(),
        worker.master_pid(),
        worker.manager_pid(),
        worker.generation(),
        worker.release()
    )
}

fn told(answer: Result<impl std::fmt::Debug, impl std::fmt::Display>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("error: {error}"),
    }
}

/// Hooks run in processes of their own; where the lines go they are told by the environment.
fn hook(call: &HookCall) -> Result<(), BoxError> {
    let Some(file) = std::env::var_os("TRACE") else { return Ok(()) };
    let died = call.died.as_ref().map(|it| format!(" {} {:?}", it.worker_id, it.signal));
    trace(file.as_ref(), &format!("{:?}{}", call.name, died.unwrap_or_default()));
    if std::env::var_os("REFUSE").is_some() {
        return Err("on_start was told to refuse".into());
    }
    Ok(())
}

async fn start(worker: Worker, preloaded: Arc<Preloaded>) -> Result<State, BoxError> {
    let app = worker.app::<App>();
    trace(&app.trace, &format!("on_worker_start {}", worker.id()));
    let (ticking, waiting) = (Arc::clone(&app), Arc::clone(&app));
    if worker.id() == 0 {
        worker.every(Duration::from_millis(50), move || {
            let app = Arc::clone(&ticking);
            async move { trace(&app.trace, "tick") }
        });
        worker.after(Duration::from_millis(50), async move { trace(&waiting.trace, "after") });
    }
    Ok(State { worker, app, preloaded })
}

fn main() -> ExitCode {
    Server::new("callbacks")
        .app::<App>()
        .default_setting("server.worker_num", 2)
        .default_setting("server.task_worker_num", 1)
        .default_setting("listen.web.address", "127.0.0.1:0")
        .preload(|boot| {
            let app = boot.app::<App>();
            trace(&app.trace, &format!("preload {}", boot.generation()));
            Ok::<_, BoxError>(Preloaded { bytes: vec![7; app.load], pid: std::process::id() })
        })
        .on_start(hook)
        .on_manager_start(hook)
        .on_worker_error(hook)
        .on_shutdown(hook)
        .on_worker_start(start)
        .on_worker_exit(|worker, state| async move {
            trace(&state.app.trace, &format!("on_worker_exit {}", worker.id()));
        })
        .on_worker_stop(|worker, state| async move {
            trace(&state.app.trace, &format!("on_worker_stop {}", worker.id()));
        })
        .listen("web", Http::new(router))
        .on_task(work)
        .run()
}
