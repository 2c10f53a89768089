//! The opening handshake: what is taken, what is refused, and how.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::any;
use http::{Method, StatusCode, Version};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::upgrade::{UpgradeTo, upgrade, upgrade_with};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn good() -> http::request::Builder {
    Request::builder()
        .uri("/ws")
        .header("host", "shop")
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", KEY)
}

fn status(request: http::request::Builder) -> StatusCode {
    upgrade(&request.body(()).unwrap(), "echo").status()
}

fn without(name: &str, value: Option<&str>) -> http::Response<super::Body> {
    let mut request = good().body(()).unwrap();
    request.headers_mut().remove(name);
    if let Some(value) = value {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    upgrade(&request, "echo")
}

#[test]
fn a_good_request_is_taken() {
    let response = upgrade(&good().body(()).unwrap(), "echo");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["connection"], "Upgrade");
    // The example of RFC 6455, 1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let to = response.extensions().get::<UpgradeTo>().unwrap();
    assert_eq!(*to, UpgradeTo { handler: "echo".to_owned(), session: None });
}

#[test]
fn compression_is_not_offered() {
    let asked =
        good().header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    let response = upgrade(&asked.body(()).unwrap(), "echo");
    assert_eq!(response.status(), 101);
    assert!(!response.headers().contains_key("sec-websocket-extensions"));
}

#[test]
fn lists_and_cases_are_read_as_http_writes_them() {
    for connection in ["upgrade", "keep-alive, Upgrade", "Keep-Alive ,UPGRADE,x"] {
        assert_eq!(without("connection", Some(connection)).status(), 101, "{connection}");
    }
    assert_eq!(without("upgrade", Some("h2c, WebSocket")).status(), 101);
    let two_lines = good().header("connection", "x");
    assert_eq!(status(two_lines), 101);
}

#[test]
fn what_is_wrong_is_refused_with_words() {
    assert_eq!(without("upgrade", None).status(), 426);
    assert_eq!(without("upgrade", None).headers()["upgrade"], "websocket");
    assert_eq!(without("upgrade", Some("h2c")).status(), 426);
    assert_eq!(without("sec-websocket-version", None).status(), 426);
    assert_eq!(
        without("sec-websocket-version", Some("8")).headers()["sec-websocket-version"],
        "13"
    );
    assert_eq!(without("connection", None).status(), 400);
    assert_eq!(without("connection", Some("upgraded")).status(), 400);
    assert_eq!(status(good().method(Method::POST)), 400);
    assert_eq!(status(good().version(Version::HTTP_10)), 400);
    assert_eq!(status(good().header("sec-websocket-key", KEY)), 400);
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZR==",
        "AAAA",
        "dGhl!HNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(without("sec-websocket-key", Some(key)).status(), 400, "{key}");
    }
    assert!(without("connection", None).extensions().get::<UpgradeTo>().is_none());
}

#[test]
fn a_session_can_be_prepared() {
    let response = upgrade_with(&good().body(()).unwrap(), "chat", &("room", 7_u32));
    let to = response.extensions().get::<UpgradeTo>().unwrap();
    let session: (String, u32) = postcard::from_bytes(to.session.as_ref().unwrap()).unwrap();
    assert_eq!((to.handler.as_str(), session), ("chat", ("room".to_owned(), 7)));
}

#[test]
fn a_session_that_could_not_travel_is_refused() {
    let long = vec![0_u8; crate::session::LONGEST_SESSION + 1];
    let response = upgrade_with(&good().body(()).unwrap(), "chat", &long);
    assert_eq!(response.status(), 500);
    assert!(response.extensions().get::<UpgradeTo>().is_none());
}

#[tokio::test]
async fn it_works_from_an_axum_route() {
    let router: Router = Router::new()
        .route("/ws", any(|request: Request| async move { upgrade(&request, "echo") }));
    let response = router.clone().oneshot(good().body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.extensions().get::<UpgradeTo>().unwrap().handler, "echo");

    let plain = Request::builder().uri("/ws").body(Body::empty()).unwrap();
    let response = router.oneshot(plain).await.unwrap();
    assert_eq!(response.status(), 426);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "this is a WebSocket address\n");
}

/// The whole way: axum's route answers, hyper sends the 101 and gives the stream back with what it
/// has read too much, and the handler goes on from there.
#[tokio::test]
async fn hyper_gives_the_stream_to_the_handler() {
    use std::sync::{Arc, Mutex};

    use hyper_util::rt::TokioIo;
    use tokio::net::{TcpListener, TcpStream};

    use super::testing::Probe;
    use super::{erased, serve};
    use crate::session::{Begin, Outcome, Peer, Start, Switch};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, from) = listener.accept().await.unwrap();
        let router: Router = Router::new().route(
            "/ws",
            any(|request: Request| async move { upgrade_with(&request, "probe", &41_u64) }),
        );
        let to = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&to);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (router, seen) = (router.clone(), Arc::clone(&seen));
            Box::pin(async move {
                let mut response = router.oneshot(request.map(Body::new)).await?;
                *seen.lock().unwrap() = response.extensions_mut().remove::<UpgradeTo>();
                Ok::<_, std::convert::Infallible>(response)
            })
        });
        let builder = hyper::server::conn::http1::Builder::new();
        let mut http = builder.serve_connection(TokioIo::new(stream), service);
        std::future::poll_fn(|cx| http.poll_without_shutdown(cx)).await.unwrap();
        let parts = http.into_parts();
        let to = to.lock().unwrap().take().unwrap();
        assert_eq!(to.handler, "probe");
        let control = Arc::new(Switch::default());
        let mut start = Start::new(parts.io.into_inner(), Peer::Tcp(from), control);
        start.unread = parts.read_buf;
        start.begin = to.session.map_or(Begin::Fresh, Begin::With);
        serve(erased(Probe::default()), start).await
    });
    let client = tokio::task::spawn_blocking(move || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (mut socket, response) =
            tungstenite::client(format!("ws://{address}/ws"), stream).unwrap();
        assert_eq!(response.status(), 101);
        socket.send("count".into()).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap(), "42");
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    });
    crate::session::testing::soon(client).await.unwrap();
    let outcome: Outcome<TcpStream> = crate::session::testing::soon(server).await.unwrap();
    assert!(matches!(outcome, Outcome::Closed(_)));
}
