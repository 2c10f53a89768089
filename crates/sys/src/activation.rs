//! Sockets that a service manager has opened, or kept, for this process; see sd_listen_fds(3).

#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SocketType, sockopt};

use crate::fd;
use crate::process::remove_variable;

/// Where they begin.
const FIRST: i32 = 3;

/// A socket that was passed.
#[derive(Debug)]
pub struct Given {
    /// What the service manager calls it (`FileDescriptorName=`, `FDNAME=`).
    pub name: String,
    /// The socket: of the stream type, listening or ready to listen; close-on-exec, non-blocking.
    pub socket: OwnedFd,
}

/// Takes the sockets that were passed to this very process, and removes the variables that tell of
/// them. Whatever is no stream socket is closed. To be called once, first of all, in a process with
/// one thread.
#[must_use]
pub fn take() -> Vec<Given> {
    let text = |name: &str| std::env::var(name).ok();
    let own = std::process::id().to_string();
    let count: i32 = text("LISTEN_FDS").and_then(|it| it.parse().ok()).unwrap_or(0);
    let for_us = text("LISTEN_PID").is_some_and(|pid| pid == own);
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"] {
        remove_variable(name);
    }
    if !for_us || !(1..=65_536).contains(&count) {
        return Vec::new();
    }
    let mut names = names.split(':');
    (FIRST..FIRST + count)
        .map(|number| (number, names.next().unwrap_or_default().to_owned()))
        .filter_map(|(number, name)| Some(Given { name, socket: take_socket(number)? }))
        .collect()
}

fn take_socket(number: i32) -> Option<OwnedFd> {
    // SAFETY: the borrow ends with this statement; a closed number is an error, no harm.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    // What this process has opened itself is close-on-exec, and not what was passed.
    if flags.contains(FdFlags::CLOEXEC) {
        return None;
    }
    // SAFETY: it came over the exec, for this process to take, and nobody else here owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    fd::set_cloexec(socket.as_fd(), true).ok()?;
    (sockopt::socket_type(&socket) == Ok(SocketType::STREAM)).then_some(())?;
    rustix::io::ioctl_fionbio(&socket, true).ok()?;
    Some(socket)
}
