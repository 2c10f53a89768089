//! A server whose connections last: every framing, sessions in several versions, handlers that hold
//! on to their connections. The process tests install it in the shop's place.
//!
//! Which form of the session it knows is told by the folder that it was installed in: `tally-1`,
//! `tally-2`, …: so one executable plays several releases.

use std::convert::Infallible;
use std::future::pending;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::get;
use http_body::Frame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shiftwork::session::{self, CloseReason};
use shiftwork::tcp::{self, LengthField, TcpHandler};
use shiftwork::websocket::{self, Message, WebSocket};
use shiftwork::{BoxError, Http, Server, Tcp, Worker};
use tokio::sync::mpsc;

/// The `[app]` table, with the shop's keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct App {
    ledger: String,
}

/// A release's form of the session: how often something came over a connection.
trait Tally: Send + Sync + 'static {
    type Session: Serialize + DeserializeOwned + Default + Send + 'static;
    const VERSION: u32;

    fn count(session: &mut Self::Session) -> String;
    fn read_older(_version: u32, _written: &[u8]) -> Option<Self::Session> {
        None
    }
    fn write_older(_session: &Self::Session, _version: u32) -> Option<Vec<u8>> {
        None
    }
}

/// Version 1: a number.
struct One;

impl Tally for One {
    type Session = u64;
    const VERSION: u32 = 1;

    fn count(session: &mut u64) -> String {
        *session += 1;
        format!("{session} in one")
    }
}

/// Version 2: the number, and how much of it was counted by version 2.
struct Two;

impl Tally for Two {
    type Session = (u64, u64);
    const VERSION: u32 = 2;

    fn count(session: &mut (u64, u64)) -> String {
        *session = (session.0 + 1, session.1 + 1);
        format!("{} in two, {} new", session.0, session.1)
    }

    fn read_older(version: u32, written: &[u8]) -> Option<(u64, u64)> {
        (version == 1).then(|| session::decode(written).map(|count| (count, 0)))?
    }

    fn write_older(session: &(u64, u64), version: u32) -> Option<Vec<u8>> {
        (version == 1).then(|| session::encode(&session.0).ok())?
    }
}

/// Version 3: text, and no way from the others to it.
struct Three;

impl Tally for Three {
    type Session = String;
    const VERSION: u32 = 3;

    fn count(session: &mut String) -> String {
        session.push('I');
        format!("{session} in three")
    }
}

struct Counting<T>(PhantomData<T>);

impl<T: Tally> WebSocket for Counting<T> {
    type Session = T::Session;
    const SESSION_VERSION: u32 = T::VERSION;

    fn read_older_session(version: u32, written: &[u8]) -> Option<T::Session> {
        T::read_older(version, written)
    }

    fn write_older_session(session: &T::Session, version: u32) -> Option<Vec<u8>> {
        T::write_older(session, version)
    }

    async fn message(
        &self,
        conn: &mut websocket::Connection<T::Session>,
        _: Message,
    ) -> Result<(), BoxError> {
        let count = T::count(&mut conn.session);
        Ok(conn.send(count).await?)
    }
}

impl<T: Tally> TcpHandler for Counting<T> {
    type Session = T::Session;
    const SESSION_VERSION: u32 = T::VERSION;

    fn read_older_session(version: u32, written: &[u8]) -> Option<T::Session> {
        T::read_older(version, written)
    }

    fn write_older_session(session: &T::Session, version: u32) -> Option<Vec<u8>> {
        T::write_older(session, version)
    }

    /// Before this client has said anything here: in the form in which it ends its lines.
    async fn resume(&self, conn: &mut tcp::Connection<T::Session>) -> Result<(), BoxError> {
        Ok(conn.send_line("resumed").await?)
    }

    async fn receive(
        &self,
        conn: &mut tcp::Connection<T::Session>,
        line: Bytes,
    ) -> Result<(), BoxError> {
        match &line[..] {
            b"hold" => {
                conn.send_line("holding").await?;
                pending().await
            }
            _ => {
                let count = T::count(&mut conn.session);
                Ok(conn.send_line(count).await?)
            }
        }
    }
}

/// Holds on to its connection in the middle of a message.
struct Held;

impl WebSocket for Held {
    /// What it was holding when its worker drained.
    type Session = Option<String>;

    async fn message(
        &self,
        conn: &mut websocket::Connection<Option<String>>,
        message: Message,
    ) -> Result<(), BoxError> {
        let text = message.as_text().unwrap_or_default().to_owned();
        conn.send("holding").await?;
        if text != "for ever" {
            conn.draining().await;
            conn.session = Some(text);
            return Ok(());
        }
        pending().await
    }

