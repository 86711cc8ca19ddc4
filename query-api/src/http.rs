//! The HTTP surfaces, all on one listener.

mod chains;
mod endings;
mod formats;
mod host;
pub mod metrics;
mod nodes;
mod problem;
mod routes;
mod sql;
mod statement;
mod untraced;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use service_kit::clock::Clock;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::completeness::Ledger;
use endings::Endings;
use metrics::Metrics;
use problem::Problem;
use query_engine::Engine;
use statement::Statements;

/// Longest request body: the longest statement, and room for its JSON.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How the HTTP surfaces behave.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// What clients must use to come back, when a proxy stands between: `https://causeway.example.org`. When absent, what the
    /// `X-Forwarded-…` headers of a request say, or its `Host`.
    pub external_url: Option<String>,
}

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    engine: Arc<Engine>,
    completeness: Ledger,
    statements: Statements,
    endings: Endings,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    options: HttpOptions,
    started: Instant,
}

impl App {
    pub fn new(engine: Arc<Engine>, metrics: Metrics, clock: Arc<dyn Clock>, options: HttpOptions) -> Self {
        Self {
            engine,
            completeness: Ledger::default(),
            statements: Statements::default(),
            endings: Endings::default(),
            metrics,
            clock,
            options,
            started: Instant::now(),
        }
    }

    /// Forgets the queries that nobody asks about any more, for as long as it is polled.
    pub(crate) async fn keep_clean(&self) {
        self.statements.keep_clean().await;
    }
}

/// All routes; `admin` are those of [`service_kit::admin::routes`].
pub fn router(app: Arc<App>, admin: Router) -> Router {
    let native = Router::new()
        .route("/sql", post(sql::post).get(sql::get))
        .route("/chains", get(chains::chains))
        .route("/stragglers", get(chains::stragglers))
        .route("/nodes", get(nodes::nodes))
        .route("/nodes/{node}", get(nodes::node))
        .route("/tables", get(nodes::tables))
        .route("/tables/{name}", get(nodes::table))
        .route("/completeness", get(nodes::completeness))
        .route("/queries/{id}", get(endings::get))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method);
    let trino = Router::new()
        .route("/statement", post(statement::post))
        .route("/statement/queued/{id}/{slug}/{token}", get(statement::queued).delete(statement::cancel))
        .route("/statement/executing/{id}/{slug}/{token}", get(statement::executing).delete(statement::cancel))
        .route("/query/{id}", delete(statement::cancel_by_id))
        .route("/info", get(statement::info))
        .route("/info/state", get(async || "\"ACTIVE\""))
        .method_not_allowed_fallback(no_such_method);
    Router::new()
        .route("/", get(routes::list))
        .route("/ui/query.html", get(statement::query_page))
        .nest("/api/v1", native)
        .nest("/v1", trino)
        .with_state(app)
        .layer(CompressionLayer::new())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(admin)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
}

/// Answers only to names of this machine, and to the host of the configured URL.
pub(crate) fn only_this_machine(router: Router, external_url: Option<&str>) -> Router {
    router.layer(from_fn_with_state(host::external_host(external_url), host::only_this_machine))
}

// Routes that are nested see a path without its beginning: the original is what the client asked for.

async fn no_such_route(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is no {method} {}", uri.path()), "GET / lists the routes")
}

async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::method_not_allowed(format!("{} does not take {method}", uri.path()))
}

/// The panic itself is in the log; the client learns only that there was one.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal("the request met a bug").into_response()
}
