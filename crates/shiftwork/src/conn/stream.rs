//! A connected stream socket, TCP or Unix, that can leave this process again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Peer;

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// A TCP connection that was just accepted. Turns Nagle's algorithm off: answers are written
    /// whole.
    pub fn accepted_tcp(stream: TcpStream) -> Stream {
        // Only fails on a socket that is broken already, which the first read will tell.
        let _ = stream.set_nodelay(true);
        Stream::Tcp(stream)
    }

    /// Takes up a connected socket and registers it with the runtime's poller.
    ///
    /// # Errors
    /// When it is no stream socket of a known family or cannot be registered.
    pub fn adopt(socket: OwnedFd) -> io::Result<Stream> {
        let tcp = std::net::TcpStream::from(socket);
        // The own address, unlike the peer's, is there even when the client has gone by now.
        if tcp.local_addr().is_ok() {
            tcp.set_nonblocking(true)?;
            return TcpStream::from_std(tcp).map(Stream::Tcp);
        }
        let unix = std::os::unix::net::UnixStream::from(OwnedFd::from(tcp));
        unix.local_addr()?;
        unix.set_nonblocking(true)?;
        UnixStream::from_std(unix).map(Stream::Unix)
    }

    /// Takes the socket away from the runtime's poller: from here on nothing in this process reacts
    /// to it. The connection itself is not touched.
    ///
    /// # Errors
    /// When the poller refuses, in which case the socket is closed.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Stream::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// When the client has gone already.
    pub fn peer(&self) -> io::Result<Peer> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map(Peer::Tcp),
            Stream::Unix(stream) => {
                let them = stream.peer_cred()?;
                Ok(Peer::Unix { uid: them.uid(), pid: them.pid().unwrap_or(0) })
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::Unix(stream)
    }
}

macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            Stream::Unix(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(cx))
    }
}
