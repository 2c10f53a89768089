//! A door that lets those out of the queue and nobody in: a socket filter that drops SYNs.

#![allow(unsafe_code)]

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
/// is always a moment. Behind this door there is none.
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
