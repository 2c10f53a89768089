//! A whole Shiftwork server of a few lines, for measurements from outside.

use std::process::ExitCode;
use std::sync::Arc;

use shiftwork::{BoxError, Http, Server};
use shiftwork_bench::Plain;

fn main() -> ExitCode {
    let megabytes: usize =
        std::env::var("BENCH_PRELOAD_MB").ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    Server::new("plain")
        .default_setting("server.worker_num", 2)
        .default_setting("server.task_worker_num", 2)
        .default_setting("listen.web.address", "127.0.0.1:0")
        .preload(move |_| Ok::<_, BoxError>(vec![1_u8; megabytes * 1024 * 1024]))
        .on_worker_start(|_, preloaded| async move { Ok::<Arc<Vec<u8>>, BoxError>(preloaded) })
        .listen("web", Http::new(|_: &Arc<Arc<Vec<u8>>>| Plain))
        .run()
}
