//! SOCK_SEQPACKET sockets between processes: whole messages, with descriptors.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, send, sendmsg, socketpair, sockopt,
};

/// Descriptors that fit into one message: the kernel's own limit.
pub const MOST_FDS: usize = 253;

/// Room for [`MOST_FDS`] descriptors and one set of credentials, with their headers.
const CONTROL_SPACE: usize = 1088;

/// Ancillary data has to be aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SPACE]);

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
    /// Who sent it, if that was asked for with [`Channel::pass_credentials`]. None also for what
    /// was sent before that, or from another pid namespace.
    pub pid: Option<i32>,
    /// Whether the message was longer than the buffer, or brought more descriptors than this
    /// process may have. What did not fit is lost; descriptors that did are closed again and
    /// `fds` is empty, so that half a message is not taken for a whole one.
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
    /// many descriptors of this user are under way (nothing becomes ready when that changes: try
    /// again later); `BrokenPipe` if the other side has closed; `InvalidInput` for more than
    /// [`MOST_FDS`] descriptors, and for no bytes at all, which would look like the end.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.is_empty() {
            return self.send_bytes(bytes);
        }
        refuse_empty(bytes)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        retry_on_intr(|| {
            sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives a message.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = Control([0; CONTROL_SPACE]);
        let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a msghdr is plain data, for which zeroes are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut slice;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_SPACE as _;
        let len = retry_on_intr(|| {
            // SAFETY: what the message points to is alive, writable and as long as it says.
            let len = unsafe {
                libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
            };
            usize::try_from(len).map_err(|_| last_errno())
        })?;
        // SAFETY: the kernel has just filled the message, and its control buffer is alive.
        let (mut fds, pid) = unsafe { unpack(&message) };
        let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        if truncated {
            fds.clear();
        }
        Ok(Received { len, fds, pid, truncated })
    }

    /// Receives a message into memory of its own, no more than it needs and at most `most` bytes. For
    /// whoever hears little and seldom: a buffer for the largest message would have to be written to
    /// with zeroes each time, or be kept for good in every process. Only for an end with one reader.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn receive(&self, most: usize) -> io::Result<(Vec<u8>, Received)> {
        // So the kernel tells the length of the next message and leaves it where it is.
        let ask = RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, len) = retry_on_intr(|| recv(&self.fd, &mut [0_u8; 0][..], ask))?;
        let mut bytes = vec![0; len.min(most)];
        let received = self.recv(&mut bytes)?;
        bytes.truncate(received.len);
        Ok((bytes, received))
    }

    /// Sends a message without descriptors: the short way, for tasks.
    ///
    /// # Errors
    /// As [`Channel::send`].
    #[inline]
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        refuse_empty(bytes)?;
        retry_on_intr(|| send(&self.fd, bytes, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives a message without descriptors: the short way, for tasks. 0: the other side has
    /// closed. Descriptors that came along are closed.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `InvalidData` if it was longer than the buffer, and is lost.
    #[inline]
    pub fn recv_bytes(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        // With this flag the kernel gives the message's own length, however much of it fits.
        let (_, len) = retry_on_intr(|| recv(&self.fd, &mut *buffer, RecvFlags::TRUNC))?;
        if len > room {
            let text = format!("a message of {len} bytes, and room for {room}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
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

/// A message without bytes could not be told from the end.
#[inline]
fn refuse_empty(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message without bytes"));
    }
    Ok(())
}

fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Descriptors and sender of a message. By hand, because the kernel says pid 0 for a sender that
/// it does not know, which the wrappers' types cannot hold.
///
/// # Safety
/// recvmsg has filled `message`, its control buffer is alive, and this is the only call for it:
/// the descriptors are owned from here on.
unsafe fn unpack(message: &libc::msghdr) -> (Vec<OwnedFd>, Option<i32>) {
    let (mut fds, mut pid) = (Vec::new(), None);
    // SAFETY: the macros stay within what the kernel says it has written; the descriptors were
    // installed for this process a moment ago, and nobody else knows them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let len = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for index in 0..len / size_of::<RawFd>() {
                        let number = ptr::read_unaligned(data.cast::<RawFd>().add(index));
                        fds.push(OwnedFd::from_raw_fd(number));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                    let sender = ptr::read_unaligned(data.cast::<libc::ucred>());
                    pid = (sender.pid > 0).then_some(sender.pid);
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (fds, pid)
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
    fn a_message_is_received_into_what_it_needs() {
        let (one, two) = Channel::pair().unwrap();
        assert_eq!(two.receive(64).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_, writer) = std::io::pipe().unwrap();
        one.send(b"first", &[writer.as_fd()]).unwrap();
        one.send_bytes(&[7; 64]).unwrap();
        one.send_bytes(&[7; 65]).unwrap();
        drop(one);
        let (bytes, received) = two.receive(64).unwrap();
        assert_eq!((&bytes[..], received.fds.len(), received.truncated), (&b"first"[..], 1, false));
        let (bytes, received) = two.receive(64).unwrap();
        assert_eq!((bytes.len(), bytes.capacity(), received.truncated), (64, 64, false));
        let (bytes, received) = two.receive(64).unwrap();
        assert_eq!((bytes.len(), received.truncated), (64, true), "longer than is accepted");
        let (bytes, received) = two.receive(64).unwrap();
        assert!(bytes.is_empty() && received.fds.is_empty(), "the end");
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

    #[test]
    fn as_many_descriptors_as_the_kernel_takes_travel_in_one_message() {
        let (one, two) = Channel::pair().unwrap();
        let many = vec![one.as_fd(); MOST_FDS];
        one.send(b"all", &many).unwrap();
        two.pass_credentials(true).unwrap();
        assert_eq!(two.recv(&mut [0; 8]).unwrap().fds.len(), MOST_FDS);
        let too_many = vec![one.as_fd(); MOST_FDS + 1];
        let error = one.send(b"more", &too_many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(two.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn half_a_message_brings_no_descriptor() {
        let (one, two) = Channel::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        one.send(b"too long", &[writer.as_fd()]).unwrap();
        drop(writer);
        let received = two.recv(&mut [0; 3]).unwrap();
        assert!(received.truncated && received.fds.is_empty());
        let mut text = String::new();
        assert_eq!(reader.read_to_string(&mut text).unwrap(), 0, "the descriptor is closed");
        one.send_bytes(b"too long").unwrap();
        assert_eq!(two.recv_bytes(&mut [0; 3]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nothing_at_all_cannot_be_sent() {
        let (one, two) = Channel::pair().unwrap();
        assert!(one.send_bytes(b"").is_err() && one.send(b"", &[two.as_fd()]).is_err());
        drop(two);
        assert_eq!(one.send_bytes(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_kernel_names_the_sender_where_it_was_asked_to() {
        let (one, two) = Channel::pair().unwrap();
        one.send_bytes(b"before").unwrap();
        two.pass_credentials(true).unwrap();
        one.send_bytes(b"after").unwrap();
        assert_eq!(two.recv(&mut [0; 8]).unwrap().pid, None);
        let own = std::process::id().cast_signed();
        assert_eq!(two.recv(&mut [0; 8]).unwrap().pid, Some(own));
    }
}
