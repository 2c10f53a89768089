//! Where the admin address listens.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use shiftwork_sys::listen::Address;

use super::super::door::Door;
use super::super::state::AdminState;
use crate::passing::Passing;

/// A bound admin address.
#[derive(Debug)]
pub enum AdminDoor {
    /// For whoever reaches it.
    Tcp(TcpListener),
    /// For the server's own user, and root.
    Unix(Door),
}

/// A connection, of either kind.
pub trait Socket: Read + Write + AsFd + fmt::Debug {
    /// Says that nothing follows. False: it is broken.
    fn finish(&self) -> bool;
}

impl Socket for TcpStream {
    fn finish(&self) -> bool {
        self.shutdown(Shutdown::Write).is_ok()
    }
}

impl Socket for UnixStream {
    fn finish(&self) -> bool {
        self.shutdown(Shutdown::Write).is_ok()
    }
}

impl AdminDoor {
    /// Binds it.
    ///
    /// # Errors
    /// If it is no address, or somebody listens there.
    pub fn bind(address: &str) -> io::Result<Self> {
        match Address::parse(address).map_err(io::Error::other)? {
            Address::Unix(path) => Door::bind(&path).map(Self::Unix),
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    /// Takes whoever waits.
    ///
    /// # Errors
    /// If nobody does, or there are no descriptors.
    pub fn accept(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(door) => {
                let stream = door.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// For the program that comes.
    ///
    /// # Errors
    /// If the descriptor is not open.
    pub fn describe<'a>(&'a self, passing: &mut Passing<'a>) -> io::Result<AdminState> {
        Ok(match self {
            Self::Tcp(listener) => {
                AdminState { listener: passing.add(listener)?, path: None, inode: 0 }
            }
            Self::Unix(door) => AdminState {
                listener: passing.add(door)?,
                path: Some(door.path().to_owned()),
                inode: door.inode(),
            },
        })
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// If the descriptor is not what it was.
    pub fn restore(state: AdminState) -> io::Result<Self> {
        let listener = state.listener.take()?;
        Ok(match state.path {
            None => Self::Tcp(listener.into()),
            Some(path) => Self::Unix(Door::resume(listener, path, state.inode)),
        })
    }
}

impl AsFd for AdminDoor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(door) => door.as_fd(),
        }
    }
}

/// As a URL, or almost: a Unix socket has none.
impl fmt::Display for AdminDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => f.write_str("an address that is not known"),
            },
            Self::Unix(door) => write!(f, "unix:{}", door.path().display()),
        }
    }
}
