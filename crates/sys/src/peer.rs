//! Who is at the other end of a Unix socket, as the kernel knows it.

use std::io;
use std::os::fd::AsFd;

/// A peer's identity at the moment it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process.
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
    let found = rustix::net::sockopt::socket_peercred(socket.as_fd())?;
    Ok(Credentials {
        pid: found.pid.as_raw_nonzero().get(),
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}
