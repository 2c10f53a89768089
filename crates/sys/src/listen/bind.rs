//! Binding: one socket per worker slot, and no stranger among them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to,
    getsockname, listen, socket_with, sockopt,
};

use super::Address;
use super::filter::accept_new;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("{address} is in use by another process; stop that or choose another address")]
    InUse {
        /// The address.
        address: String,
    },
    /// The kernel refuses.
    #[error("cannot bind {address}: {error}")]
    Refused {
        /// The address.
        address: String,
        /// Its reason.
        error: io::Error,
    },
}

impl BindError {
    fn of(address: &Address, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let address = address.to_string();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            _ => Self::Refused { address, error },
        }
    }
}

/// Binds an address `slots` times (Unix sockets: once). Nobody can connect before [`start`].
///
/// The first socket is bound without SO_REUSEPORT, so that it fails if anybody has the address,
/// a second server of the same user included; the option is set on it afterwards, and its
/// siblings join.
///
/// # Errors
/// If somebody else has the address, or this process may not have it.
pub fn bind(address: &Address, slots: usize) -> Result<Vec<OwnedFd>, BindError> {
    match address {
        Address::Unix(path) => {
            let socket = bind_unix(path).map_err(|error| BindError::of(address, error))?;
            Ok(vec![socket])
        }
        Address::Tcp(wanted) => {
            let family = if wanted.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let first = new_socket(family, false)
                .and_then(|socket| {
                    bind_to(&socket, wanted)?;
                    keep_out_others(&socket)?;
                    sockopt::set_socket_reuseport(&socket, true)?;
                    Ok(socket)
                })
                .map_err(|error| BindError::of(address, error))?;
            forget_reuse(&first);
            let mut sockets = vec![first];
            let more = add_slots(&sockets[0], slots.saturating_sub(1))
                .map_err(|error| BindError::of(address, error))?;
            sockets.extend(more);
            Ok(sockets)
        }
    }
}

/// Binds further sockets to the address of one that [`bind`] has made.
///
/// # Errors
/// If no descriptors are to be had.
pub fn add_slots(first: &OwnedFd, more: usize) -> io::Result<Vec<OwnedFd>> {
    let address = getsockname(first)?;
    (0..more)
        .map(|_| {
            let socket = new_socket(address.address_family(), true)?;
            bind_to(&socket, &address)?;
            keep_out_others(&socket)?;
            Ok(socket)
        })
        .collect()
}

/// As [`add_slots`], for a socket that another process has made, perhaps without SO_REUSEPORT.
///
/// # Errors
/// If it is another user's, or no descriptors are to be had.
pub fn join(first: &OwnedFd, more: usize) -> io::Result<Vec<OwnedFd>> {
    sockopt::set_socket_reuseport(first, true)?;
    add_slots(first, more)
}

/// SO_REUSEADDR is for the bind alone, past connections that an earlier server has left: as long
/// as nobody listens, it would let others bind the same address. [`start`] sets it again.
fn keep_out_others(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_reuseaddr(socket, false)
}

/// The kernel keeps in mind that the first socket of a port came with SO_REUSEADDR, and lets
/// others with it in unseen, until one joins that has not. Without effect if it fails: then a
/// second server is told when it listens, and not when it binds.
fn forget_reuse(first: &OwnedFd) {
    let join = || {
        let address = getsockname(first)?;
        let socket = new_socket(address.address_family(), true)?;
        sockopt::set_socket_reuseaddr(&socket, false)?;
        bind_to(&socket, &address)
    };
    let _: rustix::io::Result<()> = join();
}

fn new_socket(family: AddressFamily, reuse_port: bool) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an earlier server that are still closing do not keep the address.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted connections inherit it, so that nobody has to ask for it on each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    match bind_to(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) => {
            take_over_unix(path)?;
            bind_to(&socket, &address)?;
        }
        other => other?,
    }
    Ok(socket)
}

/// Makes room for a Unix socket: one that nobody listens on was left by a server that is gone, and
/// its file is removed. Any other file stays. Nobody waits for whoever may listen there.
///
/// # Errors
/// `AddrInUse` if somebody listens, `AlreadyExists` if there is a file of another kind.
pub fn take_over_unix(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        // A connect to a file of another kind is refused too.
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let text = "there is a file of another kind at this path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // Without blocking: a living server whose queue is full would make it wait for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED) => std::fs::remove_file(path),
        // It has gone by itself.
        Err(rustix::io::Errno::NOENT) => Ok(()),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Lets clients connect, `backlog` of them ahead of whoever accepts; see listen(2). Once more is
/// no harm, and undoes [`refuse_new`](super::refuse_new).
///
/// # Errors
/// If the descriptor is no bound socket.
pub fn start(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    accept_new(socket);
    if sockopt::socket_domain(socket)? != AddressFamily::UNIX {
        // Connections inherit it: those that are still closing do not hinder the next server.
        sockopt::set_socket_reuseaddr(socket, true)?;
    }
    Ok(listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?)
}

/// Ends listening for everybody who holds the socket, whatever they do: clients that wait in its queue
/// are reset, and an address is free. For when there is nobody to close it.
pub fn shut(socket: BorrowedFd<'_>) {
    // One that is no listener any more has nothing to end.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Takes one connection out of the queue, if there is one.
///
/// # Errors
/// `WouldBlock` if there is none.
pub fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::accept_with(socket, flags)?)
}

