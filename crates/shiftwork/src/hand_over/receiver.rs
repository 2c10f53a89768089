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
    /// Packets do not arrive whole: this process has no room for their descriptors. Said once.
    starved: bool,
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
        Ok(Receiver { queue, buffer: vec![0; LONGEST_PACKET], starved: false })
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
            self.something().await?;
            // No await between taking a packet and returning it.
            if let Some(adopted) = self.take()? {
                return Ok(adopted);
            }
        }
    }

    /// Resolves when something may be in the queue, and takes nothing from it.
    ///
    /// # Errors
    /// When there is no runtime any more.
    pub async fn something(&self) -> io::Result<()> {
        self.queue.readable().await?.retain_ready();
        Ok(())
    }

    /// As [`next`](Receiver::next), without waiting: None if nothing is in the queue, or another
    /// worker was faster.
    ///
    /// # Errors
    /// As [`next`](Receiver::next).
    pub fn take(&mut self) -> io::Result<Option<Vec<Adopted>>> {
        match self.queue.try_io(Interest::READABLE, |queue| queue.recv(&mut self.buffer)) {
            Ok(packet) if packet.len == 0 && packet.fds.is_empty() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(packet) => {
                self.note_room(&packet);
                Ok(Some(adopt(&self.buffer, packet)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the last packet did not arrive whole, for want of descriptors. What was missing goes to
    /// whoever takes it next, so it is wise to wait a little.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    fn note_room(&mut self, packet: &Received) {
        if packet.truncated && !self.starved {
            tracing::error!("no descriptors for connections that are handed over; others get them");
        }
        self.starved = packet.truncated;
    }
}

/// Takes up the connections of one packet, and acknowledges them before anything is read from them.
/// What cannot be read is closed and logged: it cannot be read a second time either.
fn adopt(buffer: &[u8], packet: Received) -> Vec<Adopted> {
    let mut fds = packet.fds.into_iter();
    let bytes = &buffer[..packet.len.min(buffer.len())];
    // Nothing arrived, nothing is acknowledged: its sender tries again.
    let Some(ack) = fds.next() else { return Vec::new() };
    let passports = match read(bytes, &mut fds) {
        Ok(passports) => passports,
        Err(error) => {
            let connections = fds.len();
            tracing::error!(%error, connections, "connections were handed over that cannot be read");
            acknowledge(ack, 0..connections);
            return Vec::new();
        }
    };
    // What did not arrive, or cannot be taken up here, is not acknowledged: its sender tries again.
    let arrived = passports.into_iter().zip(fds).enumerate();
    let taken =
        arrived.filter_map(|(index, (passport, socket))| Some((index, take_up(passport, socket)?)));
    let (indices, adopted): (Vec<usize>, Vec<Adopted>) = taken.unzip();
    acknowledge(ack, indices);
    adopted
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

/// Tells the sender what we have. The sender may have gone, with the packet left in the queue: then
/// nobody needs to know.
fn acknowledge(ack: OwnedFd, connections: impl IntoIterator<Item = usize>) {
    let indices = connections.into_iter().take(BATCH);
    let indices: Vec<u8> = indices.filter_map(|it| u8::try_from(it).ok()).collect();
    // One write, so all or nothing; the pipe is empty, so it cannot block.
    let _ = File::from(ack).write_all(&indices);
}
