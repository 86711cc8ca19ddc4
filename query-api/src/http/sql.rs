//! `POST /api/v1/sql`: one statement in, rows out in the form the client accepts, and how complete they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::arrow::error::ArrowError;
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::failures::request_id;
use super::formats::json::{Rows, Style};
use super::formats::types::sql_type;
use super::formats::{EncodeError, Encoder, Format};
use super::problem::Problem;
use super::time::parse_time;
use crate::completeness::{Completeness, Extent};
use crate::engine::error::QueryError;
use crate::engine::run::Answer;
use crate::engine::{AsOf, Query};

/// Rows of a JSON answer when the request does not say.
const DEFAULT_JSON_ROWS: usize = 10_000;
/// Where bulk forms carry what JSON has beside its rows.
const COMPLETENESS: HeaderName = HeaderName::from_static("x-causeway-completeness");

/// The request body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    sql: String,
    /// Most rows wanted.
    limit: Option<usize>,
    /// Read every table as of this time: RFC 3339, or a duration back from now.
    at: Option<String>,
    /// Read the table that has this snapshot at it, and the others as they were then.
    snapshot: Option<i64>,
    /// The rows asked for begin here, so that how complete they are is said of that time alone. Leaves no rows out.
    since: Option<String>,
    timeout_ms: Option<u64>,
}

/// Handles the route.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Json<SqlRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = body?;
    let format = Format::accepted(&headers).ok_or_else(Problem::not_acceptable)?;
    let started = Instant::now();
    let now_ms = app.clock.now_ms();
    let time = |text: &Option<String>| {
        text.as_ref().map(|text| parse_time(text, now_ms)).transpose().map_err(Problem::bad_request)
    };
    let (at_ms, since_ms) = (time(&request.at)?, time(&request.since)?);
    let query = to_query(&app, request, at_ms, format)?;
    let about = About { now_ms, since_ms, as_of: query.as_of };
    let outcome = answer(&app, query, about, (format, request_id(&headers)), started).await;
    app.metrics.answered(outcome.as_ref().err(), started.elapsed());
    Ok(outcome?)
}

fn to_query(app: &App, request: SqlRequest, at_ms: Option<i64>, format: Format) -> Result<Query, Problem> {
    let as_of = match (at_ms, request.snapshot) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("give `at` or `snapshot`, not both")),
        (at_ms, snapshot) => at_ms.map(AsOf::Time).or(snapshot.map(AsOf::Snapshot)),
    };
    // Only what is held as a whole is cut; a stream ends with the rows wanted, or fails with the time.
    let limit = match format {
        Format::Json => Some(request.limit.unwrap_or(DEFAULT_JSON_ROWS).min(app.engine.limits().rows)),
        _ => request.limit,
    };
    let timeout = request.timeout_ms.map(Duration::from_millis);
    Ok(Query { sql: request.sql, limit, as_of, timeout, ..Query::default() })
}

/// What the request says about the time its answer is about.
#[derive(Debug, Clone, Copy)]
struct About {
    now_ms: i64,
    since_ms: Option<i64>,
    as_of: Option<AsOf>,
}

impl About {
    async fn completeness(self, app: &App, answer: &Answer) -> Option<Completeness> {
        let extent = match self.as_of {
            None => Extent::now(self.now_ms),
            Some(AsOf::Time(at_ms)) => Extent::at(at_ms),
            Some(AsOf::Snapshot(_)) => {
                let newest = answer.snapshots().iter().filter_map(|used| used.committed_ms).max();
                Extent::at(newest.unwrap_or(self.now_ms))
            }
        };
        let extent = extent.since(self.since_ms);
        app.completeness.of(&app.engine, answer.snapshots(), extent, Some(answer.deadline())).await
    }
}

async fn answer(
    app: &Arc<App>,
    query: Query,
    about: About,
    (format, id): (Format, Option<String>),
    started: Instant,
) -> Result<Response, QueryError> {
    let answer = app.engine.query(query).await?;
    match format {
        Format::Json => whole(app, answer, about, started).await,
        other => streamed(app, answer, about, (other, id)).await,
    }
}

