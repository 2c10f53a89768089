//! From an HTTP request to a WebSocket connection: the opening handshake.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use serde::Serialize;
use tungstenite::handshake::derive_accept_key;

use crate::session;

/// The body of the answer: empty for 101, a line of text for a refusal.
pub type Body = Full<Bytes>;

/// Stands in the extensions of a 101 response: who takes over the connection when it has been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeTo {
    /// The name under which the handler was registered.
    pub handler: String,
    /// The session that the connection begins with, as written by [`upgrade_with`].
    pub session: Option<Vec<u8>>,
}

/// Answers a request for a WebSocket: 101, after which the handler registered as `handler` serves
/// the connection; or 400 or 426 with a line of text when it is no proper request for one.
///
/// The response can be changed on its way (headers added, `Sec-WebSocket-Protocol` for example), as
/// long as status and extensions stay. Compression (permessage-deflate) is not offered, whatever the
/// client asks for: `Sec-WebSocket-Extensions` never stands in the answer. The `Origin` is not looked at: a handler that trusts cookies
/// has to check it first, since browsers let any site open a WebSocket.
///
/// ```
/// use axum::{Router, extract::Request, response::IntoResponse, routing::get};
/// use shiftwork::websocket;
///
/// async fn chat(request: Request) -> impl IntoResponse {
///     websocket::upgrade(&request, "chat")
/// }
/// let router: Router = Router::new().route("/chat", get(chat));
/// ```
pub fn upgrade<B>(request: &Request<B>, handler: impl Into<String>) -> Response<Body> {
    answer(request, UpgradeTo { handler: handler.into(), session: None })
}

/// As [`upgrade`], with the session that the connection begins with: what the request told (who it
/// is, from its cookie; where it is, from its path) and the handler's `open` needs. It must be of the
/// handler's session type; if it cannot be written or read as that, or is longer than
/// [`LONGEST_SESSION`](crate::session::LONGEST_SESSION), the connection is refused with 500 or closed
/// with 1012.
///
/// ```
/// # let request = http::Request::new(());
/// let response = shiftwork::websocket::upgrade_with(&request, "chat", &("room 1", 0_u64));
/// # assert_eq!(response.status(), 426);
/// ```
pub fn upgrade_with<B>(
    request: &Request<B>,
    handler: impl Into<String>,
    session: &impl Serialize,
) -> Response<Body> {
    let handler = handler.into();
    match session::encode(session) {
        Ok(session) => answer(request, UpgradeTo { handler, session: Some(session) }),
        Err(error) => {
            tracing::error!(handler, %error, "cannot write the session for a WebSocket");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the session cannot be written")
        }
    }
}

fn answer<B>(request: &Request<B>, to: UpgradeTo) -> Response<Body> {
    let accept = match accept(request) {
        Ok(accept) => accept,
        Err(refused) => return *refused,
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response.extensions_mut().insert(to);
    response
}

/// RFC 6455, 4.2.1: the value of the accept header, or what is wrong with the request.
fn accept<B>(request: &Request<B>) -> Result<HeaderValue, Box<Response<Body>>> {
    let bad = |text| Box::new(refusal(StatusCode::BAD_REQUEST, text));
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") {
        let mut response = refusal(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket address");
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(response));
    }
    if request.method() != Method::GET {
        return Err(bad("a WebSocket begins with GET"));
    }
    if request.version() != Version::HTTP_11 {
        return Err(bad("a WebSocket begins with HTTP/1.1"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad("the Connection header does not say Upgrade"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let mut response = refusal(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or_else(|| bad("Sec-WebSocket-Key is not 16 bytes in base64"))?;
    HeaderValue::from_str(&derive_accept_key(key))
        .map_err(|_| bad("Sec-WebSocket-Key is not 16 bytes in base64"))
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Whether a comma-separated list, which may stand in several headers, contains `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value of a header that must stand there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes().trim_ascii()),
        _ => None,
    }
}

/// 16 bytes in base64 are 22 characters and two signs of padding; the last character carries two bits.
fn is_key(key: &[u8]) -> bool {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key.strip_suffix(b"==") {
        Some(digits) => {
            digits.len() == 22
                && digits.iter().all(in_alphabet)
                && matches!(digits.last(), Some(b'A' | b'Q' | b'g' | b'w'))
        }
        None => false,
    }
}
