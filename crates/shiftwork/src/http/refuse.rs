//! The answers that we give in the application's place.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::link::Ticket;

/// An answer of one line of text.
pub(super) fn answer<B>(status: StatusCode, ticket: Ticket) -> Response<ResponseBody<B>> {
    let text = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body of the request is too long\n",
        StatusCode::SERVICE_UNAVAILABLE => "the request took too long\n",
        _ => "internal error\n",
    };
    ticket.conn().answered(status);
    let marks = ticket.conn().marks().cloned().unwrap_or_default();
    let mut response = Response::new(ResponseBody::text(text, ticket));
    *response.headers_mut() = marks;
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// What a client gets that does not finish its request head. Written past hyper, which has no answer
/// under way at that moment.
pub(super) const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

/// An answer as it goes over the wire, with the application's headers behind its first line.
pub(super) fn marked(answer: &[u8], marks: Option<&HeaderMap>) -> Vec<u8> {
    let first = answer.windows(2).position(|it| it == b"\r\n").map_or(answer.len(), |at| at + 2);
    let mut marked = answer[..first].to_vec();
    for (name, value) in marks.into_iter().flatten() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            marked.extend_from_slice(part);
        }
    }
    marked.extend_from_slice(&answer[first..]);
    marked
}
