//! Descriptors that stay open over an exec, under their numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use shiftwork_sys::fd;

/// How a descriptor is written down for the program that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    number: i32,
    inode: u64,
}

impl Passed {
    /// Takes the descriptor over; it is believed only if it is what was written down.
    ///
    /// # Errors
    /// If it is not.
    pub fn take(self) -> io::Result<OwnedFd> {
        fd::take_inherited(self.number, self.inode)
            .ok_or_else(|| io::Error::other(format!("descriptor {} is not here", self.number)))
    }
}

/// Collects what stays open.
#[derive(Debug, Default)]
pub struct Passing<'a> {
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Passing<'a> {
    /// One more.
    ///
    /// # Errors
    /// If it is not open.
    pub fn add(&mut self, descriptor: &'a impl AsFd) -> io::Result<Passed> {
        let fd = descriptor.as_fd();
        self.fds.push(fd);
        Ok(Passed { number: fd.as_raw_fd(), inode: fd::inode(fd)? })
    }

    /// All of them.
    pub fn fds(&self) -> &[BorrowedFd<'a>] {
        &self.fds
    }
}
