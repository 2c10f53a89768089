//! The socket as hyper sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::link::Link;
use crate::conn::Stream;

/// The socket with the bytes that another worker has read from it, under our rules: what was written
/// is known to have left, nothing is read at the wrong time, and nothing is ever shut down.
pub(super) struct Io {
    stream: TokioIo<Stream>,
    prefix: Bytes,
    /// What hyper has to say for itself.
    refusal: Vec<u8>,
    link: Arc<Link>,
}

/// What remains of it when hyper is done.
pub(super) struct Rest {
    pub(super) stream: Stream,
    /// What is left of the bytes that came with the socket.
    pub(super) prefix: Bytes,
    /// hyper's answer to something that is no request, not sent yet; mostly empty.
    pub(super) refusal: Vec<u8>,
}

impl Io {
    pub(super) fn new(stream: Stream, prefix: Bytes, link: Arc<Link>) -> Io {
        Io { stream: TokioIo::new(stream), prefix, refusal: Vec::new(), link }
    }

    pub(super) fn into_rest(self) -> Rest {
        Rest { stream: self.stream.into_inner(), prefix: self.prefix, refusal: self.refusal }
    }

    /// Whether hyper speaks unasked. It does so once, about a head that it cannot read, and then is
    /// done with the connection: the driver says it in its place, with the application's marks.
    #[inline]
    fn is_refusal(&self) -> bool {
        self.link.is_quiet()
    }

    #[inline]
    fn written(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = poll {
            self.link.conn.progress();
        }
        poll
    }
}

impl Read for Io {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // No waker is left behind: the driver is woken by what changes the answer.
        if !self.link.may_read() {
            return Poll::Pending;
        }
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..length]);
            self.prefix.advance(length);
            self.link.bytes_came();
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.link.bytes_came();
        }
        read
    }
}

impl Write for Io {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal() {
            self.refusal.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.link.conn.set_unsent(true);
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(poll)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal() {
            let before = self.refusal.len();
            slices.iter().for_each(|bytes| self.refusal.extend_from_slice(bytes));
            return Poll::Ready(Ok(self.refusal.len() - before));
        }
        self.link.conn.set_unsent(true);
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when its own buffer is empty: then all has been written.
    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.link.conn.set_unsent(false);
        }
        flushed
    }

    /// Never: hyper's word for "done" is also its word for "idle", and the socket may be shared with
    /// the worker that serves it next. The driver shuts down what is really over.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
