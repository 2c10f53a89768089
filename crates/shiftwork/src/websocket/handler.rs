//! What an application implements, and how a worker drives it without knowing its types.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::{Connection, WebSocketFraming};
use super::message::Message;
use crate::session::{
    BoxError, CloseReason, ErasedHandler, Form, Framing, Link, Service, StreamLimits,
};

/// An application's WebSocket handler. One value serves all connections of its worker.
///
/// An error or a panic in it is logged and closes its connection with 1011; other connections and the
/// worker go on. For one connection nothing is called while another call is running.
pub trait WebSocket: Send + Sync + 'static {
    /// What the application keeps for each connection, and what travels when the connection passes
    /// to another process. Use `()` for nothing.
    ///
    /// A release that changes this type gives it the next [`SESSION_VERSION`](Self::SESSION_VERSION),
    /// and reads what is open in the old form with
    /// [`read_older_session`](Self::read_older_session).
    type Session: Serialize + DeserializeOwned + Default + Send + 'static;

    /// The version of the form of `Session`, which is written beside it. Default 0.
    const SESSION_VERSION: u32 = 0;

    /// Reads a session that another release has written in another version: an older one after a
    /// reload, a newer one after a roll-back. Bytes that one of the application's types was written to
    /// are read with [`session::decode`](crate::session::decode). None (the default): the session
    /// cannot be read, and the connection is closed (a WebSocket with 1012), which is logged.
    #[must_use]
    fn read_older_session(version: u32, written: &[u8]) -> Option<Self::Session> {
        let _ = (version, written);
        None
    }

    /// Writes a session in an older version, while the setting `session_write_version` asks for it: so
    /// that a release that is returned to can read the sessions of the one that failed. Use
    /// [`session::encode`](crate::session::encode). None (the default): it is written in the own
    /// version.
    #[must_use]
    fn write_older_session(session: &Self::Session, version: u32) -> Option<Vec<u8>> {
        let _ = (session, version);
        None
    }

    /// A connection was opened. Not called when an open connection arrives from another
    /// process: [`resume`](Self::resume) is.
    /// On an error it is closed with 1011, without a call of `close`.
    fn open(
        &self,
        conn: &mut Connection<Self::Session>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = conn;
        async { Ok(()) }
    }

    /// An open connection has come from another process: because of a reload, for example. The place
    /// to start again what `open` starts beside the connection, such as pushes by a
    /// [`Sender`](crate::session::Sender). The client knows nothing of it. On an error the connection
    /// is closed with 1011, with a call of `close`.
    fn resume(
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

/// Makes a handler that can stand in a map beside others.
pub fn erased(handler: impl WebSocket) -> Arc<dyn ErasedHandler> {
    Arc::new(Served(handler))
}

struct Served<H>(H);

impl<H: WebSocket> Service for Served<H> {
    type Framing = WebSocketFraming;
    type Session = H::Session;
    type Form = Self;
    type Connection = Connection<H::Session>;

    fn framing(&self, limits: &StreamLimits) -> WebSocketFraming {
        WebSocketFraming::new(limits)
    }

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

    async fn resume(&self, conn: &mut Self::Connection) -> Result<(), BoxError> {
        self.0.resume(conn).await
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

impl<H: WebSocket> Form for Served<H> {
    type Session = H::Session;
    const VERSION: u32 = H::SESSION_VERSION;

    fn read_older(version: u32, written: &[u8]) -> Option<H::Session> {
        H::read_older_session(version, written)
    }

    fn write_older(session: &H::Session, version: u32) -> Option<Vec<u8>> {
        H::write_older_session(session, version)
    }
}