/// The address that a socket is bound to, with the port that the kernel chose.
///
/// # Errors
/// If it is no socket.
pub fn local_address(socket: &OwnedFd) -> io::Result<String> {
    let address: SocketAddrAny = getsockname(socket.as_fd())?;
    if address.address_family() == AddressFamily::UNIX {
        let address = SocketAddrUnix::try_from(address)?;
        let path = address.path().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(format!("unix:{path}"));
    }
    Ok(std::net::SocketAddr::try_from(address)?.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::refuse_new;
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn bound(slots: usize) -> (Vec<OwnedFd>, std::net::SocketAddr) {
        let sockets = bind(&Address::parse("127.0.0.1:0").unwrap(), slots).unwrap();
        let address = local_address(&sockets[0]).unwrap().parse().unwrap();
        (sockets, address)
    }

    #[test]
    fn siblings_join_and_strangers_of_the_same_user_do_not() {
        let (sockets, address) = bound(3);
        assert_eq!(sockets.len(), 3);
        start(sockets[0].as_fd(), 16).unwrap();
        assert!(matches!(bind(&Address::Tcp(address), 1), Err(BindError::InUse { .. })));
        for socket in &sockets {
            start(socket.as_fd(), 16).unwrap();
        }
        assert_eq!(add_slots(&sockets[0], 2).unwrap().len(), 2);
    }

    /// Whether a socket with these options could be bound there.
    fn stranger(address: std::net::SocketAddr, reuse_address: bool, reuse_port: bool) -> bool {
        let socket = new_socket(AddressFamily::INET, reuse_port).unwrap();
        sockopt::set_socket_reuseaddr(&socket, reuse_address).unwrap();
        bind_to(&socket, &address).is_ok()
    }

    #[test]
    fn an_address_is_closed_to_others_from_the_bind_on() {
        for slots in [1, 3] {
            let (sockets, address) = bound(slots);
            // Before anybody listens, as while a server starts, and afterwards.
            for listening in [false, true] {
                assert!(matches!(bind(&Address::Tcp(address), 1), Err(BindError::InUse { .. })));
                assert!(!stranger(address, true, false), "listening: {listening}");
                assert!(!stranger(address, false, false));
                for socket in &sockets {
                    start(socket.as_fd(), 16).unwrap();
                }
            }
        }
    }

    #[test]
    fn connections_that_are_still_closing_do_not_keep_the_address() {
        let (sockets, address) = bound(2);
        sockets.iter().for_each(|socket| start(socket.as_fd(), 16).unwrap());
        let listeners: Vec<_> = sockets.into_iter().map(TcpListener::from).collect();
        for _ in 0..8 {
            let mut client = TcpStream::connect(address).unwrap();
            let accepted = loop {
                if let Some(found) = listeners.iter().find_map(|it| it.accept().ok()) {
                    break found.0;
                }
            };
            assert!(accepted.nodelay().unwrap(), "inherited from the listener");
            // The side that closes first is the one whose socket lingers in TIME_WAIT.
            drop(accepted);
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
        drop(listeners);
        assert_eq!(bind(&Address::Tcp(address), 4).unwrap().len(), 4);
    }

    #[test]
    fn after_refuse_new_the_queue_can_be_emptied_without_a_reset() {
        let (sockets, address) = bound(1);
        start(sockets[0].as_fd(), 16).unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        refuse_new(sockets[0].as_fd());
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert!(late.is_err(), "a connection came in behind the closed door");
        let listener = TcpListener::from(sockets.into_iter().next().unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        accepted.set_nonblocking(false).unwrap();
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        let mut text = String::new();
        early.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn a_refused_listener_can_be_started_again() {
        let (sockets, address) = bound(1);
        start(sockets[0].as_fd(), 16).unwrap();
        refuse_new(sockets[0].as_fd());
        start(sockets[0].as_fd(), 16).unwrap();
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn a_stale_unix_socket_is_taken_over_and_a_living_one_is_not() {
        let folder = std::env::temp_dir().join(format!("shiftwork-unix-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let address = Address::Unix(folder.join("s.sock"));
        let first = bind(&address, 4).unwrap();
        assert_eq!(first.len(), 1);
        start(first[0].as_fd(), 4).unwrap();
        assert!(matches!(bind(&address, 1), Err(BindError::InUse { .. })));
        // Neither does one whose queue is full keep the second waiting.
        let path = address.unix_path().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut clients = Vec::new();
        loop {
            let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            if rustix::net::connect(&client, &SocketAddrUnix::new(path).unwrap()).is_err() {
                break;
            }
            clients.push(client);
        }
        assert!(matches!(bind(&address, 1), Err(BindError::InUse { .. })));
        drop(first);
        bind(&address, 1).unwrap();
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, "precious").unwrap();
        assert!(bind(&address, 1).is_err());
        assert_eq!(std::fs::read(path).unwrap(), b"precious");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
