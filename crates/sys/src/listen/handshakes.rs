//! Handshakes that are under way: clients that are neither outside nor in a queue yet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

/// A socket's state in which its handshake is half done.
const SYN_RECV: u8 = 3;
/// The protocol number of TCP.
const TCP: u8 = 6;
/// Length of the header of every netlink message.
const HEADER: usize = 16;
/// Of a question, and of an answer about one socket.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// A list is asked for.
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// How many handshakes with the port of this socket have begun and are not over: their clients may
/// believe that they are connected already, and will be in the queue of this socket or of one of
/// its siblings a round trip later. 0 for Unix sockets.
///
/// # Errors
/// If the kernel does not tell, and /proc is not there.
pub fn half_open(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let family = sockopt::socket_domain(socket)?;
    if family != AddressFamily::INET && family != AddressFamily::INET6 {
        return Ok(0);
    }
    let port = SocketAddr::try_from(rustix::net::getsockname(socket)?)?.port();
    // The kernel picks them out in no time, however many connections the machine has; reading them
    // all from /proc takes a tenth of a second where there are tens of thousands.
    asked(family, port).or_else(|_| listed(family, port))
}

/// Asked by sock_diag(7), which some containers do not have.
fn asked(family: AddressFamily, port: u16) -> io::Result<usize> {
    let protocol = Some(netlink::SOCK_DIAG);
    let kernel =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
    send(kernel.as_fd(), &question(family, port), SendFlags::empty())?;
    let mut found = 0;
    // As much as the kernel writes at a time.
    let mut answer = vec![0; 32 * 1024];
    loop {
        let (length, _) = recv(kernel.as_fd(), &mut answer[..], RecvFlags::empty())?;
        let (more, done) = count(&answer[..length])?;
        found += more;
        if done {
            return Ok(found);
        }
    }
}

/// A `nlmsghdr` and an `inet_diag_req_v2`: which TCP sockets of this port are in that state?
fn question(family: AddressFamily, port: u16) -> [u8; 72] {
    let mut question = [0; 72];
    question[..4].copy_from_slice(&72_u32.to_ne_bytes());
    question[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    question[HEADER] = family.as_raw() as u8;
    question[HEADER + 1] = TCP;
    question[HEADER + 4..HEADER + 8].copy_from_slice(&(1_u32 << SYN_RECV).to_ne_bytes());
    question[HEADER + 8..HEADER + 10].copy_from_slice(&port.to_be_bytes());
    question
}

/// How many sockets a part of the answer tells of, and whether it is the last part.
fn count(mut messages: &[u8]) -> io::Result<(usize, bool)> {
    let mut found = 0;
    while let Some((length, kind)) = header(messages) {
        match kind {
            SOCK_DIAG_BY_FAMILY => found += 1,
            DONE => return Ok((found, true)),
            ERROR => return Err(io::Error::other("the kernel does not tell of its sockets")),
            _ => {}
        }
        // Each begins at a multiple of four.
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // An empty answer is none: there would be nothing to wait for.
    if found == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((found, false)) }
}

fn header(message: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(message.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (length >= HEADER).then_some((length, kind))
}

/// Read from the list of all connections of the machine.
fn listed(family: AddressFamily, port: u16) -> io::Result<usize> {
    let list = if family == AddressFamily::INET { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = std::fs::read_to_string(list)?;
    Ok(text.lines().filter(|line| is_half_open(line, port)).count())
}

/// Whether a line of the list is a handshake with this port.
fn is_half_open(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next().and_then(|it| it.rsplit_once(':'));
    let same = local.is_some_and(|(_, it)| u16::from_str_radix(it, 16) == Ok(port));
    let state = words.nth(1).and_then(|it| u8::from_str_radix(it, 16).ok());
    same && state == Some(SYN_RECV)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::filter::demand_hops;
    use super::*;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

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
    fn handshakes_are_counted_either_way() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (Ok(listener), Ok(other)) = (TcpListener::bind(host), TcpListener::bind(host))
            else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            assert_eq!(half_open(listener.as_fd()).unwrap(), 0);
            // A client that never hears the server's answer.
            let client =
                socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
            assert!(demand_hops(client.as_fd(), 255));
            let _ = rustix::net::connect(client.as_fd(), &address);
            let deadline = Instant::now() + Duration::from_secs(10);
            while half_open(listener.as_fd()).unwrap() == 0 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            // Some containers do not let anybody ask.
            assert!(asked(family, address.port()).unwrap_or(1) == 1);
            // The list can name one several times, while it changes.
            assert!(listed(family, address.port()).unwrap() >= 1);
            assert_eq!(half_open(other.as_fd()).unwrap(), 0);
        }
    }

    #[test]
    fn what_the_kernel_would_never_say_is_an_error() {
        for text in [&b""[..], &[0; 16], &[1; 40], &[255; 15]] {
            assert!(count(text).is_err(), "{text:?}");
        }
    }
}
