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
    link: Arc<Link>,
}

impl Io {
    pub(super) fn new(stream: Stream, prefix: Bytes, link: Arc<Link>) -> Io {
        Io { stream: TokioIo::new(stream), prefix, link }
    }

    /// The socket, and what is left of the bytes that came with it.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream.into_inner(), self.prefix)
    }

    fn written(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = poll {
            self.link.conn.progress();
        }
        poll
    }
}

impl Read for Io {
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.conn.set_unsent(true);
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.conn.set_unsent(true);
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when its own buffer is empty: then all has been written.
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
