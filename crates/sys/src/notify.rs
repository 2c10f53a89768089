//! The socket on which a service manager hears how its service does; see sd_notify(3).
//!
//! By hand, for it is one datagram: it must never block, it is asked for once and not by a variable
//! that children would inherit, and it has to outlive an exec of the process.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use crate::process::remove_variable;

/// Descriptors in one message; a fraction of what the kernel allows.
pub const MOST_FDS: usize = 64;

/// Room for [`MOST_FDS`] descriptors and their header.
const CONTROL_SPACE: usize = 512;

/// What a service manager has told this process in its environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Where it listens: a path, or `@` and an abstract name.
    pub socket: Option<OsString>,
    /// It expects a sign of life at least so often, in microseconds.
    pub watchdog_us: Option<u64>,
    /// It stores so many descriptors.
    pub store: u64,
}

/// Reads what the service manager has told this process, and removes it from the environment, so
/// that no child takes it for its own. For processes with one thread.
#[must_use]
pub fn told() -> Told {
    let text = |name: &str| std::env::var(name).ok();
    let socket = std::env::var_os("NOTIFY_SOCKET").filter(|it| {
        let bytes = it.as_bytes();
        bytes.len() > 1 && (bytes[0] == b'/' || bytes[0] == b'@')
    });
    let own = std::process::id().to_string();
    let for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == own);
    let watchdog_us = text("WATCHDOG_USEC").and_then(|it| it.parse().ok()).filter(|_| for_us);
    let store = text("FDSTORE").and_then(|it| it.parse().ok()).unwrap_or(0);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"] {
        remove_variable(name);
    }
    Told { socket, watchdog_us: watchdog_us.filter(|it| *it > 0), store }
}

/// The way to a service manager.
#[derive(Debug)]
pub struct Notifier {
    name: OsString,
    address: SocketAddrUnix,
    socket: OwnedFd,
}

impl Notifier {
    /// `name`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// If that can be no address, or no descriptor is to be had.
    pub fn new(name: OsString) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { name, address, socket })
    }

    /// Its name as it was given.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.name.clone().into_vec()
    }

    /// Sends one datagram, with at most [`MOST_FDS`] descriptors, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if the other side does not keep up; anything else if it is not there.
    pub fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg_addr(&self.socket, &self.address, &parts, &mut control, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn paths_and_abstract_names_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("shiftwork-test-{}", std::process::id());
        let abstract_one =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, name) in
            [(at_path, path.into_os_string()), (abstract_one, OsString::from(format!("@{name}")))]
        {
            let notifier = Notifier::new(name).unwrap();
            notifier.send("READY=1\nSTATUS=well", &[]).unwrap();
            let mut buffer = [0; 64];
            let read = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], b"READY=1\nSTATUS=well");
            let file = crate::fd::memfd("x", b"").unwrap();
            notifier.send("FDSTORE=1", &vec![file.as_fd(); MOST_FDS]).unwrap();
            assert!(notifier.send("FDSTORE=1", &vec![file.as_fd(); 200]).is_err());
        }
    }

    #[test]
    fn nobody_there_is_an_error_and_not_a_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let notifier = Notifier::new(path.clone().into()).unwrap();
        assert!(notifier.send("READY=1", &[]).is_err());
        let _listener = UnixDatagram::bind(&path).unwrap();
        let full = std::iter::from_fn(|| notifier.send("WATCHDOG=1", &[]).err()).next();
        assert!(full.is_none());
        let error = (0..100_000).find_map(|_| notifier.send("WATCHDOG=1", &[]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
