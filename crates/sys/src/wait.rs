//! Waiting with poll(2): on plain descriptors, in processes that fork. An epoll set would be
//! shared with the children.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// And room to write.
    ReadWrite,
    /// Room to write, and the end of both directions.
    Write,
    /// The end of both directions alone.
    End,
}

impl Interest {
    /// Something to read, or the end.
    pub const READ: Self = Self::Read;
    /// And room to write.
    pub const READ_WRITE: Self = Self::ReadWrite;
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready<T> {
    /// As it was added.
    pub token: T,
    /// There is something to read, or the other side has closed.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side has closed, for good: a terminal is gone.
    pub hung_up: bool,
}

/// A set of descriptors to wait on once.
#[derive(Debug)]
pub struct Poller<'fd, T> {
    tokens: Vec<T>,
    fds: Vec<PollFd<'fd>>,
}

impl<T> Default for Poller<'_, T> {
    fn default() -> Self {
        Self { tokens: Vec::new(), fds: Vec::new() }
    }
}

impl<'fd, T> Poller<'fd, T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a descriptor.
    pub fn add(&mut self, token: T, fd: BorrowedFd<'fd>, interest: Interest) {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
            Interest::Write => PollFlags::OUT,
            // Told without being asked for.
            Interest::End => PollFlags::empty(),
        };
        self.tokens.push(token);
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    /// Waits until one is ready or the time is over; None waits for ever. An interrupted wait
    /// ends with nothing ready.
    ///
    /// # Errors
    /// If the kernel has no memory for it.
    pub fn wait(mut self, timeout: Option<Duration>) -> io::Result<Vec<Ready<T>>> {
        let timeout = timeout.map(|it| Timespec {
            tv_sec: i64::try_from(it.as_secs()).unwrap_or(i64::MAX),
            // Rounded up: a wait that ends a moment early would turn once for nothing.
            tv_nsec: i64::from(it.subsec_nanos()),
        });
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ended = PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let ready = self.tokens.into_iter().zip(&self.fds).filter_map(|(token, fd)| {
            let found = fd.revents();
            (!found.is_empty()).then(|| Ready {
                token,
                readable: found.intersects(ended),
                writable: found.contains(PollFlags::OUT),
                hung_up: found.intersects(PollFlags::HUP | PollFlags::ERR),
            })
        });
        Ok(ready.collect())
    }
}

/// Whether the other side has closed both directions, or is gone.
#[must_use]
pub fn has_hung_up(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|_| !fds[0].revents().is_empty())
}

/// Whether there is something to read right now.
#[must_use]
pub fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::IN))
}
