//! What the shop answers over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::orders::{self, Wish};
use crate::state::Shop;

/// The router of one worker.
pub(crate) fn all(shop: &Arc<Shop>) -> Router {
    Router::new()
        .route("/hello", get(hello))
        .route("/slow", get(slow))
        .route("/block", get(block))
        .route("/echo", post(echo))
        .route("/crash", get(crash))
        .route("/orders", get(sums).post(order))
        .route("/orders/{id}", get(find))
        .route("/ws", get(websocket))
        .route("/feed", get(feed))
        .route("/admin/reload", post(reload))
        .route("/", get(|| asset("text/html", include_str!("page.html"))))
        .route("/page.css", get(|| asset("text/css", include_str!("page.css"))))
        .route("/page.js", get(|| asset("text/javascript", include_str!("page.js"))))
        .fallback(|| refuse(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(|| {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "that is not how to ask for this")
        })
        // The server's own limit of a body counts, whatever axum's is.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(shop.clone(), count_and_mark))
        // Not counted: the server asks, too.
        .route("/health", get(health).layer(middleware::from_fn_with_state(shop.clone(), mark)))
        .with_state(shop.clone())
}

/// Around every request: counts it, and puts on the response who answered.
async fn count_and_mark(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    let mut response = match shop.receive().await {
        Ok(()) => next.run(request).await,
        Err(fault) => refuse(StatusCode::INTERNAL_SERVER_ERROR, fault).await,
    };
    shop.mark(response.headers_mut());
    response
}

/// Puts on the response who answered.
async fn mark(State(shop): State<Arc<Shop>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    shop.mark(response.headers_mut());
    response
}

/// Whether orders can be taken: 204, or 503 and why not.
async fn health(State(shop): State<Arc<Shop>>) -> Response {
    if let Err(fault) = shop.app.fault.in_health() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, fault).await;
    }
    match shop.ledger.find(0).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, error).await,
    }
}

async fn hello(State(shop): State<Arc<Shop>>) -> String {
    let worker = &shop.worker;
    format!(
        "hello from release {}, generation {}, worker {}, pid {}",
        shop.app.release,
        worker.generation(),
        worker.id(),
        worker.pid()
    )
}

/// How long to take.
#[derive(Debug, Deserialize)]
struct Wait {
    /// In milliseconds.
    #[serde(default)]
    ms: u64,
}

async fn slow(Query(wait): Query<Wait>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(wait.ms)).await;
    "done"
}

/// What a handler must not do: all other requests of this worker wait, too.
async fn block(Query(wait): Query<Wait>) -> &'static str {
    std::thread::sleep(Duration::from_millis(wait.ms));
    "done"
}

async fn echo(body: Bytes) -> Bytes {
    body
}

async fn crash() -> &'static str {
    std::process::abort()
}

async fn sums(State(shop): State<Arc<Shop>>) -> Result<Response, Failure> {
    Ok(Json(shop.ledger.sums().await?).into_response())
}

async fn order(State(shop): State<Arc<Shop>>, body: Bytes) -> Result<Response, Failure> {
    let wish: Wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return Ok(refuse(StatusCode::BAD_REQUEST, error).await),
    };
    if wish.item.trim().is_empty() || wish.quantity == 0 {
        return Ok(refuse(StatusCode::BAD_REQUEST, "an item, and at least one of it").await);
    }
    let order = orders::place(shop, wish).await?;
    Ok((StatusCode::CREATED, Json(order)).into_response())
}

async fn find(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let order = match id.parse() {
        Ok(id) => shop.ledger.find(id).await?,
        Err(_) => None,
    };
    Ok(match order {
        Some(order) => Json(order).into_response(),
        None => refuse(StatusCode::NOT_FOUND, format!("there is no order {id}")).await,
    })
}

async fn websocket(request: Request) -> Response {
    shiftwork::websocket::upgrade(&request, "echo").into_response()
}

/// Any page may open a WebSocket to any site, so what the feed tells is kept from strangers' pages.
async fn feed(request: Request) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) && !same_origin(headers) {
        return refuse(StatusCode::FORBIDDEN, "only the shop's own page may watch").await;
    }
    shiftwork::websocket::upgrade(&request, "feed").into_response()
}

/// The button on the page. Other sites' pages cannot press it in a visitor's name; a shop that is
/// open to the world would want to know who presses it, too.
async fn reload(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Response {
    if !same_origin(&headers) {
        return refuse(StatusCode::FORBIDDEN, "only the shop's own page may do this").await;
    }
    // This worker drains while it waits, and gives its answer all the same.
    match shop.worker.server().reload().await {
        Ok(outcome) => Json(outcome).into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, error).await,
    }
}

/// Browsers say with every POST where the page came from. Who does not say is refused.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), None) => site == "same-origin",
        (None | Some("same-origin"), Some(origin)) => {
            let origin = origin.parse::<Uri>().ok();
            let authority = origin.as_ref().and_then(|uri| uri.authority()).map(|a| a.as_str());
            authority.is_some() && authority == text(header::HOST)
        }
        _ => false,
    }
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        // After a reload the page is the new release's, too.
        (header::CACHE_CONTROL, "no-cache".into()),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; img-src data:; base-uri 'none'; \
            form-action 'self'; frame-ancestors 'none'"
                .into(),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ];
    (headers, text).into_response()
}

async fn refuse(status: StatusCode, why: impl ToString) -> Response {
    (status, Json(json!({ "error": why.to_string() }))).into_response()
}

/// Something that is our fault: 500, and a line in the log.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        eprintln!("{}", self.0);
        let body: Value = json!({ "error": self.0 });
        (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
    }
}
