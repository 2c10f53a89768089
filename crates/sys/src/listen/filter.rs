//! A door that lets those out of the queue and nobody in.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, sockopt};

/// Offset of the flags in a TCP header, and the two that matter.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// No packet that has crossed a router has this many hops left, and hardly a system begins with it.
const ALL_HOPS: libc::c_int = 255;

/// Refuses connections that have not begun: their SYNs are dropped, so that the client tries
/// again, and finds the address closed or taken by then. Those in the queue, and handshakes that
/// have begun, are not touched; what is accepted from here on has to be [`welcome`]d. No effect on
/// Unix sockets. [`start`](super::start) undoes it.
///
/// Closing a listener resets what waits in its queue; between the last accept and the close there
/// is always a moment. Behind this door there is none, once nothing waits in the queue any more
/// ([`waiting`]) and no handshake is under way ([`half_open`](super::half_open)).
pub fn refuse_new(socket: BorrowedFd<'_>) {
    // Some kernels keep filters on TCP sockets for the privileged.
    if is_tcp(socket) && !drop_syns(socket) {
        demand_hops(socket, ALL_HOPS);
    }
}

/// Lifts from an accepted connection what [`refuse_new`] has done to its listener: without a
/// filter it is done by a demand that the connection inherits and that its packets do not meet.
/// To be called for each connection accepted after it, and no harm to any other. The client sends
/// again what was dropped in between.
pub fn welcome(accepted: BorrowedFd<'_>) {
    if is_tcp(accepted) {
        demand_hops(accepted, 0);
    }
}

/// Takes the door away again: for a socket that goes back to whoever has opened it.
/// [`start`](super::start) does the same.
pub fn accept_new(socket: BorrowedFd<'_>) {
    if is_tcp(socket) {
        // Without a filter this is an error that changes nothing.
        set(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0);
        demand_hops(socket, 0);
    }
}

/// A socket filter that drops packets with SYN and without ACK. False: the kernel refuses.
fn drop_syns(socket: BorrowedFd<'_>) -> bool {
    let statement =
        |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // It sees a packet from its TCP header on, and says how many of its bytes pass.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS, 0, 0),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, SYN, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ];
    let attached = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &attached)
}

/// Has the listener ignore SYNs with fewer hops left than that (0: none). The kernel looks at it
/// for new connections only, after those whose handshake has begun have found theirs.
pub(super) fn demand_hops(socket: BorrowedFd<'_>, least: libc::c_int) -> bool {
    match sockopt::socket_domain(socket) {
        Ok(AddressFamily::INET6) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
        _ => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
    }
}

/// setsockopt(2), for options that the kernel copies.
fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> bool {
    // SAFETY: the value is alive and as long as is said, and what it points to (the program of a
    // filter) lives in the caller until the call is over.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    result == 0
}

fn is_tcp(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(socket)
        .is_ok_and(|it| it == AddressFamily::INET || it == AddressFamily::INET6)
}

/// How many connections wait to be accepted on this very socket. 0 for Unix sockets, whose queue
/// is only known by accepting.
///
/// # Errors
/// If it is no socket.
pub fn waiting(socket: BorrowedFd<'_>) -> io::Result<u32> {
    if !is_tcp(socket) {
        return Ok(0);
    }
    // SAFETY: tcp_info is plain data, for which zeroes are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Of a listener, the kernel says the length of its accept queue there.
    Ok(info.tcpi_unacked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn what_waits_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(waiting(listener.as_fd()).unwrap(), 0);
        let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(waiting(listener.as_fd()).unwrap(), 3);
        refuse_new(listener.as_fd());
        assert_eq!(waiting(listener.as_fd()).unwrap(), 3);
        listener.accept().unwrap();
        assert_eq!(waiting(listener.as_fd()).unwrap(), 2);
        drop(clients);
    }

    #[test]
    fn without_a_filter_new_ones_are_kept_out_as_well() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            assert!(demand_hops(listener.as_fd(), ALL_HOPS));
            let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            assert!(late.is_err(), "a connection came in behind the closed door");
            let (mut accepted, _) = listener.accept().unwrap();
            welcome(accepted.as_fd());
            early.write_all(b"still heard").unwrap();
            let mut text = [0; 11];
            accepted.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"still heard");
            accept_new(listener.as_fd());
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        }
    }

    #[test]
    fn a_connection_that_inherited_the_demand_is_welcomed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        assert!(demand_hops(accepted.as_fd(), ALL_HOPS));
        client.write_all(b"x").unwrap();
        welcome(accepted.as_fd());
        // It was dropped at first; the client's kernel sends it again.
        accepted.read_exact(&mut [0; 1]).unwrap();
    }
}
