//! RFC 9457 problem documents: the errors of every surface but Trino's. `type` is stable; scripts may match on it.

use std::collections::BTreeMap;

use answers::chains::ChainsError;
use answers::nodes::NodeError;
use answers::tables::TableError;
use answers::window::WindowError;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use query_engine::QueryError;
use serde::de::DeserializeOwned;
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, ResponsesBuilder};

use super::MAX_BODY_BYTES;
use crate::wire::{Place, Problem};

/// The media type of a problem document, RFC 9457 section 3.
const PROBLEM_JSON: &str = "application/problem+json";

/// The error response of every native route, in the document of the routes. What each status stands for is in
/// `describe` and in the constructors here; the document has one response for all.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        // The schema itself is among the components of `Description`.
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let problem = ResponseBuilder::new()
            .description("Why there is no answer: a problem document, RFC 9457. `status` is that of the response")
            .content(PROBLEM_JSON, content);
        ResponsesBuilder::new().response("default", problem).build().into()
    }
}

impl Problem {
    fn new(slug: &str, status: StatusCode, title: &'static str, detail: String, hint: &'static str) -> Self {
        Self {
            kind: format!("urn:causeway:problem:{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            hint: hint.to_owned(),
            position: None,
            close_names: Vec::new(),
            file: None,
        }
    }

    /// A parameter or body that is not what the route takes.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request", StatusCode::BAD_REQUEST, "The request is malformed", detail.into(), "")
    }

    /// Nothing has that name; `hint` says where names are listed.
    pub(crate) fn not_found(detail: impl Into<String>, hint: &'static str) -> Self {
        Self::new("not-found", StatusCode::NOT_FOUND, "Not found", detail.into(), hint)
    }

    /// The route is there and takes other methods; they are in the `Allow` header.
    pub(crate) fn method_not_allowed(detail: impl Into<String>) -> Self {
        let title = "Method not allowed";
        Self::new(
            "method-not-allowed",
            StatusCode::METHOD_NOT_ALLOWED,
            title,
            detail.into(),
            "use one of the methods in `Allow`",
        )
    }

    /// The body is of a type that the route does not read.
    pub(crate) fn unsupported_media_type(content_type: &str) -> Self {
        let hint = "send JSON as application/json, or the statement itself as text/plain";
        let detail = format!("a body of type `{content_type}` is not read");
        Self::new("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "No such type of body", detail, hint)
    }

    /// The request is addressed to another machine than the one that is listened on.
    pub(crate) fn other_host(host: &str) -> Self {
        let hint =
            "use localhost, 127.0.0.1 or [::1]; a name that a proxy answers to belongs into `query.external_url`";
        let detail = format!("this server listens on loopback, and `{host}` is no name of this machine");
        Self::new("other-host", StatusCode::FORBIDDEN, "Not addressed to this machine", detail, hint)
    }

    /// No form the client accepts is one we have.
    pub(crate) fn not_acceptable() -> Self {
        let hint = "ask for application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream or \
                    application/vnd.apache.parquet";
        let detail = "none of the media types in `Accept` can be given".to_owned();
        Self::new("not-acceptable", StatusCode::NOT_ACCEPTABLE, "No such form", detail, hint)
    }

    /// A fault of ours.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        let hint = "report it with the server's log";
        let title = "The server failed";
        Self::new("internal", StatusCode::INTERNAL_SERVER_ERROR, title, detail.into(), hint)
    }
}

const SUPPORTED: &str =
    "write it as the message says, or in parts; tables are listed by SHOW TABLES and `causeway tables`";
const READ_ONLY: &str = "send SELECT, WITH, VALUES, EXPLAIN, DESCRIBE or SHOW; writing is the job of ingest and import";
const LESS_MEMORY: &str = "narrow the time range, select fewer columns or group by less; take many rows as NDJSON, CSV, Arrow or Parquet, which are \
     streamed; or raise `query.memory`";
const LESS_TIME: &str = "narrow the time range, or raise `timeout_ms` up to the server's `query.timeout`";
const BAD_FILE: &str =
    "check the file and its object store; restore it, or roll the table back to a snapshot before it";

