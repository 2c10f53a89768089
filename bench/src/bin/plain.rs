//! A whole Shiftwork server of a few lines, for measurements from outside.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use shiftwork::{BoxError, Http, Server};

/// Answers everything with the same line; no router.
#[derive(Clone)]
struct Plain;

impl<B> tower_service::Service<http::Request<B>> for Plain {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(Full::new(Bytes::from_static(b"hello\n")))))
    }
}

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
