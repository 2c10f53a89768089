//! The adopting side.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;

use shiftwork_sys::fd::read_memfd;
use shiftwork_sys::socket::{Channel, Received};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::format::{self, IN_MEMFD, Passport};
use super::{BATCH, LONGEST_PACKET};
use crate::conn::Stream;

/// A connection that has become this worker's.
#[derive(Debug)]
pub struct Adopted {
    /// Its socket.
    pub stream: Stream,
    /// What travelled with it. Its `unread` bytes come before anything that the socket yields.
    pub passport: Passport,
}

/// Takes connections from the queue.
#[derive(Debug)]
pub struct Receiver {
    queue: AsyncFd<Channel>,
    buffer: Vec<u8>,
}

impl Receiver {
    /// Reads from `queue`, which other workers may be reading too.
    ///
    /// # Errors
    /// When the poller refuses it, or there is no runtime.
    pub fn new(queue: Channel) -> io::Result<Receiver> {
        // Its successor is unsafe, for types whose descriptor changes; a Channel's never does.
        #[expect(deprecated)]
        let queue = AsyncFd::with_interest(queue, Interest::READABLE)?;
        Ok(Receiver { queue, buffer: vec![0; LONGEST_PACKET] })
    }

    /// Adopts until `stop` resolves, that is until this worker drains: from then on nothing is taken
    /// from the queue, not even what waits in it. (A future that is only raced against `stop` may be
    /// polled first, and take what this same worker has just given away.)
    ///
    /// `adopt` has to enter the connection into the registry before it returns.
    ///
    /// # Errors
    /// `UnexpectedEof` when the queue is gone: the server has ended.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        mut adopt: impl FnMut(Adopted),
    ) -> io::Result<()> {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                batch = self.next() => batch?.into_iter().for_each(&mut adopt),
            }
        }
    }

    /// The next connections; they are acknowledged, so from here on they are nobody else's.
    ///
    /// Nothing is taken from the queue unless it is returned: a worker that begins to drain drops
    /// this future, and what is in the queue goes to others. An empty list is no end.
    ///
    /// # Errors
    /// `UnexpectedEof` when the queue is gone: the server has ended.
    pub async fn next(&mut self) -> io::Result<Vec<Adopted>> {
        loop {
            let mut ready = self.queue.readable().await?;
            // No await between taking a packet and returning it.
            match ready.try_io(|queue| queue.get_ref().recv(&mut self.buffer)) {
                Err(_would_block) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(packet)) if packet.len == 0 && packet.fds.is_empty() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Ok(packet)) => return Ok(adopt(&self.buffer, packet)),
            }
        }
    }
}

/// Takes up the connections of one packet. What cannot be read is closed and logged: it cannot be
/// read a second time either.
fn adopt(buffer: &[u8], packet: Received) -> Vec<Adopted> {
    let mut fds = packet.fds.into_iter();
    let bytes = &buffer[..packet.len.min(buffer.len())];
    let Some(ack) = fds.next() else {
        tracing::error!("a hand-over packet without descriptors");
        return Vec::new();
    };
    let passports = match read(bytes, &mut fds) {
        Ok(passports) => passports,
        Err(error) => {
            let connections = fds.len();
            tracing::error!(%error, connections, "connections were handed over that cannot be read");
            acknowledge(ack, 0..connections);
            return Vec::new();
        }
    };
    let (sent, arrived) = (passports.len(), fds.len());
    if sent != arrived || packet.truncated {
        // This process has no room for so many descriptors. What did not arrive is not
        // acknowledged, so its sender tries again.
        tracing::error!(sent, arrived, "a hand-over packet did not arrive whole");
    }
    acknowledge(ack, 0..sent.min(arrived));
    let pairs = passports.into_iter().zip(fds);
    pairs.filter_map(|(passport, socket)| take_up(passport, socket)).collect()
}

fn read(
    bytes: &[u8],
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Vec<Passport>, Box<dyn std::error::Error>> {
    if bytes != [IN_MEMFD] {
        return Ok(format::decode(bytes)?);
    }
    let long = fds.next().ok_or("the memfd is missing")?;
    Ok(format::decode(&read_memfd(long.as_fd())?)?)
}

fn take_up(passport: Passport, socket: OwnedFd) -> Option<Adopted> {
    match Stream::adopt(socket) {
        Ok(stream) => Some(Adopted { stream, passport }),
        Err(error) => {
            tracing::error!(%error, "a connection cannot be taken up");
            None
        }
    }
}

/// Tells the sender what we have, before anything is read from it. The sender may have gone, with
/// the packet left in the queue: then nobody needs to know.
fn acknowledge(ack: OwnedFd, connections: std::ops::Range<usize>) {
    let indices: Vec<u8> = connections.take(BATCH).filter_map(|it| u8::try_from(it).ok()).collect();
    // One write, so all or nothing; the pipe is empty, so it cannot block.
    let _ = File::from(ack).write_all(&indices);
}
