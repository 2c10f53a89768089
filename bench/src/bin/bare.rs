//! The peer: bare hyper in as many processes as are asked for, on the same runtime, with one
//! SO_REUSEPORT socket each. Prints `ADDRESS PID PID …` and runs until it is killed.
//!
//! `bare PROCESSES [driven]`. With `driven`, hyper's connections are driven by Shiftwork's driver, as a
//! worker has them, and nothing else is different: what that costs is the price of hand-over.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shiftwork::conn::{Protocol, Registry, Stream};
use shiftwork::http::HttpLimits;
use shiftwork_sys::listen::{self, Address};
use shiftwork_sys::process::{Forked, fork, wait_for};

/// Answers everything with the same line.
#[derive(Clone)]
struct Plain;

impl<B> tower_service::Service<Request<B>> for Plain {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Full::new(Bytes::from_static(b"hello\n")))))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let processes: usize = std::env::args().nth(1).map_or(Ok(2), |it| it.parse())?;
    let driven = std::env::args().nth(2).is_some_and(|it| it == "driven");
    let sockets = listen::bind(&Address::parse("127.0.0.1:0")?, processes)?;
    let address = listen::local_address(&sockets[0])?;
    for socket in &sockets {
        listen::start(socket.as_fd(), 1024)?;
    }
    let mut pids = Vec::new();
    for socket in sockets {
        match fork()? {
            Forked::Child => serve(std::net::TcpListener::from(socket), driven)?,
            Forked::Parent(pid) => pids.push(pid),
        }
    }
    print!("{address}");
    for pid in &pids {
        print!(" {pid}");
    }
    println!();
    std::io::stdout().flush()?;
    for pid in pids {
        let _ = wait_for(pid);
    }
    Ok(())
}

fn serve(listener: std::net::TcpListener, driven: bool) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let registry = Registry::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if driven {
                let stream = Stream::Tcp(stream);
                // A client that has gone already has no address any more.
                let Ok(peer) = stream.peer() else { continue };
                let conn = registry.open(Protocol::Http1, peer, Duration::ZERO);
                let limits = HttpLimits::default();
                tokio::spawn(shiftwork::http::serve(stream, Bytes::new(), conn, Plain, limits));
            } else {
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(Plain)),
                );
            }
        }
    })
}
