//! `GET /`: what can be asked for.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{Html, IntoResponse, Response};

/// Method, path and what comes.
const ROUTES: [(&str, &str, &str); 18] = [
    ("POST", "/api/v1/sql", "rows of a statement: JSON, NDJSON, CSV, Arrow or Parquet, as Accept says"),
    ("GET", "/api/v1/sql?sql=SELECT+1", "the same"),
    ("GET", "/api/v1/chains", "causal chains; ?since=5m, ?from= and ?to=, ?job=, ?nodes="),
    ("GET", "/api/v1/stragglers", "slow ranks with their evidence"),
    ("GET", "/api/v1/nodes", "nodes and when they last reported"),
    ("GET", "/api/v1/nodes/{node}", "one node"),
    ("GET", "/api/v1/tables", "tables and views"),
    ("GET", "/api/v1/tables/{name}", "columns and snapshots of a table"),
    ("GET", "/api/v1/completeness", "what is missing, and what was lost"),
    ("GET", "/api/v1/queries/{id}", "why the answer to a request broke off, by its X-Request-Id"),
    ("POST", "/v1/statement", "Trino client protocol"),
    ("GET", "/v1/info", "what the server is, in Trino's terms"),
    ("GET", "/v1/info/state", "whether it serves"),
    ("GET", "/ui/query.html?ID", "state of a Trino query"),
    ("GET", "/metrics", "metrics for Prometheus"),
    ("GET", "/healthz", "whether the process lives"),
    ("GET", "/readyz", "whether questions can be answered, and if not why"),
    ("GET", "/", "this list"),
];

/// Handles the route: HTML for a browser, text for everything else.
pub(super) async fn list(headers: HeaderMap) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/html") {
        let line = |(method, path, what): &(&str, &str, &str)| format!("{method:<4} {path:<26} {what}\n");
        return ROUTES.iter().map(line).collect::<String>().into_response();
    }
    let row = |(method, path, what): &(&str, &str, &str)| {
        let path = match (*method, path.contains(['{', 'I'])) {
            ("GET", false) => format!("<a href=\"{path}\">{path}</a>"),
            _ => (*path).to_owned(),
        };
        format!("<tr><td>{method}<td><code>{path}</code><td>{what}")
    };
    let rows: String = ROUTES.iter().map(row).collect();
    let head = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Causeway</title><h1>Causeway</h1>";
    Html(format!("{head}<table>{rows}</table>")).into_response()
}
