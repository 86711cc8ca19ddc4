//! The Trino client protocol, far enough for its clients to run a query: `POST /v1/statement`, then `nextUri` after
//! `nextUri`.
//!
//! Rules every client relies on: the POST never carries columns or data; `columns` come with every page once they are
//! known; the end is a page without `nextUri`; a failed query is HTTP 200 with `error`; a repeated request for the last
//! token gives the same bytes, any other token but the next is gone. One page per query is kept.

mod failure;
mod page;
mod registry;
mod running;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Query as UrlQuery, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use query_engine::Asker;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::App;
use super::host::base_url;
use crate::wire::Problem;
use page::Posted;
use running::{Phase, Running};
use session::{Session, SessionError};

pub(super) use registry::Statements;

/// Takes a statement. The answer has no rows: its `nextUri` leads to them.
#[utoipa::path(
    post,
    path = "/statement",
    summary = "Trino client protocol",
    request_body(content = String, content_type = "text/plain"),
    responses((status = 200, description = "`QueryResults` of the protocol", body = Object)),
)]
pub(super) async fn post(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    sql: String,
) -> Response {
    if sql.trim().is_empty() {
        return (StatusCode::BAD_REQUEST, "SQL statement is empty\n").into_response();
    }
    let session = match Session::of(&headers) {
        Ok(session) => Ok(session),
        // A property that does not exist fails the query, which is a page with `error`; a malformed header is an HTTP
        // error.
        Err(SessionError::Statement(error)) => Err(error),
        Err(malformed) => return (StatusCode::BAD_REQUEST, format!("{malformed}\n")).into_response(),
    };
    let base = base_url(app.options.external_url.as_deref(), &headers);
    let user = headers.get(USER).and_then(|user| user.to_str().ok()).unwrap_or_default().to_owned();
    let client = Asker { address: peer.ip(), user };
    // A capability: ids are in logs and in `infoUri`, and pages are given for the id with this secret alone.
    let slug = Uuid::new_v4().simple().to_string();
    let posted = Posted { client: client.clone(), sql, session };
    let running = app.statements.add(&client, |id| Running::new(id, slug, base, posted));
    match running {
        Some(running) => page(running.first()),
        // Backpressure: clients repeat a request with status 503 after a pause, as the protocol asks of them.
        None => (StatusCode::SERVICE_UNAVAILABLE, "Too many queries of this client are running\n").into_response(),
    }
}

fn page(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// How long a client waits for a page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Longest time to wait for the page, up to 1 s
    #[serde(rename = "maxWait")]
    max_wait: Option<String>,
}

impl Wait {
    fn until(&self) -> Instant {
        // Long polling. Trino's server waits no longer either.
        let longest = Duration::from_secs(1);
        let asked = self.max_wait.as_deref().and_then(|text| text.parse::<service_kit::config::HumanDuration>().ok());
        Instant::now() + asked.map_or(longest, |asked| asked.0.min(longest))
    }
}

/// The header with the name of the user.
const USER: &str = "x-trino-user";

/// Where a page is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Address {
    /// The query
    id: String,
    /// A secret of the client's that posted it
    slug: String,
    /// Number of the page
    token: u64,
}

/// The page before there are rows.
#[utoipa::path(
    get,
    path = "/statement/queued/{id}/{slug}/{token}",
    summary = "a page of a Trino query before it runs",
    params(Address, Wait),
    responses((status = 200, description = "`QueryResults` of the protocol", body = Object)),
)]
pub(super) async fn queued(state: State<Arc<App>>, address: Path<Address>, wait: UrlQuery<Wait>) -> Response {
    next(state, address, wait, Phase::Queued).await
}

/// A page of rows.
#[utoipa::path(
    get,
    path = "/statement/executing/{id}/{slug}/{token}",
    summary = "a page of a Trino query",
    params(Address, Wait),
    responses((status = 200, description = "`QueryResults` of the protocol", body = Object)),
)]
pub(super) async fn executing(state: State<Arc<App>>, address: Path<Address>, wait: UrlQuery<Wait>) -> Response {
    next(state, address, wait, Phase::Executing).await
}

