//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end of a connection. Stands in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client and its address.
    Tcp(SocketAddr),
    /// A client on a Unix socket, as the kernel vouches for it.
    Unix {
        /// Its user.
        uid: u32,
        /// Its process; 0 when unknown.
        pid: i32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix { uid, pid } => write!(f, "unix (uid {uid}, pid {pid})"),
        }
    }
}
