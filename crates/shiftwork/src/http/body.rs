//! Request and response bodies, with what they hold.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
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
    /// There until the drop.
    incoming: Option<Limited<Incoming>>,
    guard: BodyGuard,
    /// The client waits for our word (`Expect: 100-continue`) before it sends anything.
    is_held_back: bool,
}

/// The most that is read for a handler which does not read its body to the end. A client that sends
/// more than that in vain finds its connection closed.
const MOST_IN_VAIN: u64 = 1024 * 1024;

impl RequestBody {
    #[inline]
    pub(super) fn new(incoming: Incoming, limit: u64, guard: BodyGuard, held_back: bool) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let incoming = Some(Limited::new(incoming, limit));
        RequestBody { incoming, guard, is_held_back: held_back }
    }

    /// Of a request that came over no connection.
    pub(super) fn none() -> Self {
        RequestBody { incoming: None, guard: BodyGuard::none(), is_held_back: false }
    }
}

impl Drop for RequestBody {
    /// hyper closes a connection of whose request a part is left. So what a handler leaves is read
    /// in its place, unless it is much or will perhaps never be sent.
    #[inline]
    fn drop(&mut self) {
        if self.guard.is_open() {
            self.leave();
        }
    }
}

impl RequestBody {
    fn leave(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        if incoming.is_end_stream() {
            return self.guard.finished();
        }
        if self.is_held_back || incoming.size_hint().lower() > MOST_IN_VAIN {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let guard = std::mem::replace(&mut self.guard, BodyGuard::none());
            runtime.spawn(read_in_vain(incoming, guard));
        }
    }
}

async fn read_in_vain(mut incoming: Limited<Incoming>, mut guard: BodyGuard) {
    let mut total = 0;
    while total <= MOST_IN_VAIN {
        // Asked first: hyper does not end an announced body by itself once the answer has gone.
        if incoming.is_end_stream() {
            return guard.finished();
        }
        match incoming.frame().await {
            None => return guard.finished(),
            Some(Ok(frame)) => total += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        this.is_held_back = false;
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if let Some(Err(_)) = frame {
            // Nothing more is read of it, and the answer can say so.
            this.guard = BodyGuard::none();
        } else if frame.is_none() || incoming.is_end_stream() {
            // An announced length is read when its last byte is; a chunked body only when its end is.
            this.guard.finished();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
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
