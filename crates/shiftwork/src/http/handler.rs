//! From hyper's request to the application's service and back, with everything that may happen.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tower_service::Service;

use super::BoxError;
use super::UpgradeTo;
use super::body::{RequestBody, ResponseBody};
use super::current::Current;
use super::limits::HttpLimits;
use super::link::{BodyGuard, Link, Ticket};
use super::refuse;
use crate::conn::{Orders, panics};

/// What a service must be to serve HTTP here; holds for every fitting `tower` service, so never
/// implement it.
pub trait HttpService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::Answer>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Answer: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Answer = B;
}

/// The application's service as hyper calls it, for one connection.
pub(super) struct Dispatch<S> {
    service: RefCell<S>,
    link: Arc<Link>,
    body_size: u64,
    detach: bool,
}

impl<S> Dispatch<S> {
    pub(super) fn new(service: S, link: Arc<Link>, limits: &HttpLimits) -> Dispatch<S> {
        Dispatch {
            service: RefCell::new(service),
            link,
            body_size: limits.effective_body_size(),
            detach: !limits.cancel_on_disconnect,
        }
    }

    pub(super) fn into_service(self) -> S {
        self.service.into_inner()
    }
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for Dispatch<S> {
    type Response = Response<ResponseBody<S::Answer>>;
    type Error = Infallible;
    type Future = Handler<S>;

    fn call(&self, request: Request<Incoming>) -> Handler<S> {
        let ticket = Ticket::new(&self.link, request.method(), request.uri());
        if request.body().size_hint().lower() > self.body_size {
            self.link.give_up_body();
            return Handler::refused(refuse::answer(StatusCode::PAYLOAD_TOO_LARGE, ticket));
        }
        let is_empty = request.body().is_end_stream();
        let held_back = !is_empty && request.headers().contains_key(EXPECT);
        let (head, incoming) = request.into_parts();
        let guard = match is_empty {
            true => BodyGuard::none(),
            false => BodyGuard::open(&self.link),
        };
        let body = RequestBody::new(incoming, self.body_size, guard, held_back);
        let mut request = Some(Request::from_parts(head, body));
        let service = &mut *self.service.borrow_mut();
        // What crosses `catch` is moved once more each time, so the request and the answer do not.
        let mut stage = Stage::Done;
        // Almost every service is always ready; only one that is not costs a clone. Whichever copy
        // was asked has to be the one that is called, since readiness may be a reservation.
        let begun = panics::catch(|| {
            let ready = service.poll_ready(&mut no_task());
            let Some(request) = request.take() else { return };
            stage = match ready {
                Poll::Ready(Ok(())) => Stage::running(service.call(request)),
                Poll::Ready(Err(error)) => Stage::Failed(error.into()),
                Poll::Pending => {
                    let fresh = service.clone();
                    let waiting = mem::replace(service, fresh);
                    Stage::Waiting(Box::new((waiting, request)))
                }
            };
        });
        if let Err(panicked) = begun {
            stage = Stage::Panicked(panicked);
        }
        Handler { stage, ticket: Some(ticket), detach: self.detach }
    }
}

fn no_task() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

enum Stage<S: HttpService> {
    /// The service is not ready.
    Waiting(Box<(S, Request<RequestBody>)>),
    /// The handler runs. In a box, so that it can leave for a task of its own.
    Running(Pin<Box<S::Future>>),
    /// We answer in its place.
    Refused(Box<Response<ResponseBody<S::Answer>>>),
    Failed(BoxError),
    Panicked(panics::Panicked),
    Done,
}

impl<S: HttpService> Stage<S> {
    fn running(future: S::Future) -> Stage<S> {
        Stage::Running(Box::pin(future))
    }
}

/// The future of one request's handler. Never fails: whatever goes wrong becomes an answer.
pub(super) struct Handler<S: HttpService> {
    stage: Stage<S>,
    /// There until the answer's body takes it.
    ticket: Option<Ticket>,
    detach: bool,
}

/// What it pins it pins in a box.
impl<S: HttpService> Unpin for Handler<S> {}

type Answer<S> = Response<ResponseBody<<S as HttpService>::Answer>>;

impl<S: HttpService> Handler<S> {
    fn refused(response: Answer<S>) -> Self {
        Handler { stage: Stage::Refused(Box::new(response)), ticket: None, detach: false }
    }

    /// Runs the handler on. Ready when the application has answered, failed or panicked.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<S::Answer>, Failure>> {
        let running = match &mut self.stage {
            Stage::Running(running) => running,
            Stage::Waiting(waiting) => {
                let (service, _) = &mut **waiting;
                match panics::catch(|| service.poll_ready(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(Err(error))) => {
                        return Poll::Ready(Err(Failure::Error(error.into())));
                    }
                    Err(panicked) => return Poll::Ready(Err(Failure::Panic(panicked))),
                    Ok(Poll::Ready(Ok(()))) => {}
                }
                let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Done) else {
                    return Poll::Pending;
                };
                let (mut service, request) = *waiting;
                match panics::catch(|| service.call(request)) {
                    Ok(future) => self.stage = Stage::running(future),
                    Err(panicked) => return Poll::Ready(Err(Failure::Panic(panicked))),
                }
                match &mut self.stage {
                    Stage::Running(running) => running,
                    _ => return Poll::Pending,
                }
            }
            other => {
                return match mem::replace(other, Stage::Done) {
                    Stage::Failed(error) => Poll::Ready(Err(Failure::Error(error))),
                    Stage::Panicked(panicked) => Poll::Ready(Err(Failure::Panic(panicked))),
                    _ => Poll::Pending,
                };
            }
        };
        let mut answered = Poll::Pending;
        if let Err(panicked) = panics::catch(|| answered = running.as_mut().poll(cx)) {
            return Poll::Ready(Err(Failure::Panic(panicked)));
        }
        answered.map_err(|error| Failure::Error(error.into()))
    }

    /// Drops the handler. A panic in a destructor is the handler's panic.
    fn drop_stage(&mut self) {
        let stage = mem::replace(&mut self.stage, Stage::Done);
        if let Err(panicked) = panics::catch(|| drop(stage)) {
            tracing::error!(%panicked, "a handler panicked while it was dropped");
        }
    }
}

