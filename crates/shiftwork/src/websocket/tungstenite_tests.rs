//! Whole connections over sockets, with tungstenite as the client.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream as StdUnix;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};

use super::testing::{Probe, closed};
use super::{CloseReason, code, erased, serve};
use crate::session::testing::{PEER, soon};
use crate::session::{Start, Switch};

/// A real socket with tungstenite as the client; the closure runs on a thread of its own.
async fn against_tungstenite<T: Send + 'static>(
    probe: Probe,
    client: impl FnOnce(tungstenite::WebSocket<StdUnix>) -> T + Send + 'static,
) -> (T, CloseReason) {
    let (near, far) = StdUnix::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let near = UnixStream::from_std(near).unwrap();
    let start = Start::new(near, PEER, Arc::new(Switch::default()));
    let served = tokio::spawn(serve(erased(probe), start));
    let client = spawn_blocking(move || {
        client(tungstenite::WebSocket::from_raw_socket(far, Role::Client, None))
    });
    (soon(client).await.unwrap(), closed(served).await)
}

#[tokio::test]
async fn tungstenite_talks_and_closes() {
    let (frame, reason) = against_tungstenite(Probe::default(), |mut socket| {
        let long = "ü".repeat(500_000);
        for text in ["a", "", &long] {
            socket.send(text.into()).unwrap();
            assert_eq!(socket.read().unwrap().into_text().unwrap(), text);
        }
        socket.send(tungstenite::Message::Ping(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::Pong(Bytes::from_static(b"x")));
        socket.send("count".into()).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap(), "4");
        let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
        socket.close(Some(frame)).unwrap();
        let answer = socket.read().unwrap();
        assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
        answer
    })
    .await;
    assert!(
        matches!(frame, tungstenite::Message::Close(Some(frame)) if frame.code == CloseCode::Normal)
    );
    assert_eq!(reason.code(), Some(code::NORMAL));
}

#[tokio::test]
async fn tungstenite_is_closed() {
    let (frame, _) = against_tungstenite(Probe::default(), |mut socket| {
        socket.send("bye".into()).unwrap();
        let close = socket.read().unwrap();
        assert!(socket.read().is_err());
        close
    })
    .await;
    let tungstenite::Message::Close(Some(frame)) = frame else { panic!("{frame:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4000, "as you wish"));
}