async fn next(
    State(app): State<Arc<App>>,
    Path(Address { id, slug, token }): Path<Address>,
    UrlQuery(wait): UrlQuery<Wait>,
    phase: Phase,
) -> Response {
    let Some(running) = app.statements.find(&id, &slug) else {
        return (StatusCode::NOT_FOUND, "Query not found: it ended, was cancelled, or made room for later ones\n")
            .into_response();
    };
    match running.page(&app, phase, token, wait.until()).await {
        Some(body) => page(body),
        // The status of Trino's server for a page before the last: a request for the next page acknowledges it.
        None => (StatusCode::GONE, "Page is gone\n").into_response(),
    }
}

/// Cancels the query of a page.
#[utoipa::path(
    delete,
    path = "/statement/executing/{id}/{slug}/{token}",
    summary = "cancels a Trino query",
    params(Address),
    responses((status = 204, description = "The query is cancelled, if there is one")),
)]
pub(super) async fn cancel(state: State<Arc<App>>, address: Path<Address>) -> StatusCode {
    cancel_at(&state, address)
}

/// Cancels the query of a page, before it runs.
#[utoipa::path(
    delete,
    path = "/statement/queued/{id}/{slug}/{token}",
    summary = "cancels a Trino query before it runs",
    params(Address),
    responses((status = 204, description = "The query is cancelled, if there is one")),
)]
pub(super) async fn cancel_queued(state: State<Arc<App>>, address: Path<Address>) -> StatusCode {
    cancel_at(&state, address)
}

fn cancel_at(app: &App, Path(Address { id, slug, .. }): Path<Address>) -> StatusCode {
    // Idempotent: 204 also where the query has ended, or the secret is wrong, which then changes nothing.
    if app.statements.find(&id, &slug).is_some() {
        app.statements.remove(&id);
    }
    StatusCode::NO_CONTENT
}

/// How the Go and JavaScript clients cancel.
#[utoipa::path(
    delete,
    path = "/query/{id}",
    summary = "cancels a Trino query by its id",
    params(("id" = String, Path, description = "The query")),
    responses((status = 204, description = "The query is cancelled, if there is one")),
)]
pub(super) async fn cancel_by_id(State(app): State<Arc<App>>, Path(id): Path<String>) -> StatusCode {
    app.statements.remove(&id);
    StatusCode::NO_CONTENT
}

/// `GET /ui/query.html?ID`: where `infoUri` leads.
pub(super) async fn query_page(State(app): State<Arc<App>>, RawQuery(id): RawQuery) -> Response {
    let id = id.unwrap_or_default();
    // The id goes into HTML: what has other characters is never echoed.
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match app.statements.state(&id).filter(|_| is_id) {
        Some(state) => Html(format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{id}</title><p>Query <code>{id}</code> {state}."
        ))
        .into_response(),
        None => Problem::not_found("no query has that id", "queries are discarded soon after they end")
            .into_response(),
    }
}

/// The description of a Trino server, which some clients check before they send a statement.
#[utoipa::path(
    get,
    path = "/info",
    summary = "what the server is, in Trino's terms",
    responses((status = 200, description = "`ServerInfo` of the protocol", body = Object)),
)]
pub(super) async fn info(State(app): State<Arc<App>>) -> axum::Json<serde_json::Value> {
    let minutes = app.started.elapsed().as_secs_f64() / 60.0;
    axum::Json(serde_json::json!({
        "nodeVersion": { "version": TRINO_VERSION },
        "environment": "causeway",
        "coordinator": true,
        "starting": false,
        // In the notation of Trino's durations, which has the unit behind a decimal number.
        "uptime": format!("{minutes:.2}m"),
    }))
}

/// The release whose protocol this is.
const TRINO_VERSION: &str = "483";

/// Whether it serves.
#[utoipa::path(
    get,
    path = "/info/state",
    summary = "whether it serves",
    responses((status = 200, description = "`\"ACTIVE\"`", body = String)),
)]
pub(super) async fn state() -> &'static str {
    "\"ACTIVE\""
}