/// Type, status, title and advice of each way a query fails.
fn describe(error: &QueryError) -> (&'static str, StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match error {
        QueryError::Syntax { .. } => (
            "sql-syntax",
            S::BAD_REQUEST,
            "The statement cannot be parsed",
            "correct the statement at the position given",
        ),
        QueryError::Refused { .. } => ("statement-refused", S::FORBIDDEN, "The statement is not allowed", READ_ONLY),
        QueryError::TooComplex { .. } => (
            "statement-too-complex",
            S::BAD_REQUEST,
            "The statement is too complex",
            "split it, or replace long OR chains by IN lists",
        ),
        QueryError::UnknownColumn { .. } => {
            ("unknown-column", S::BAD_REQUEST, "No such column", "DESCRIBE the table to see its columns")
        }
        QueryError::UnknownTable { .. } => {
            ("unknown-table", S::BAD_REQUEST, "No such table", "list them with `causeway tables` or GET /api/v1/tables")
        }
        QueryError::UnknownCatalog { .. } => {
            ("unknown-catalog", S::BAD_REQUEST, "No such catalog", "leave the catalog out")
        }
        QueryError::SessionProperty { .. } => {
            ("session-property", S::BAD_REQUEST, "The session property is invalid", "correct or leave out the property")
        }
        QueryError::UnknownFunction { .. } => {
            ("unknown-function", S::BAD_REQUEST, "No such function", "use a function of DataFusion's SQL reference")
        }
        QueryError::Invalid { .. } => {
            ("sql-invalid", S::BAD_REQUEST, "The statement is invalid", "correct the statement")
        }
        QueryError::Unsupported { .. } => {
            ("sql-unsupported", S::BAD_REQUEST, "The statement is not supported", SUPPORTED)
        }
        QueryError::Execution { .. } => (
            "execution",
            S::UNPROCESSABLE_ENTITY,
            "The query met data it cannot compute with",
            "guard the expression, for example with NULLIF or TRY_CAST",
        ),
        QueryError::Memory { .. } => {
            ("memory-limit", S::INSUFFICIENT_STORAGE, "The query needs too much memory", LESS_MEMORY)
        }
        QueryError::Timeout { .. } => ("time-limit", S::GATEWAY_TIMEOUT, "The query took too long", LESS_TIME),
        QueryError::Busy { .. } => ("busy", S::TOO_MANY_REQUESTS, "Too many queries", "try again in a moment"),
        QueryError::Cancelled => ("cancelled", S::SERVICE_UNAVAILABLE, "The query was cancelled", "send it again"),
        QueryError::Archived { .. } => {
            ("archived", S::CONFLICT, "Files must be restored first", "give the command of the detail, then the query")
        }
        QueryError::DataFile { .. } => {
            ("data-file", S::INTERNAL_SERVER_ERROR, "A file of the lake is damaged", BAD_FILE)
        }
        QueryError::Lake { .. } => (
            "lake",
            S::SERVICE_UNAVAILABLE,
            "The lake cannot be read",
            "check the catalog and the object store, then retry",
        ),
        QueryError::Internal { .. } => (
            "internal",
            S::INTERNAL_SERVER_ERROR,
            "The server failed",
            "report it with the statement and the server's log",
        ),
    }
}

impl From<&QueryError> for Problem {
    fn from(error: &QueryError) -> Self {
        let (slug, status, title, hint) = describe(error);
        let mut problem = Self::new(slug, status, title, error.to_string(), hint);
        problem.position = error.position().map(Place::from);
        match error {
            QueryError::UnknownColumn { close, .. }
            | QueryError::UnknownTable { close, .. }
            | QueryError::UnknownFunction { close, .. } => problem.close_names.clone_from(close),
            QueryError::DataFile { file, .. } => problem.file = Some(file.clone()),
            _ => {}
        }
        problem
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::from(&error)
    }
}

impl From<WindowError> for Problem {
    fn from(error: WindowError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<ChainsError> for Problem {
    fn from(error: ChainsError) -> Self {
        match error {
            ChainsError::Query(error) => error.into(),
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Query(error) => error.into(),
            unknown => Self::not_found(unknown.to_string(), "list them with `causeway nodes` or GET /api/v1/nodes"),
        }
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        match error {
            // A table in the path of a request that does not exist is a resource that was not found (404); in a
            // statement it is a wrong statement (400).
            TableError::Query(error) if !matches!(error, QueryError::UnknownTable { .. }) => error.into(),
            unknown => Self::not_found(unknown.to_string(), "list them with `causeway tables` or GET /api/v1/tables"),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let text = rejection.body_text();
        // The framework names the Rust type, which means nothing to the author of the request.
        let detail = text.split_once("into the target type: ").map_or(text.as_str(), |(_, what)| what);
        Self { status: rejection.status().as_u16(), ..Self::bad_request(detail) }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        // The body could not be read to its end: the connection of the client broke.
        if rejection.status() != StatusCode::PAYLOAD_TOO_LARGE {
            return Self::bad_request(rejection.body_text());
        }
        let detail = format!("the body has more than {MAX_BODY_BYTES} bytes");
        let hint = "shorten the statement, for example by a join with VALUES instead of long lists";
        Self::new("body-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", detail, hint)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(format!("the path cannot be read: {}", rejection.body_text()))
    }
}

/// The variable parts of a path; a path that is not UTF-8 is a problem document.
#[derive(Debug)]
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(value) = Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // The constructors take a `StatusCode`: only a problem that was deserialised may have another number.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Faults of requests are not logged: a client could fill the log with them.
        if status.is_server_error() {
            tracing::warn!(problem = %self.kind, detail = %self.detail, "request failed");
        }
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        // In place of `application/json`, which `axum::Json` has set.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        // Backpressure: without `Retry-After` (RFC 6585 section 4) clients try again at once.
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
