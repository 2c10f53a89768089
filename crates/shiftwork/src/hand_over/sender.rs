//! The draining side: what leaves is kept until somebody has it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shiftwork_sys::fd::memfd;
use shiftwork_sys::socket::Channel;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::format::{self, IN_MEMFD, Passport};
use super::{BATCH, LONGEST_PACKET};
use crate::conn::Counters;

/// How long to wait before trying again when the queue takes nothing. A timer, because the kernel
/// does not tell when descriptors under way (ETOOMANYREFS) have arrived.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// A connection that leaves.
#[derive(Debug)]
pub struct Traveller {
    /// The socket, no longer registered with any poller of this process.
    pub socket: OwnedFd,
    /// What travels with it.
    pub passport: Passport,
}

/// Hands connections over. Cheap to clone; the [`SenderTask`] ends when all clones are gone and
/// everything has arrived.
#[derive(Debug, Clone)]
pub struct Sender {
    travellers: mpsc::UnboundedSender<Traveller>,
    progress: Arc<Progress>,
}

/// What sender and task know together.
#[derive(Debug, Default)]
struct Progress {
    /// Connections that no adopter has acknowledged yet.
    waiting: AtomicUsize,
    counters: Arc<Counters>,
}

impl Progress {
    fn arrived(&self) {
        self.waiting.fetch_sub(1, Relaxed);
        self.counters.handed_over();
    }
}

impl Sender {
    /// A sender that writes passports in `format` (the newest that the adopters read, see
    /// [`OLDEST`](super::OLDEST) and [`NEWEST`](super::NEWEST)) into `queue`, and the task that does
    /// the work.
    pub fn new(queue: Channel, format: u8) -> (Sender, SenderTask) {
        Sender::over(Box::new(queue), format)
    }

    /// The same, with what becomes of the connections counted.
    pub fn counting(queue: Channel, format: u8, counters: Arc<Counters>) -> (Sender, SenderTask) {
        let progress = Progress { waiting: AtomicUsize::new(0), counters };
        Sender::with(Box::new(queue), format, progress)
    }

    pub(super) fn over(queue: Box<dyn Queue>, format: u8) -> (Sender, SenderTask) {
        Sender::with(queue, format, Progress::default())
    }

    fn with(queue: Box<dyn Queue>, format: u8, progress: Progress) -> (Sender, SenderTask) {
        let (travellers, arriving) = mpsc::unbounded_channel();
        let progress = Arc::new(progress);
        let task = SenderTask {
            queue,
            format,
            spare: io::pipe().ok(),
            batch: BATCH,
            arriving,
            departing: VecDeque::new(),
            under_way: JoinSet::new(),
            progress: Arc::clone(&progress),
            report: Report::default(),
        };
        (Sender { travellers, progress }, task)
    }

    /// Sends a connection on its way.
    ///
    /// # Errors
    /// Gives it back when the task has ended (its deadline has passed).
    pub fn send(&self, traveller: Traveller) -> Result<(), Box<Traveller>> {
        self.progress.waiting.fetch_add(1, Relaxed);
        self.travellers.send(traveller).map_err(|mpsc::error::SendError(traveller)| {
            self.progress.waiting.fetch_sub(1, Relaxed);
            Box::new(traveller)
        })
    }

    /// Connections that no adopter has acknowledged yet.
    pub fn waiting(&self) -> usize {
        self.progress.waiting.load(Relaxed)
    }
}

/// What became of the connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Acknowledged by an adopter.
    pub handed_over: usize,
    /// Sent a second time, because an adopter died with them.
    pub sent_again: usize,
    /// In the queue when the deadline passed; the next worker that reads it takes them.
    pub left_in_queue: usize,
    /// Closed: the queue took none until the deadline, or is gone.
    pub lost: usize,
}

/// Where packets go. A trait, so that tests can refuse.
pub(super) trait Queue: Send {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()>;
}

impl Queue for Channel {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        Channel::send(self, bytes, fds)
    }
}

/// Does a [`Sender`]'s work.
#[must_use = "nothing is sent unless it runs"]
pub struct SenderTask {
    queue: Box<dyn Queue>,
    format: u8,
    /// For one acknowledgement, made in good time: a worker whose connections have taken all its
    /// descriptors can still begin to get rid of them.
    spare: Option<(io::PipeReader, io::PipeWriter)>,
    /// Most connections in a packet. Fewer after some came back: whoever has no room for sixteen
    /// may have it for one.
    batch: usize,
    arriving: mpsc::UnboundedReceiver<Traveller>,
    /// In their order of departure.
    departing: VecDeque<Traveller>,
    under_way: JoinSet<Settled>,
    progress: Arc<Progress>,
    report: Report,
}

/// What became of an attempt to send.
enum Attempt {
    Sent,
    /// The queue takes nothing now.
    Full,
    /// There is no queue any more.
    Gone(io::Error),
}

