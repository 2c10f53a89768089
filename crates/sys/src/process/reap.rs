//! The ends of children.

use std::io;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

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

/// Reaps one child that has ended; None: there is none.
///
/// # Errors
/// Never for want of children: that is None.
pub fn reap() -> io::Result<Option<(i32, Exit)>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                return Ok(Some((pid.as_raw(), Exit::Code(code))));
            }
            Ok(WaitStatus::Signaled(pid, signal, core)) => {
                return Ok(Some((pid.as_raw(), Exit::Signal { signo: signal as i32, core })));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(None),
            Ok(_) | Err(nix::Error::EINTR) => {}
            // A real-time signal has ended it, which nix has no name for; it is reaped all the same.
            Err(nix::Error::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until a child is gone; one that is gone already is no error.
pub fn wait_for(pid: i32) {
    while let Err(nix::Error::EINTR) = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL)) {}
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