    async fn resume(
        &self,
        conn: &mut websocket::Connection<Option<String>>,
    ) -> Result<(), BoxError> {
        if let Some(text) = conn.session.take() {
            let generation = shiftwork::worker().generation();
            conn.send(format!("{text}, in generation {generation}")).await?;
        }
        Ok(())
    }

    async fn close(&self, _: &mut websocket::Connection<Option<String>>, reason: CloseReason) {
        eprintln!("held: {reason}");
    }
}

/// Sends a large text, to whoever may not read it for a while.
struct Large;

impl TcpHandler for Large {
    /// Bytes that came.
    type Session = u64;

    async fn receive(&self, conn: &mut tcp::Connection<u64>, bytes: Bytes) -> Result<(), BoxError> {
        conn.session += bytes.len() as u64;
        match bytes.strip_prefix(b"much ") {
            Some(_) => {
                // More than the kernel takes for a client that does not read.
                let many: Vec<u8> = (0..16_000_000_u32).map(|it| (it % 251) as u8).collect();
                conn.send(many).await?;
            }
            None => conn.send(bytes).await?,
        }
        Ok(())
    }
}

struct Packets;

impl TcpHandler for Packets {
    /// Packets that came.
    type Session = u64;

    async fn receive(
        &self,
        conn: &mut tcp::Connection<u64>,
        packet: Bytes,
    ) -> Result<(), BoxError> {
        conn.session += 1;
        let mut answer = conn.session.to_be_bytes().to_vec();
        answer.extend_from_slice(&packet);
        Ok(conn.send_packet(answer).await?)
    }
}

/// The body of an answer that never ends by itself: server-sent events.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// `?polite`: ends when its worker drains; else it would go on for ever.
async fn events(request: Request) -> impl IntoResponse {
    let polite = request.uri().query() == Some("polite");
    let (give, take) = mpsc::channel(1);
    let draining = shiftwork::worker().draining();
    tokio::spawn(async move {
        let ticks = async {
            loop {
                if give.send(Bytes::from_static(b"data: tick\n\n")).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = ticks => {}
            () = draining, if polite => {
                let _ = give.send(Bytes::from_static(b"data: come again\n\n")).await;
            }
        }
    });
    ([("content-type", "text/event-stream")], Body::new(Events(take)))
}

/// Memory that this worker will never give back.
async fn leak() -> String {
    format!("{}", Box::leak(vec![1_u8; 8 << 20].into_boxed_slice()).len())
}

async fn poll(request: Request) -> &'static str {
    match request.uri().query() {
        Some("polite") => {
            shiftwork::worker().draining().await;
            "nothing new"
        }
        _ => pending().await,
    }
}

/// Fails or panics as it is told.
fn start(worker: Worker, _: Arc<()>) -> Result<(), BoxError> {
    match worker.app::<App>().ledger.as_str() {
        "fail" => Err("it was told to fail".into()),
        "panic" => panic!("it was told to panic"),
        _ => Ok(()),
    }
}

fn server<T: Tally>() -> Server {
    let web = Http::new(|_| {
        Router::new()
            .route("/hello", get(async || "hello"))
            .route("/leak", get(leak))
            .route("/events", get(events))
            .route("/poll", get(poll))
            .route("/count", get(async |it: Request| websocket::upgrade(&it, "count")))
            .route("/held", get(async |it: Request| websocket::upgrade(&it, "held")))
    });
    Server::new("shop")
        .app::<App>()
        .on_worker_start_sync(start)
        .default_setting("listen.packets.address", "127.0.0.1:0")
        .default_setting("listen.bytes.address", "127.0.0.1:0")
        .listen(
            "web",
            web.websocket("count", |_| Counting::<T>(PhantomData)).websocket("held", |_| Held),
        )
        .listen("till", Tcp::lines(|_| Counting::<T>(PhantomData)))
        .listen("packets", Tcp::packets(LengthField::U32, |_| Packets))
        .listen("bytes", Tcp::bytes(|_| Large))
}

fn main() -> ExitCode {
    let installed = std::env::current_exe().unwrap_or_default();
    let folder = installed.parent().and_then(Path::file_name).unwrap_or_default();
    match folder.to_str() {
        Some("tally-2") => server::<Two>().run(),
        Some("tally-3") => server::<Three>().run(),
        _ => server::<One>().run(),
    }
}
