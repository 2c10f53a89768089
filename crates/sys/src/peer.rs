//! The other end of a Unix socket: reached in time, and known as the kernel knows it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};

/// A peer's identity at the moment it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process; 0: one of another pid namespace, as from a container.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Reads `SO_PEERCRED`; see unix(7).
///
/// # Errors
/// If this is not a connected Unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let found = getsockopt(&socket.as_fd(), PeerCredentials)?;
    Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// Connects to a Unix socket. Where as many wait already as its backlog has room for, this waits for so
/// long at most.
///
/// # Errors
/// [`WouldBlock`](io::ErrorKind::WouldBlock) when the time is over, and those of connect(2) and
/// socket(2).
pub fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel's own deadline, also of a connect.
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    connect_to(&socket, &address)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::listen::{self, Address};

    #[test]
    fn nobody_waits_for_ever_before_a_full_backlog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.sock");
        let address = Address::parse(&format!("unix:{}", path.display())).unwrap();
        let socket = listen::bind(&address, 1).unwrap().pop().unwrap();
        listen::start(socket.as_fd(), 1).unwrap();
        let moment = Duration::from_millis(50);
        let mut inside = Vec::new();
        let refused = loop {
            match connect(&path, moment) {
                Ok(stream) => inside.push(stream),
                Err(error) => break error,
            }
            assert!(inside.len() < 10, "a backlog of 1");
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(!inside.is_empty() && inside[0].write_timeout().unwrap().is_none());
        let nobody = connect(&folder.path().join("none"), moment).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
    }
}
