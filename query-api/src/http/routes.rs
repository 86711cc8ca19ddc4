//! What can be asked for: `GET /` for people, `GET /openapi.json` for programs. Both are made of the routes themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::{OpenApi, PathItem};

/// Routes that the document does not describe: method, path and content.
const OTHERS: [(&str, &str, &str); 6] = [
    ("GET", "/ui/query.html?ID", "state of a Trino query"),
    ("GET", "/metrics", "metrics for Prometheus"),
    ("GET", "/healthz", "whether the process lives"),
    ("GET", "/readyz", "whether questions can be answered, and if not why"),
    ("GET", "/openapi.json", "these routes for programs"),
    ("GET", "/", "this list"),
];

/// A route as it is listed.
#[derive(Debug)]
struct Line {
    method: &'static str,
    path: String,
    what: String,
}

/// The routes of a server.
#[derive(Debug)]
pub(super) struct Routes {
    lines: Vec<Line>,
    /// The OpenAPI document.
    document: String,
}

impl Routes {
    /// The routes of a document, and those beside it.
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut lines: Vec<Line> = document.paths.paths.iter().flat_map(|(path, item)| lines_of(path, item)).collect();
        let others = OTHERS.map(|(method, path, what)| Line { method, path: path.to_owned(), what: what.to_owned() });
        lines.extend(others);
        // A document of plain data is always JSON.
        Self { lines, document: document.to_json().unwrap_or_default() }
    }
}

fn lines_of(path: &str, item: &PathItem) -> Vec<Line> {
    let mut lines = Vec::new();
    for (method, operation) in [("POST", &item.post), ("GET", &item.get), ("DELETE", &item.delete)] {
        if let Some(operation) = operation {
            let what = operation.summary.clone().unwrap_or_default();
            lines.push(Line { method, path: example(method, path).to_owned(), what });
        }
    }
    lines
}

/// A path that can be followed, where one needs a parameter.
fn example<'a>(method: &str, path: &'a str) -> &'a str {
    match (method, path) {
        ("GET", "/api/v1/sql") => "/api/v1/sql?sql=SELECT+1",
        _ => path,
    }
}

/// `GET /openapi.json`
pub(super) async fn document(State(routes): State<Arc<Routes>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], routes.document.clone()).into_response()
}

/// `GET /`: HTML for a browser, text for everything else.
pub(super) async fn list(State(routes): State<Arc<Routes>>, headers: HeaderMap) -> Response {
    // Browsers name `text/html`; curl sends `*/*`.
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/html") {
        return routes.lines.iter().map(as_text).collect::<String>().into_response();
    }
    let rows: String = routes.lines.iter().map(as_html).collect();
    let head = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Causeway</title><h1>Causeway</h1>";
    Html(format!("{head}<table>{rows}</table>")).into_response()
}

fn as_text(line: &Line) -> String {
    let Line { method, path, what } = line;
    format!("{method:<6} {path:<26} {what}\n")
}

fn as_html(line: &Line) -> String {
    let Line { method, path, what } = line;
    // A path with a placeholder, `{node}` or `?ID`, cannot be followed. Nothing is escaped: all texts are constants of
    // the source.
    let shown = match (*method, path.contains(['{', 'I'])) {
        ("GET", false) => format!("<a href=\"{path}\">{path}</a>"),
        _ => path.clone(),
    };
    format!("<tr><td>{method}<td><code>{shown}</code><td>{what}")
}
