//! The HTTP surfaces, all on one listener.

mod chains;
mod endings;
mod formats;
mod headers;
mod host;
pub mod metrics;
mod nodes;
mod parameters;
mod problem;
mod routes;
mod sql;
mod statement;

use std::sync::Arc;
use std::time::Instant;

use answers::Answers;
use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use query_engine::Engine;
use service_kit::clock::Clock;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::wire::Problem;
use endings::Endings;
use metrics::Metrics;
use routes::Routes;
use statement::Statements;

/// Longest request body: the longest statement, and room for its JSON.
const MAX_BODY_BYTES: usize = 1 << 20;

/// How the HTTP surfaces behave.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// The URL by which clients reach this server, when a proxy stands between: `https://causeway.example.org`. When
    /// absent, it is taken from the `X-Forwarded-…` headers of a request, or from its `Host`.
    pub external_url: Option<String>,
}

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    engine: Arc<Engine>,
    answers: Answers,
    statements: Statements,
    endings: Endings,
    metrics: Metrics,
    options: HttpOptions,
    started: Instant,
}

impl App {
    pub fn new(engine: Arc<Engine>, metrics: Metrics, clock: Arc<dyn Clock>, options: HttpOptions) -> Self {
        Self {
            answers: Answers::new(Arc::clone(&engine), clock),
            engine,
            statements: Statements::default(),
            endings: Endings::default(),
            metrics,
            options,
            started: Instant::now(),
        }
    }

    /// Removes the Trino queries that their clients no longer poll; runs until it is dropped.
    pub(crate) async fn keep_clean(&self) {
        self.statements.keep_clean().await;
    }
}

/// The head of the document of the routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Causeway",
        description = "SQL over the fleet, causal chains, stragglers, and how complete every answer is. Errors are RFC 9457 problem documents."
    ),
    components(schemas(Problem))
)]
struct Description;

/// The routes that have a document, and the document.
fn documented() -> (Router<Arc<App>>, OpenApi) {
    let (native, of_native) = native_routes().split_for_parts();
    let (trino, of_trino) = trino_routes().split_for_parts();
    let native = native.fallback(no_such_route).method_not_allowed_fallback(no_such_method);
    let trino = trino.method_not_allowed_fallback(no_such_method);
    let document = Description::openapi().nest("/api/v1", of_native).nest("/v1", of_trino);
    (Router::new().nest("/api/v1", native).nest("/v1", trino), document)
}

/// Causeway's own routes, under `/api/v1`.
fn native_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(sql::post, sql::get))
        .routes(routes!(chains::chains))
        .routes(routes!(chains::stragglers))
        .routes(routes!(nodes::nodes))
        .routes(routes!(nodes::node))
        .routes(routes!(nodes::tables))
        .routes(routes!(nodes::table))
        .routes(routes!(nodes::completeness))
        .routes(routes!(endings::get))
}

/// The routes of the Trino protocol, under `/v1`.
fn trino_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(statement::post))
        .routes(routes!(statement::queued, statement::cancel_queued))
        .routes(routes!(statement::executing, statement::cancel))
        .routes(routes!(statement::cancel_by_id))
        .routes(routes!(statement::info))
        .routes(routes!(statement::state))
}

/// The OpenAPI document of the routes, as `GET /openapi.json` serves it.
pub fn openapi() -> OpenApi {
    documented().1
}

/// All routes; `admin` are those of [`service_kit::admin::routes`].
pub fn router(app: Arc<App>, admin: Router) -> Router {
    let (documented, document) = documented();
    let listed = Router::new()
        .route("/", get(routes::list))
        .route("/openapi.json", get(routes::document))
        .with_state(Arc::new(Routes::of(&document)));
    documented
        .route("/ui/query.html", get(statement::query_page))
        .with_state(app)
        .merge(listed)
        // Layers of axum apply to the routes added before them: those of the admin port, below, are neither compressed
        // nor limited. The limit replaces axum's default of 2 MB.
        .layer(CompressionLayer::new())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(admin)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        // The outermost layer: without it a panic in a handler resets the connection, and the client gets no status at
        // all.
        .layer(CatchPanicLayer::custom(panicked))
}

/// Answers only to names of this machine, and to the host of the configured URL.
pub(crate) fn only_this_machine(router: Router, external_url: Option<&str>) -> Router {
    router.layer(from_fn_with_state(host::external_host(external_url), host::only_this_machine))
}

// axum removes the prefix of a nested route from its URI: `OriginalUri` is the path that the client asked for.

async fn no_such_route(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is no {method} {}", uri.path()), "GET / lists the routes")
}

async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::method_not_allowed(format!("{} does not take {method}", uri.path()))
}

/// The panic itself is in the log; the response reports only that there was one.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal("the handler of the request panicked").into_response()
}
