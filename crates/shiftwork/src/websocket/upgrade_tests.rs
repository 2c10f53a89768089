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