/// One JSON document: `{"columns":[…],"rows":[…],…}`.
async fn whole(app: &Arc<App>, mut answer: Answer, about: About, started: Instant) -> Result<Response, QueryError> {
    let limit_bytes = app.engine.limits().memory_bytes;
    let mut body = format!("{{\"columns\":{},\"rows\":[", columns(answer.schema())).into_bytes();
    let mut count = 0usize;
    while let Some(batch) = answer.next().await {
        let encoded = Rows::new(&batch?, Style::Native).map_err(cannot_encode)?;
        for row in 0..encoded.len() {
            if count > 0 {
                body.push(b',');
            }
            encoded.write_array(row, &mut body);
            count += 1;
            if body.len() > limit_bytes {
                let message = format!("the JSON document is too long after {count} rows");
                return Err(QueryError::Memory { limit_bytes, message });
            }
        }
    }
    app.metrics.rows(count);
    let completeness = about.completeness(app, &answer).await;
    let tail = json!({
        "row_count": count,
        "truncated": answer.truncated(),
        "completeness": completeness,
        "snapshots": answer.snapshots(),
        "elapsed_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    body.extend_from_slice(b"],");
    body.extend_from_slice(tail.to_string().trim_start_matches('{').as_bytes());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

fn columns(schema: &SchemaRef) -> Value {
    let column = |field: &FieldRef| json!({ "name": field.name(), "type": sql_type(field.data_type()).text });
    schema.fields().iter().map(column).collect()
}

/// A bulk form, sent while it is made. The first batch is awaited before the status line, so that most errors still become a
/// problem document; a later one breaks the connection off, which no client takes for the end, and can be asked for.
async fn streamed(
    app: &Arc<App>,
    mut answer: Answer,
    about: About,
    (format, id): (Format, Option<String>),
) -> Result<Response, QueryError> {
    let mut encoder = Encoder::new(format, answer.schema()).map_err(cannot_write)?;
    let completeness = about.completeness(app, &answer).await;
    let first = match answer.next().await {
        Some(batch) => {
            let batch = batch?;
            app.metrics.rows(batch.num_rows());
            Some(encoder.batch(&batch).map_err(cannot_write)?)
        }
        None => None,
    };
    let state = Streaming { app: Arc::clone(app), answer, encoder: Some(encoder), first, id };
    let body = Body::from_stream(stream::try_unfold(state, |state| Box::pin(state.next())));
    Ok(([(CONTENT_TYPE, format.content_type())], completeness_header(&completeness), body).into_response())
}

/// What JSON says beside its rows, for forms that have no place for it.
pub(super) fn completeness_header(completeness: &Option<Completeness>) -> HeaderMap {
    let value = serde_json::to_string(completeness).ok().and_then(|text| HeaderValue::from_str(&text).ok());
    value.map(|value| (COMPLETENESS, value)).into_iter().collect()
}

struct Streaming {
    app: Arc<App>,
    answer: Answer,
    encoder: Option<Encoder>,
    first: Option<Bytes>,
    /// By which the client asks why the answer broke off.
    id: Option<String>,
}

impl Streaming {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StreamError> {
        let (app, id) = (Arc::clone(&self.app), self.id.take());
        let next = self.piece().await.inspect_err(|error| {
            tracing::warn!(%error, "query failed while its rows were sent");
            if let Some(id) = &id {
                app.failures.remember(id.clone(), error.into());
            }
        });
        Ok(next?.map(|(bytes, state)| (bytes, Self { id, ..state })))
    }

    async fn piece(mut self) -> Result<Option<(Bytes, Self)>, StreamError> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(None);
        };
        match self.answer.next().await {
            Some(batch) => {
                let batch = batch?;
                self.app.metrics.rows(batch.num_rows());
                let bytes = encoder.batch(&batch)?;
                self.encoder = Some(encoder);
                Ok(Some((bytes, self)))
            }
            None => Ok(Some((encoder.finish()?, self))),
        }
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl From<&StreamError> for Problem {
    fn from(error: &StreamError) -> Self {
        match error {
            StreamError::Query(error) => error.into(),
            StreamError::Encode(error) => Self::internal(error.to_string()),
        }
    }
}

pub(super) fn cannot_encode(error: ArrowError) -> QueryError {
    QueryError::Internal { message: format!("rows cannot be written as JSON: {error}") }
}

fn cannot_write(error: EncodeError) -> QueryError {
    QueryError::Unsupported { message: error.to_string(), at: None }
}
