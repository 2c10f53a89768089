//! The door: listening sockets, and what comes in by them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shiftwork_sys::{limits, listen, socket};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::conn::Stream;
use crate::hand_over;

use super::connection::{Arrival, Service};
use super::row::OwnRow;

/// A socket that the manager has given to this worker.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: Arc<str>,
    pub(super) address: String,
    pub(super) backlog: u32,
    pub(super) slot: u32,
    pub(super) socket: OwnedFd,
}

/// How a door is closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing {
    /// Stop accepting; the socket's queue belongs to the next worker.
    pub(super) leave: CancellationToken,
    /// Let nobody in any more, and serve those who wait.
    pub(super) shut: CancellationToken,
}

/// Short of descriptors or memory, a worker serves on those who are in, and accepts again when it
/// can: clients wait in the kernel's queue (`backlog`) and are refused by nobody. So long between two
/// attempts.
const EXHAUSTED: Duration = Duration::from_millis(5);

/// Whoever has had no want for so long is said to have none. Where clients come and go all the time,
/// it comes and goes with them.
const PLENTY: Duration = Duration::from_secs(1);

/// Whether there is want of descriptors or memory, and what the log knows of it.
#[derive(Debug, Default)]
struct Want {
    /// Now.
    is: bool,
    /// When it was seen last, if that has been said and its end has not.
    said: Option<Instant>,
}

impl Want {
    /// There is. Tells whether that is news.
    fn seen(&mut self, now: Instant) -> bool {
        self.is = true;
        self.said.replace(now).is_none()
    }

    /// There is none now. Tells whether it is over, and that is news.
    fn ended(&mut self, now: Instant) -> bool {
        self.is = false;
        self.said.take_if(|last| now.duration_since(*last) >= PLENTY).is_some()
    }
}

/// A handshake that takes longer than this is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(1);

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    /// Lets clients come. Gives what has to run for it to go on.
    ///
    /// # Errors
    /// If the kernel refuses to listen: somebody else has taken the address meanwhile.
    pub(super) fn open(
        self,
        service: &Arc<Service>,
        row: OwnRow,
        most: u64,
        closing: Closing,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        listen::start(self.socket.as_fd(), self.backlog)?;
        let listening = if socket::is_unix(self.socket.as_fd())? {
            Listening::Unix(UnixListener::from_std(self.socket.into())?)
        } else {
            Listening::Tcp(TcpListener::from_std(self.socket.into())?)
        };
        let service = Arc::clone(service);
        Ok(serve(listening, self.name, service, row, most, closing))
    }
}

async fn serve(
    listening: Listening,
    name: Arc<str>,
    service: Arc<Service>,
    row: OwnRow,
    most: u64,
    closing: Closing,
) {
    let highest = highest_descriptor();
    let mut want = Want::default();
    loop {
        if want.is && !has_room(listening.as_fd(), highest) {
            want.seen(Instant::now());
            tokio::select! {
                biased;
                () = closing.shut.cancelled() => break,
                () = closing.leave.cancelled() => return,
                () = tokio::time::sleep(EXHAUSTED) => continue,
            }
        }
        if want.said.is_some() && want.ended(Instant::now()) {
            tracing::info!("accepting on listener {name} again");
        }
        let accepted = tokio::select! {
            biased;
            () = closing.shut.cancelled() => break,
            () = closing.leave.cancelled() => return,
            accepted = listening.accept(), if service.registry.counters().connections() < most => {
                accepted
            }
            // More than max_connection: they wait in the kernel's queue.
            () = tokio::time::sleep(Duration::from_millis(5)),
                if service.registry.counters().connections() >= most => continue,
            () = tokio::time::sleep(PLENTY), if want.said.is_some() => continue,
        };
        match accepted {
            // Whoever was told that the reload is over may have connected since. The order to
            // drain is on its way, and decides who serves this one.
            Ok(stream) if row.is_marked() => {
                tokio::select! {
                    biased;
                    () = closing.shut.cancelled() => {
                        arrive(&service, &name, stream);
                        break;
                    }
                    () = closing.leave.cancelled() => {
                        service.pass_on(&name, stream);
                        return;
                    }
                }
            }
            Ok(stream) => {
                if stream.as_fd().as_raw_fd() > highest && want.seen(Instant::now()) {
                    tracing::error!(
                        "cannot accept on listener {name}: few descriptors are left; clients wait"
                    );
                }
                arrive(&service, &name, stream);
            }
            Err(error) if is_client_gone(&error) => {}
            // Shut by the manager: nobody comes any more, and the order to drain is on its way.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                if want.seen(Instant::now()) {
                    tracing::error!("cannot accept on listener {name}: {error}; clients wait");
                }
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // Those who have connected are served; who comes later finds the address closed.
    listen::refuse_new(listening.as_fd());
    let began = Instant::now();
    loop {
        while let Some(stream) = listening.take_waiting() {
            listen::welcome(stream.as_fd());
            arrive(&service, &name, stream);
        }
        // A client believes itself connected a round trip before it stands in the queue.
        let handshakes = listen::half_open(listening.as_fd()).unwrap_or(0);
        let waiting = listen::waiting(listening.as_fd()).unwrap_or(0);
        if (handshakes == 0 && waiting == 0) || began.elapsed() > HANDSHAKE {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// So many descriptors are not given to new clients: they are for the connections of workers that
/// drain, which had theirs before, and for the files of handlers.
const RESERVE: u64 = hand_over::BATCH as u64 + 4;

/// The highest descriptor that a new client may get. The kernel gives the lowest that is free, so its
/// number tells how full the table is.
fn highest_descriptor() -> i32 {
    let most = limits::open_files().saturating_sub(RESERVE);
    i32::try_from(most).unwrap_or(i32::MAX)
}

fn has_room(socket: BorrowedFd<'_>, highest: i32) -> bool {
    socket.try_clone_to_owned().is_ok_and(|copy| copy.as_raw_fd() <= highest)
}

fn arrive(service: &Arc<Service>, name: &Arc<str>, stream: Stream) {
    service.take_in(name, Arrival::new(name, service.protocol(name), stream));
}

/// The client hung up while it waited: no matter.
fn is_client_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl Listening {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _): (_, SocketAddr) = listener.accept().await?;
                Ok(Stream::accepted_tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }

    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }

    /// One that waits in the queue, past the runtime, which may not have heard of it yet.
    fn take_waiting(&self) -> Option<Stream> {
        loop {
            match listen::accept(self.as_fd()) {
                Ok(socket) => match Stream::adopt(socket) {
                    Ok(stream) => return Some(stream),
                    Err(error) => tracing::error!("a waiting connection is lost: {error}"),
                },
                Err(error) if is_client_gone(&error) => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_that_comes_and_goes_is_said_once() {
        let mut want = Want::default();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(!want.ended(at(0)) && !want.is);
        assert!(want.seen(at(10)) && want.is);
        for ms in (20..2_000).step_by(20) {
            assert!(!want.ended(at(ms)) && !want.is);
            assert!(!want.seen(at(ms + 10)));
        }
        assert!(!want.ended(at(2_900)));
        assert!(want.ended(at(3_000)) && !want.ended(at(9_000)));
        assert!(want.seen(at(9_000)), "news again");
    }
}
