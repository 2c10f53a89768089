//! Who is at the other end of a Unix socket, as the kernel knows it.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

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
