//! Request and response bodies, with what they hold.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Full, Limited};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::BoxError;
use super::link::{BodyGuard, Ticket};

/// The body of a request, as it comes from the client.
///
/// Reading it fails with [`http_body_util::LengthLimitError`] when it is longer than the limit
/// `body_size`, and with [`hyper::Error`] when the client goes away or breaks the protocol; both can
/// be had by `downcast`.
pub struct RequestBody {
    incoming: Limited<Incoming>,
    guard: BodyGuard,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, limit: u64, guard: BodyGuard) -> RequestBody {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        RequestBody { incoming: Limited::new(incoming, limit), guard }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        // An announced length is read when its last byte is; a chunked body only when its end is.
        if frame.is_none() || self.incoming.is_end_stream() {
            self.guard.finished();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        /// What the application answers.
        Answer { #[pin] body: B },
        /// What we answer for it.
        Text { text: Full<Bytes> },
    }
}

pin_project! {
    /// The body of an answer; keeps its request in hand until hyper has taken all of it.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
        _ticket: Ticket,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn answer(body: B, ticket: Ticket) -> Self {
        ResponseBody { kind: Kind::Answer { body }, _ticket: ticket }
    }

    pub(super) fn text(text: impl Into<Bytes>, ticket: Ticket) -> Self {
        ResponseBody { kind: Kind::Text { text: Full::new(text.into()) }, _ticket: ticket }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProjection::Answer { body } => {
                body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            KindProjection::Text { text } => Pin::new(text)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Answer { body } => body.is_end_stream(),
            Kind::Text { text } => text.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Answer { body } => body.size_hint(),
            Kind::Text { text } => text.size_hint(),
        }
    }
}
