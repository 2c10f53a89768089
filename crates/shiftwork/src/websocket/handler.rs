//! What an application implements, and how a worker drives it without knowing its types.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::{Connection, WebSocketFraming};
use super::message::Message;
use crate::session::{
    self, BoxError, CloseReason, Framing, Link, Outcome, Service, Start, Transport,
};

/// An application's WebSocket handler. One value serves all connections of its worker.
///
/// An error or a panic in it is logged and closes its connection with 1011; other connections and the
/// worker go on. For one connection nothing is called while another call is running.
pub trait WebSocket: Send + Sync + 'static {
    /// What the application keeps for each connection, and what travels when the connection passes
    /// to another process. Use `()` for nothing.
    type Session: Serialize + DeserializeOwned + Default + Send + 'static;

    /// A connection was opened. Not called when an open connection arrives from another process.
    /// On an error it is closed with 1011, without a call of `close`.
    fn open(
        &self,
        conn: &mut Connection<Self::Session>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// A message has come in. The next one is read when this one is done.
    fn message(
        &self,
        conn: &mut Connection<Self::Session>,
        message: Message,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// The connection has ended, for whatever reason; nothing can be sent any more. Called once for
    /// each connection whose `open` succeeded, unless it was handed over or cut at a deadline.
    fn close(
        &self,
        conn: &mut Connection<Self::Session>,
        reason: CloseReason,
    ) -> impl Future<Output = ()> + Send {
        let _ = (conn, reason);
        async {}
    }
}

/// The future of [`ErasedWebSocket::serve_erased`].
type Serving = Pin<Box<dyn Future<Output = Outcome<Box<dyn Transport>>> + Send>>;

/// A [`WebSocket`] of any type. Made by [`erased`]; run by [`serve`].
pub trait ErasedWebSocket: Send + Sync + 'static {
    /// Serves one connection. Use [`serve`], which gives back a stream of the type that it got.
    #[doc(hidden)]
    fn serve_erased(self: Arc<Self>, start: Start<Box<dyn Transport>>) -> Serving;
}

/// Makes a handler that can stand in a map beside others.
pub fn erased(handler: impl WebSocket) -> Arc<dyn ErasedWebSocket> {
    Arc::new(Served(handler))
}

/// Serves one upgraded connection until it ends, is cut, or is to be handed over. The response with
/// status 101 has been sent before; `start.unread` is what came after the request.
pub async fn serve<S: Transport>(handler: Arc<dyn ErasedWebSocket>, start: Start<S>) -> Outcome<S> {
    session::unbox(handler.serve_erased(start.boxed()).await)
}

struct Served<H>(H);

impl<H: WebSocket> ErasedWebSocket for Served<H> {
    fn serve_erased(self: Arc<Self>, start: Start<Box<dyn Transport>>) -> Serving {
        Box::pin(async move {
            let framing = WebSocketFraming::new(&start.limits);
            session::run(&*self, framing, start).await
        })
    }
}

impl<H: WebSocket> Service for Served<H> {
    type Framing = WebSocketFraming;
    type Session = H::Session;
    type Connection = Connection<H::Session>;

    fn connection(link: Link<WebSocketFraming>, session: H::Session) -> Self::Connection {
        Connection { session, link }
    }

    fn link(conn: &mut Self::Connection) -> &mut Link<WebSocketFraming> {
        &mut conn.link
    }

    fn session(conn: &Self::Connection) -> &H::Session {
        &conn.session
    }

    fn into_link(conn: Self::Connection) -> Link<WebSocketFraming> {
        conn.link
    }

    // The calls stand inside the futures, so that a panic before the first await is caught as well.
    async fn open(&self, conn: &mut Self::Connection) -> Result<(), BoxError> {
        self.0.open(conn).await
    }

    async fn message(
        &self,
        conn: &mut Self::Connection,
        message: <WebSocketFraming as Framing>::Message,
    ) -> Result<(), BoxError> {
        self.0.message(conn, message).await
    }

    async fn close(
        &self,
        conn: &mut Self::Connection,
        reason: CloseReason,
    ) -> Result<(), BoxError> {
        self.0.close(conn, reason).await;
        Ok(())
    }
}
