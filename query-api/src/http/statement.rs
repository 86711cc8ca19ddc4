//! The Trino client protocol, far enough for its clients to run a query: `POST /v1/statement`, then `nextUri` after `nextUri`.
//!
//! Rules every client relies on: the POST never carries columns or data; `columns` come with every page once they are known; the
//! end is a page without `nextUri`; a failed query is HTTP 200 with `error`; asking again for the last token gives the same bytes,
//! any other token but the next is gone. One page per query is kept.

mod failure;
mod page;
mod running;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::App;
use running::{Phase, Running};

/// A query nobody asked about for so long is cancelled.
const ABANDONED: Duration = Duration::from_secs(300);
/// How long the last page of a query can be asked for again.
const ENDED: Duration = Duration::from_secs(30);
/// Most queries remembered at once. The ones that ended make room for new ones, the oldest first.
const MAX_STATEMENTS: usize = 1_000;
/// How often queries that nobody asks about are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// The queries clients are polling.
#[derive(Debug, Default)]
pub(super) struct Statements {
    running: Mutex<HashMap<String, Arc<Running>>>,
    count: AtomicU64,
}

impl Statements {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<Running>>) -> T) -> T {
        act(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers a query; `None` when too many are running.
    fn add(&self, make: impl FnOnce(String) -> Running) -> Option<Arc<Running>> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{}_{:05}_{}", chrono::Utc::now().format("%Y%m%d_%H%M%S"), count % 100_000, &random[..5]);
        let running = Arc::new(make(id.clone()));
        self.with(|known| {
            if known.len() >= MAX_STATEMENTS {
                let ended = known.iter().filter(|(_, running)| running.has_ended());
                let oldest = ended.min_by_key(|(_, running)| running.idle_since()).map(|(id, _)| id.clone())?;
                known.remove(&oldest);
            }
            known.insert(id, Arc::clone(&running));
            Some(running)
        })
    }

    fn find(&self, id: &str, slug: &str) -> Option<Arc<Running>> {
        self.with(|known| known.get(id).filter(|running| running.slug() == slug).cloned())
    }

    fn remove(&self, id: &str) {
        self.with(|known| known.remove(id));
    }

    fn purge(&self) {
        self.with(|known| {
            known.retain(|_, running| {
                running.idle_since().elapsed() < if running.has_ended() { ENDED } else { ABANDONED }
            });
        });
    }

    /// Forgets what nobody asks about any more, for as long as it is polled.
    pub(super) async fn keep_clean(&self) {
        let mut ticks = tokio::time::interval(PURGE_EVERY);
        loop {
            ticks.tick().await;
            self.purge();
        }
    }
}

/// `POST /v1/statement`
pub(super) async fn post(State(app): State<Arc<App>>, headers: HeaderMap, sql: String) -> Response {
    if sql.trim().is_empty() {
        return (StatusCode::BAD_REQUEST, "SQL statement is empty\n").into_response();
    }
    let base = base_url(&app, &headers);
    let schema = header(&headers, "x-trino-schema").map(str::to_owned);
    let slug = Uuid::new_v4().simple().to_string();
    let running = app.statements.add(|id| Running::new(id, slug, base, sql, schema));
    match running {
        Some(running) => page(running.first()),
        None => (StatusCode::SERVICE_UNAVAILABLE, "Too many queries\n").into_response(),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// Where clients reach this server: as configured, else as they addressed it.
fn base_url(app: &App, headers: &HeaderMap) -> String {
    match &app.options.external_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", header(headers, HOST.as_str()).unwrap_or("localhost")),
    }
}

fn page(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// How long a client lets us think.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    #[serde(rename = "maxWait")]
    max_wait: Option<String>,
}

impl Wait {
    fn until(&self) -> Instant {
        let longest = Duration::from_secs(1);
        let asked = self.max_wait.as_deref().and_then(|text| text.parse::<service_kit::config::HumanDuration>().ok());
        Instant::now() + asked.map_or(longest, |asked| asked.0.min(longest))
    }
}

type Address = Path<(String, String, u64)>;

/// `GET /v1/statement/queued/{id}/{slug}/{token}`
pub(super) async fn queued(state: State<Arc<App>>, address: Address, wait: UrlQuery<Wait>) -> Response {
    next(state, address, wait, Phase::Queued).await
}

/// `GET /v1/statement/executing/{id}/{slug}/{token}`
pub(super) async fn executing(state: State<Arc<App>>, address: Address, wait: UrlQuery<Wait>) -> Response {
    next(state, address, wait, Phase::Executing).await
}

async fn next(
    State(app): State<Arc<App>>,
    Path((id, slug, token)): Address,
    UrlQuery(wait): UrlQuery<Wait>,
    phase: Phase,
) -> Response {
    let Some(running) = app.statements.find(&id, &slug) else {
        return (StatusCode::NOT_FOUND, "Query not found\n").into_response();
    };
    match running.page(&app, phase, token, wait.until()).await {
        Some(body) => page(body),
        None => (StatusCode::GONE, "Page is gone\n").into_response(),
    }
}

/// `DELETE` of a `nextUri`: cancels.
pub(super) async fn cancel(State(app): State<Arc<App>>, Path((id, slug, _)): Address) -> StatusCode {
    if app.statements.find(&id, &slug).is_some() {
        app.statements.remove(&id);
    }
    StatusCode::NO_CONTENT
}

/// `DELETE /v1/query/{id}`: how the Go and JavaScript clients cancel.
pub(super) async fn cancel_by_id(State(app): State<Arc<App>>, Path(id): Path<String>) -> StatusCode {
    app.statements.remove(&id);
    StatusCode::NO_CONTENT
}

/// `GET /v1/info`: says "Trino" to clients that ask before they trust.
pub(super) async fn info(State(app): State<Arc<App>>) -> axum::Json<serde_json::Value> {
    let minutes = app.started.elapsed().as_secs_f64() / 60.0;
    axum::Json(serde_json::json!({
        "nodeVersion": { "version": TRINO_VERSION },
        "environment": "causeway",
        "coordinator": true,
        "starting": false,
        "uptime": format!("{minutes:.2}m"),
    }))
}

/// The release whose protocol this is.
const TRINO_VERSION: &str = "483";
