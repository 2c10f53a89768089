//! A byte stream with the two buffers that must not be forgotten when it changes hands.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Anything that can carry a connection: a TCP or Unix stream, or a pipe in memory in tests.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Back to the concrete type, by way of [`Any`].
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// One read takes at most this many bytes while nothing is half read.
const SMALL_READ: usize = 8 * 1024;
/// Reads in the middle of a large message take more.
const LARGE_READ: usize = 64 * 1024;

/// A stream, what was read from it and not used yet, and what is to be written to it.
///
/// tokio-util's `Framed` gives both buffers back as well, but keeps 16 KiB for a connection that
/// only waits. Here small reads go through the stack: a waiting connection holds no buffer at all.
pub(crate) struct Wire {
    pub(crate) stream: Box<dyn Transport>,
    pub(crate) unread: BytesMut,
    pub(crate) unsent: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Transport>, unread: Bytes) -> Self {
        Wire { stream, unread: unread.into(), unsent: BytesMut::new() }
    }

    /// Reads what there is into `unread`. Zero is the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.unread.len() >= SMALL_READ {
            self.unread.reserve(LARGE_READ);
            return pin!(self.stream.read_buf(&mut self.unread)).poll(cx);
        }
        let mut space = [const { MaybeUninit::<u8>::uninit() }; SMALL_READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        self.unread.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Reads and throws away. Zero is the end of the stream.
    pub(crate) async fn discard(&mut self) -> io::Result<usize> {
        self.unread.clear();
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Writes some of `unsent`; returns how many bytes, zero only when there is nothing to write.
    pub(crate) async fn write_some(&mut self) -> io::Result<usize> {
        if self.unsent.is_empty() {
            return Ok(0);
        }
        let written = poll_fn(|cx| Pin::new(&mut self.stream).poll_write(cx, &self.unsent)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unsent.advance(written);
        Ok(written)
    }

    /// Hands over what the stream itself may have buffered.
    pub(crate) async fn flush_stream(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_flush(cx)).await
    }

    /// Ends our direction of the stream.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }

    /// Gives back the memory of empty buffers; called before a wait.
    pub(crate) fn rest(&mut self) {
        if self.unread.is_empty() && self.unread.capacity() > 0 {
            self.unread = BytesMut::new();
        }
        if self.unsent.is_empty() && self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
    }
}
