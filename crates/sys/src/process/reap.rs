//! The ends of children.

#![allow(unsafe_code)]

use std::io;

use nix::sys::wait::{Id, WaitPidFlag, waitid};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal {
        /// Its number.
        signo: i32,
        /// Whether a core was written.
        core: bool,
    },
}

impl Exit {
    fn of(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal { signo: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// Reaps one child that has ended; None: there is none.
///
/// # Errors
/// Never for want of children: that is None.
pub fn reap() -> io::Result<Option<(i32, Exit)>> {
    match wait(-1, libc::WNOHANG) {
        Ok((0, _)) => Ok(None),
        Ok((pid, exit)) => Ok(Some((pid, exit))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until a child is gone; one that is gone already is no error. Gives how it ended, if it
/// was this call that reaped it.
pub fn wait_for(pid: i32) -> Option<Exit> {
    // Numbers that are no pid would mean any child.
    (pid > 0).then(|| wait(pid, 0).ok()).flatten().map(|(_, exit)| exit)
}

/// waitpid(2), by hand: nix has no name for a real-time signal, and so loses the pid of a child
/// that one of them has ended.
fn wait(pid: i32, flags: libc::c_int) -> io::Result<(i32, Exit)> {
    let mut status = 0;
    loop {
        // SAFETY: status is a place of this frame.
        let found = unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) };
        if found >= 0 {
            return Ok((found, Exit::of(status)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether this process has children, living or not yet reaped.
#[must_use]
pub fn has_children() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::All, flags | WaitPidFlag::__WALL), Err(nix::Error::ECHILD))
}

/// Kills all children of this process, at once.
///
/// # Errors
/// If /proc is not there.
pub fn kill_children() -> io::Result<()> {
    let own = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    for pid in list.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = crate::signal::kill(pid, crate::signal::KILL);
    }
    Ok(())
}
