//! Handlers of which the worker does not know the types.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::drive::{Service, run};
use super::start::{Outcome, Start, unbox};
use super::wire::Transport;

/// The future of [`ErasedHandler::serve_erased`].
type Serving = Pin<Box<dyn Future<Output = Outcome<Box<dyn Transport>>> + Send>>;

/// An application's handler of either protocol, of any type. Made by
/// [`websocket::erased`](crate::websocket::erased) and [`tcp::erased`](crate::tcp::erased); run by
/// [`serve`].
pub trait ErasedHandler: Send + Sync + 'static {
    /// Serves one connection. Use [`serve`], which gives back a stream of the type that it got.
    #[doc(hidden)]
    fn serve_erased(self: Arc<Self>, start: Start<Box<dyn Transport>>) -> Serving;
}

impl<V: Service> ErasedHandler for V {
    fn serve_erased(self: Arc<Self>, start: Start<Box<dyn Transport>>) -> Serving {
        Box::pin(async move { run(&*self, start).await })
    }
}

/// Serves one connection until it ends, is cut, or is to be handed over. For a WebSocket, the response
/// with status 101 has been sent before; `start.unread` is what came after the request.
pub async fn serve<S: Transport>(handler: Arc<dyn ErasedHandler>, start: Start<S>) -> Outcome<S> {
    unbox(handler.serve_erased(start.boxed()).await)
}
