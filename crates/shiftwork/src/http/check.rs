//! A request of the process's own to its own service, over no connection.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;

use http::header::{HOST, USER_AGENT};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;

use super::body::RequestBody;
use super::current::Current;
use super::handler::HttpService;
use crate::session::Peer;

/// Who asks.
const NOBODY: Peer = Peer::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

/// As much of an answer that is not good is told, in bytes.
const MOST_TOLD: usize = 200;

/// Asks the service for a path: a status from 200 to 299 is good.
///
/// # Errors
/// What was answered instead, or why nothing was.
pub async fn check<S: HttpService>(mut service: S, path: String) -> Result<(), String> {
    let request = Request::get(&path)
        .header(HOST, "localhost")
        .header(USER_AGENT, "shiftwork")
        .body(RequestBody::none())
        .map_err(|error| format!("{path} cannot be asked for: {error}"))?;
    let failed = |error: S::Error| format!("{path} failed: {}", error.into());
    let mut answer = pin!(async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    });
    let response = poll_fn(|cx| {
        let _current = Current::is(NOBODY);
        answer.as_mut().poll(cx)
    });
    let response = response.await.map_err(failed)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said = beginning(response).await;
    let colon = if said.is_empty() { "" } else { ": " };
    Err(format!("{path} answered {}{colon}{said}", status.as_u16()))
}

/// The first line of an answer, as far as it is text.
async fn beginning<B: Body<Data = bytes::Bytes>>(response: Response<B>) -> String {
    let mut body = Box::pin(response.into_body());
    let mut bytes = Vec::new();
    while bytes.len() < MOST_TOLD
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.extend(frame.data_ref().into_iter().flatten());
    }
    bytes.truncate(MOST_TOLD);
    let text = String::from_utf8_lossy(&bytes);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use http::StatusCode;

    fn service() -> Router {
        Router::new()
            .route("/well", get(async || StatusCode::NO_CONTENT))
            .route(
                "/peer",
                get(async || Peer::current().map(|it| it.to_string()).ok_or(StatusCode::CONFLICT)),
            )
            .route("/ill", get(async || (StatusCode::SERVICE_UNAVAILABLE, "no database\nat all")))
            .route("/moved", get(async || StatusCode::FOUND))
    }

    #[tokio::test]
    async fn only_success_is_good_and_the_rest_is_told() {
        for (path, expected) in [
            ("/well", Ok(())),
            ("/peer", Ok(())),
            ("/ill", Err("/ill answered 503: no database".to_owned())),
            ("/moved", Err("/moved answered 302".to_owned())),
            ("/none", Err("/none answered 404".to_owned())),
        ] {
            assert_eq!(check(service(), path.to_owned()).await, expected);
        }
    }
}
