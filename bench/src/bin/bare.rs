//! The peer: bare hyper in as many processes as are asked for, on the same runtime, with one
//! SO_REUSEPORT socket each. Prints `ADDRESS PID PID …` and runs until it is killed.

use std::io::Write;
use std::os::fd::AsFd;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shiftwork_bench::Plain;
use shiftwork_sys::listen::{self, Address};
use shiftwork_sys::process::{Forked, fork, wait_for};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let processes: usize = std::env::args().nth(1).map_or(Ok(2), |it| it.parse())?;
    let sockets = listen::bind(&Address::parse("127.0.0.1:0")?, processes)?;
    let address = listen::local_address(&sockets[0])?;
    for socket in &sockets {
        listen::start(socket.as_fd(), 1024)?;
    }
    let mut pids = Vec::new();
    for socket in sockets {
        match fork()? {
            Forked::Child => serve(std::net::TcpListener::from(socket))?,
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

fn serve(listener: std::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(Plain)),
            );
        }
    })
}
