//! SOCK_SEQPACKET sockets between processes: whole messages, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg,
    send, sendmsg, socketpair, sockopt,
};

/// Descriptors that fit into one message; the kernel's own limit is 253.
pub const MOST_FDS: usize = 128;

/// One end of a SOCK_SEQPACKET pair. Close-on-exec and non-blocking from the start.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// A message that was received.
#[derive(Debug)]
pub struct Received {
    /// Its length; 0 and no descriptors: the other side has closed.
    pub len: usize,
    /// Its descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Who sent it, if that was asked for with [`Channel::pass_credentials`].
    pub pid: Option<i32>,
    /// Whether the message was longer than the buffer, or brought more descriptors than this
    /// process may have; what did not fit is lost.
    pub truncated: bool,
}

impl Channel {
    /// Makes a connected pair.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { fd: one }, Self { fd: two }))
    }

    /// Makes a pair whose both ends hold up to `bytes` of messages on their way. Beyond what an
    /// ordinary user may ask for (`net.core.wmem_max`) the kernel gives less, without a word.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn pair_sized(bytes: usize) -> io::Result<(Self, Self)> {
        let (one, two) = Self::pair()?;
        for end in [&one, &two] {
            if sockopt::set_socket_send_buffer_size_force(&end.fd, bytes).is_err() {
                sockopt::set_socket_send_buffer_size(&end.fd, bytes)?;
            }
        }
        Ok((one, two))
    }

    /// Takes over a descriptor that is such a socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Gives the descriptor back.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Another descriptor of the same end.
    ///
    /// # Errors
    /// If no descriptor is to be had.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Whether calls wait. The setting belongs to the end, not to the descriptor: duplicates have
    /// it too.
    ///
    /// # Errors
    /// If the descriptor is no socket.
    pub fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, !blocking)?)
    }

    /// Has the kernel attach the sender's pid to what is received here.
    ///
    /// # Errors
    /// If the descriptor is no Unix socket.
    pub fn pass_credentials(&self, pass: bool) -> io::Result<()> {
        Ok(sockopt::set_socket_passcred(&self.fd, pass)?)
    }

    /// Sends a message with descriptors: all or nothing.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room; `EMSGSIZE` if it can never fit; `ETOOMANYREFS` if too
    /// many descriptors of this user are under way; `BrokenPipe` if the other side has closed.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.is_empty() {
            return self.send_bytes(bytes);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let got = recvmsg(&self.fd, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        let mut pid = None;
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(it) => {
                    pid = Some(it.pid.as_raw_nonzero().get());
                }
                _ => {}
            }
        }
        let truncated = got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        Ok(Received { len: got.bytes, fds, pid, truncated })
    }

    /// Sends a message without descriptors: the short way, for tasks.
    ///
    /// # Errors
    /// As [`Channel::send`].
    #[inline]
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.fd, bytes, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message without descriptors: the short way, for tasks. 0: the other side has
    /// closed.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    #[inline]
    pub fn recv_bytes(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = recv(&self.fd, buffer, RecvFlags::empty())?;
        Ok(len)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Whether a socket is one in the file system, not one over IP.
///
/// # Errors
/// If the descriptor is no socket.
pub fn is_unix(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_domain(fd)? == AddressFamily::UNIX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_travels_and_is_close_on_exec() {
        let (one, two) = Channel::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        one.send(b"take this", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let mut received = two.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..received.len], b"take this");
        let fd = received.fds.pop().unwrap();
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut file = std::fs::File::from(fd);
        file.write_all(b"x").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_full_socket_says_so_and_an_ended_one_too() {
        let (one, two) = Channel::pair().unwrap();
        let mut sent = 0;
        let error = loop {
            match one.send_bytes(&[7; 64]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        for _ in 0..sent {
            assert_eq!(two.recv_bytes(&mut buffer).unwrap(), 64);
        }
        assert_eq!(two.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        let received = two.recv(&mut buffer).unwrap();
        assert!(received.len == 0 && received.fds.is_empty());
    }
}