impl SenderTask {
    /// Runs until all senders are gone and all connections are acknowledged, or until `deadline`.
    /// What is in the queue by then stays adoptable; what the queue never took is closed.
    pub async fn run(mut self, deadline: impl Future<Output = ()>) -> Report {
        let mut deadline = pin!(deadline);
        let mut wait = FIRST_WAIT;
        let mut open = true;
        let mut news = Vec::new();
        // When to try again, if the queue takes nothing.
        let mut blocked: Option<Instant> = None;
        loop {
            while !self.departing.is_empty() && blocked.is_none() {
                match self.depart() {
                    Attempt::Sent => wait = FIRST_WAIT,
                    Attempt::Full => blocked = Some(Instant::now() + wait),
                    Attempt::Gone(error) => {
                        tracing::error!(%error, "the hand-over queue is gone");
                        return self.finish();
                    }
                }
            }
            if !open && self.departing.is_empty() && self.under_way.is_empty() {
                return self.finish();
            }
            tokio::select! {
                () = &mut deadline => return self.finish(),
                got = self.arriving.recv_many(&mut news, BATCH), if open => {
                    open = got > 0;
                    self.departing.extend(news.drain(..));
                }
                Some(settled) = self.under_way.join_next() => {
                    // An adopter without room gives back at once what it cannot take: not so fast.
                    if self.settle(settled.unwrap_or_default()) {
                        blocked = blocked.or_else(|| Some(Instant::now() + wait));
                    }
                }
                () = sleep_until(blocked.unwrap_or_else(Instant::now)), if blocked.is_some() => {
                    wait = (wait * 2).min(LONGEST_WAIT);
                    blocked = None;
                }
            }
        }
    }

    /// Sends one packet.
    fn depart(&mut self) -> Attempt {
        let mut bytes = 0;
        let fits = |traveller: &&Traveller| {
            bytes += traveller.passport.size();
            bytes <= LONGEST_PACKET
        };
        let count = self.departing.iter().take(self.batch).take_while(fits).count().max(1);
        match self.send(count) {
            Ok(ack) => {
                let travellers = self.departing.drain(..count).collect();
                let progress = Arc::clone(&self.progress);
                self.under_way.spawn(until_adopted(travellers, ack, progress));
                Attempt::Sent
            }
            Err(error) if is_temporary(&error) => Attempt::Full,
            Err(error) => Attempt::Gone(error),
        }
    }

    fn send(&mut self, count: usize) -> io::Result<pipe::Receiver> {
        self.spare = self.spare.take().or_else(|| io::pipe().ok());
        let passports = self.departing.iter().take(count).map(|traveller| &traveller.passport);
        let packet = format::encode(self.format, passports).map_err(io::Error::other)?;
        let (ack, adopter) = match io::pipe() {
            Ok(pipe) => pipe,
            Err(error) => self.spare.take().ok_or(error)?,
        };
        let ack = pipe::Receiver::from_owned_fd(OwnedFd::from(ack))?;
        let sockets = self.departing.iter().take(count).map(|traveller| traveller.socket.as_fd());
        if packet.len() <= LONGEST_PACKET {
            let fds: Vec<_> = std::iter::once(adopter.as_fd()).chain(sockets).collect();
            self.queue.send(&packet, &fds)?;
        } else {
            let long = memfd("shiftwork-passports", &packet)?;
            let fds: Vec<_> = [adopter.as_fd(), long.as_fd()].into_iter().chain(sockets).collect();
            self.queue.send(&[IN_MEMFD], &fds)?;
        }
        // Our copy of the adopter's end is closed here, so that the adopter's death is the pipe's
        // end.
        Ok(ack)
    }

    /// A packet has been acknowledged, all of it or, with its adopter dead or short of descriptors,
    /// less. Returns whether something came back.
    fn settle(&mut self, Settled { adopted, back }: Settled) -> bool {
        let came_back = !back.is_empty();
        self.report.handed_over += adopted;
        if came_back {
            self.report.sent_again += back.len();
            tracing::debug!(connections = back.len(), "not taken up; handing over again");
            self.batch = (back.len() / 2).max(1);
        } else {
            self.batch = (self.batch * 2).min(BATCH);
        }
        self.departing.extend(back);
        came_back
    }

    fn finish(mut self) -> Report {
        self.arriving.close();
        while let Ok(traveller) = self.arriving.try_recv() {
            self.departing.push_back(traveller);
        }
        let waiting = self.progress.waiting.load(Relaxed);
        self.report.lost = self.departing.len();
        self.progress.counters.not_handed_over(self.report.lost);
        self.report.left_in_queue = waiting.saturating_sub(self.departing.len());
        self.report
    }
}

/// What became of one packet.
#[derive(Default)]
struct Settled {
    adopted: usize,
    back: Vec<Traveller>,
}

/// Keeps the sockets of one packet until they are adopted. Comes back with those that were not, when
/// nobody holds the packet any more.
async fn until_adopted(
    travellers: Vec<Traveller>,
    mut ack: pipe::Receiver,
    progress: Arc<Progress>,
) -> Settled {
    let mut travellers: Vec<Option<Traveller>> = travellers.into_iter().map(Some).collect();
    let mut adopted = 0;
    let mut indices = [0; BATCH];
    while adopted < travellers.len() {
        let Ok(read @ 1..) = ack.read(&mut indices).await else { break };
        for &index in &indices[..read] {
            // Closes our copy; the connection lives on in the adopter's.
            if travellers.get_mut(usize::from(index)).and_then(Option::take).is_some() {
                adopted += 1;
                progress.arrived();
            }
        }
    }
    Settled { adopted, back: travellers.into_iter().flatten().collect() }
}

/// Whether the same may succeed later: no room, or no descriptors to be had at the moment.
fn is_temporary(error: &io::Error) -> bool {
    /// Linux's numbers, which std has no kinds for.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    const ETOOMANYREFS: i32 = 109;
    error.kind() == io::ErrorKind::WouldBlock
        || error.kind() == io::ErrorKind::OutOfMemory
        || error.kind() == io::ErrorKind::Interrupted
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS | ETOOMANYREFS))
}
