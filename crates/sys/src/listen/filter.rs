//! A door that lets those out of the queue and nobody in: a socket filter that drops SYNs.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Offset of the flags in a TCP header, and the two that matter.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Refuses connections that have not begun: their SYNs are dropped, so that the client tries
/// again, and finds the address closed or taken by then. Those in the queue, and handshakes that
/// have begun, are not touched. No effect on Unix sockets.
///
/// Closing a listener resets what waits in its queue; between the last accept and the close there
/// is always a moment. Behind this door there is none, once nothing waits in the queue any more
/// ([`waiting`]) and no handshake is under way ([`half_open`]).
pub fn refuse_new(socket: BorrowedFd<'_>) {
    let statement =
        |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS, 0, 0),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, SYN, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ];
    if !is_tcp(socket) {
        return;
    }
    let attached = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call is over. A refusal leaves
    // the short moment described above, nothing worse.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const attached).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        );
    }
}

/// Takes the door away again.
pub(super) fn accept_new(socket: BorrowedFd<'_>) {
    let nothing: libc::c_int = 0;
    // SAFETY: the option takes an int that it does not look at; without a filter it is an error
    // that changes nothing.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const nothing).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn is_tcp(socket: BorrowedFd<'_>) -> bool {
    use rustix::net::{AddressFamily, sockopt::socket_domain};
    socket_domain(socket).is_ok_and(|it| it == AddressFamily::INET || it == AddressFamily::INET6)
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

/// How many handshakes with the port of this socket have begun and are not over: their clients may
/// believe that they are connected already, and will be in the queue of this socket or of one of
/// its siblings a round trip later. 0 for Unix sockets.
///
/// Reads the list of all connections of the machine (milliseconds, where there are tens of
/// thousands), so it is for the end of a listener and not for every turn.
///
/// # Errors
/// If /proc is not there.
pub fn half_open(socket: BorrowedFd<'_>) -> io::Result<usize> {
    if !is_tcp(socket) {
        return Ok(0);
    }
    let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    let list = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = std::fs::read_to_string(list)?;
    Ok(text.lines().filter(|line| is_half_open(line, address.port())).count())
}

/// Whether a line of the list is a handshake (state 3, SYN_RECV) with this port.
fn is_half_open(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next().and_then(|it| it.rsplit_once(':'));
    let same = local.is_some_and(|(_, it)| u16::from_str_radix(it, 16) == Ok(port));
    same && words.nth(1) == Some("03")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_handshake_is_known_by_its_state_and_port() {
        let line = "  1: 0100007F:251D 0100007F:D431 03 00000000:00000000 01:00000064";
        assert!(is_half_open(line, 9501));
        assert!(!is_half_open(&line.replace(" 03 ", " 01 "), 9501));
        assert!(!is_half_open(line, 9502));
        assert!(!is_half_open("  sl  local_address rem_address   st tx_queue", 9501));
        assert!(!is_half_open("", 9501));
    }

    #[test]
    fn what_waits_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(waiting(listener.as_fd()).unwrap(), 0);
        let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(waiting(listener.as_fd()).unwrap(), 3);
        assert_eq!(half_open(listener.as_fd()).unwrap(), 0);
        refuse_new(listener.as_fd());
        assert_eq!(waiting(listener.as_fd()).unwrap(), 3);
        listener.accept().unwrap();
        assert_eq!(waiting(listener.as_fd()).unwrap(), 2);
        drop(clients);
    }
}
