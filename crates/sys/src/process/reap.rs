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
    for pid in children()? {
        let _ = crate::signal::kill(pid, crate::signal::KILL);
    }
    Ok(())
}

fn children() -> io::Result<Vec<i32>> {
    let own = std::process::id();
    match std::fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(list) => Ok(list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()),
        // A kernel without that list: everybody is asked for the parent.
        Err(error) if error.kind() == io::ErrorKind::NotFound => children_by_parent(own),
        Err(error) => Err(error),
    }
}

fn children_by_parent(own: u32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may be gone by now. The name in parentheses may hold anything.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent.is_some_and(|it| it.parse() == Ok(own)) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn children_are_found_without_a_list_of_them() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let found = children_by_parent(std::process::id()).unwrap();
        assert!(found.contains(&child.id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