/// Why the application has not answered.
enum Failure {
    Error(BoxError),
    Panic(panics::Panicked),
}

impl<S: HttpService> Future for Handler<S> {
    type Output = Result<Answer<S>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(ticket) = &this.ticket else {
            return match mem::replace(&mut this.stage, Stage::Done) {
                Stage::Refused(response) => Poll::Ready(Ok(*response)),
                // hyper never polls again after an answer.
                _ => Poll::Pending,
            };
        };
        if ticket.conn().orders().any(Orders::REQUEST_EXPIRED) {
            log_expired(ticket);
            this.drop_stage();
            let Some(ticket) = this.ticket.take() else { return Poll::Pending };
            ticket.conn().take_back(Orders::REQUEST_EXPIRED);
            return Poll::Ready(Ok(refuse::answer(StatusCode::SERVICE_UNAVAILABLE, ticket)));
        }
        let answered = match this.advance(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(answered) => answered,
        };
        this.drop_stage();
        let Some(ticket) = this.ticket.take() else { return Poll::Pending };
        Poll::Ready(Ok(match answered {
            Ok(response) => finish(response, ticket),
            Err(failure) => fail(failure, ticket),
        }))
    }
}

/// The application's answer on its way to hyper.
fn finish<B>(mut response: Response<B>, ticket: Ticket) -> Response<ResponseBody<B>> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = response.extensions_mut().remove::<UpgradeTo>() else {
            tracing::error!("a handler answered 101 without saying who takes over");
            return refuse::answer(StatusCode::INTERNAL_SERVER_ERROR, ticket);
        };
        // No extension is known here: a client that was promised one would be misunderstood.
        response.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
        ticket.link().set_upgrade(upgrade);
    } else if ticket.conn().orders().any(Orders::CLOSE) || ticket.link().has_unread_body() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    ticket.conn().answered(response.status());
    response.map(|body| ResponseBody::answer(body, ticket))
}

fn fail<B>(failure: Failure, ticket: Ticket) -> Response<ResponseBody<B>> {
    ticket.conn().handler_failed();
    let work = ticket.conn().work().map_or_else(String::new, |(work, _)| work.to_string());
    match failure {
        Failure::Error(error) => tracing::error!(%work, %error, "a handler failed"),
        Failure::Panic(panicked) => tracing::error!(%work, %panicked, "a handler panicked"),
    }
    refuse::answer(StatusCode::INTERNAL_SERVER_ERROR, ticket)
}

fn log_expired(ticket: &Ticket) {
    if let Some((work, age)) = ticket.conn().work() {
        tracing::warn!(%work, ?age, "a handler was cut: it has not answered in request_timeout");
    }
}

impl<S: HttpService> Drop for Handler<S> {
    /// hyper drops a handler whose connection has ended. Unless it is cut, what it has begun is
    /// finished in a task of its own, and stays in hand until then.
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let running = matches!(self.stage, Stage::Running(_));
        if !running || !self.detach || ticket.conn().orders().any(Orders::CUT) {
            return self.drop_stage();
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.drop_stage();
        };
        ticket.conn().detach();
        let stage = mem::replace(&mut self.stage, Stage::Done);
        let handler = Handler::<S> { stage, ticket: Some(ticket), detach: false };
        runtime.spawn(Detached(handler));
    }
}

/// A handler whose client has gone.
struct Detached<S: HttpService>(Handler<S>);

impl<S: HttpService> Future for Detached<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let handler = &mut self.0;
        let Some(ticket) = &handler.ticket else { return Poll::Ready(()) };
        ticket.conn().register(cx.waker());
        let _current = Current::is(ticket.conn().peer());
        let orders = ticket.conn().orders();
        if orders.any(Orders::CUT | Orders::REQUEST_EXPIRED) {
            if orders.any(Orders::REQUEST_EXPIRED) {
                log_expired(ticket);
            }
            handler.drop_stage();
            return Poll::Ready(());
        }
        match handler.advance(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(failure)) => {
                if let Some(ticket) = handler.ticket.take() {
                    drop(fail::<S::Answer>(failure, ticket));
                }
            }
            Poll::Ready(Ok(nobody_reads_it)) => {
                if let Some(ticket) = &handler.ticket {
                    ticket.conn().answered(nobody_reads_it.status());
                }
            }
        }
        handler.drop_stage();
        Poll::Ready(())
    }
}
