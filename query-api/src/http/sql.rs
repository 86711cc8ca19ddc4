//! `/api/v1/sql`: one statement in, rows out in the form the client accepts, and how complete they are.

mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use answers::completeness::Completeness;
use answers::time::parse_time;
use arrow::datatypes::SchemaRef;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, OriginalUri, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream;
use query_engine::types::sql_type;
use query_engine::{Answer, AsOf, Asker, Query, QueryError, Scope};

use super::App;
use super::endings::Ending;
use super::formats::json::{Rows, Style, cannot_encode};
use super::formats::{EncodeError, Encoder, Format};
use super::headers::{completeness_header, request_id};
use super::metrics::Tally;
use crate::wire::{Cell, CutAnswer, Problem, SqlAnswer, SqlColumn, SqlRequest, SqlSnapshot};

/// Rows of a JSON answer when the request gives no limit.
const DEFAULT_JSON_ROWS: usize = 10_000;

/// Rows of a statement, in the form that `Accept` prefers; JSON without that header.
#[utoipa::path(
    post,
    path = "/sql",
    summary = "rows of a statement: JSON, NDJSON, CSV, Arrow or Parquet, as Accept says",
    request_body(content(
        (SqlRequest = "application/json"),
        (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "The rows, and how complete they are", content(
            (SqlAnswer<Vec<Vec<Cell>>> = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (Vec<u8> = "application/vnd.apache.parquet"),
        )),
        Problem,
    ),
)]
pub(super) async fn post(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request = request::of_body(&headers, &uri, &body?)?;
    respond(&app, peer, &headers, request).await
}

/// The same, with the statement in the URL.
#[utoipa::path(
    get,
    path = "/sql",
    summary = "rows of the statement in the URL",
    params(request::UrlOptions),
    responses(
        (status = 200, description = "The rows, and how complete they are", content(
            (SqlAnswer<Vec<Vec<Cell>>> = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (Vec<u8> = "application/vnd.apache.parquet"),
        )),
        Problem,
    ),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = request::of_url(&uri)?;
    respond(&app, peer, &headers, request).await
}

async fn respond(
    app: &Arc<App>,
    peer: SocketAddr,
    headers: &HeaderMap,
    request: SqlRequest,
) -> Result<Response, Problem> {
    // First: a form that cannot be given must not cost a query.
    let format = Format::accepted(headers).ok_or_else(Problem::not_acceptable)?;
    let started = Instant::now();
    let now_ms = app.answers.now_ms();
    let at_ms = time_of(&request.at, now_ms)?;
    let since_ms = time_of(&request.since, now_ms)?;
    // The state of a table in the future is not fixed: the same request would give other rows later.
    if at_ms.is_some_and(|at_ms| at_ms > now_ms) {
        return Err(Problem::bad_request("`at` lies in the future"));
    }
    let as_of = match (at_ms, request.snapshot) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("give `at` or `snapshot`, not both")),
        (at_ms, snapshot) => at_ms.map(AsOf::Time).or(snapshot.map(AsOf::Snapshot)),
    };
    // Only JSON is cut by a limit of the server, because it is held as a whole. A stream has every row that was asked
    // for, or breaks off.
    let limit = match format {
        Format::Json => Some(request.limit.unwrap_or(DEFAULT_JSON_ROWS).min(app.engine.limits().rows)),
        _ => request.limit,
    };
    let asked = Asked {
        sql: request.sql,
        limit,
        timeout: request.timeout_ms.map(Duration::from_millis),
        asker: Asker::at(peer),
        about: About { now_ms, scope: Scope { nodes: request.nodes, since_ms }, as_of },
        format,
        id: request_id(headers),
        started,
    };
    // From here on each outcome is counted, also that of a client that goes away: then `Drop` counts it as cancelled.
    let tally = app.metrics.begin_running(started);
    match answer(app, asked).await {
        Ok(Sent::Whole(response)) => {
            tally.end(None);
            Ok(response)
        }
        Ok(Sent::Pieces { head, pieces }) => {
            let pieces = Pieces { tally: Some(tally), ..*pieces };
            // Pulled by the connection: a slow reader holds the query back (backpressure). An error ends the body
            // without its last chunk (RFC 9112 section 7.1), which clients report as an incomplete message.
            let body = Body::from_stream(stream::try_unfold(pieces, |pieces| Box::pin(pieces.next())));
            Ok((head, body).into_response())
        }
        Err(error) => {
            tally.end(Some(&error));
            Err(error.into())
        }
    }
}

/// Unix milliseconds of a time in a request.
fn time_of(text: &Option<String>, now_ms: i64) -> Result<Option<i64>, Problem> {
    let time = text.as_ref().map(|text| parse_time(text, now_ms)).transpose();
    time.map_err(|error| Problem::bad_request(error.to_string()))
}

/// A request whose parameters were read, and whose statement was not yet.
struct Asked {
    sql: String,
    limit: Option<usize>,
    timeout: Option<Duration>,
    asker: Asker,
    about: About,
    format: Format,
    /// The name under which the client may ask how the answer ended.
    id: Option<String>,
    started: Instant,
}

/// An answer, or what it begins with.
enum Sent {
    Whole(Response),
    Pieces { head: (HeaderMap, HeaderMap), pieces: Box<Pieces> },
}

/// The part of a request that decides which rows its answer is about.
#[derive(Debug, Clone)]
struct About {
    now_ms: i64,
    scope: Scope,
    as_of: Option<AsOf>,
}

impl About {
    async fn completeness(self, app: &App, answer: &Answer) -> Option<Completeness> {
        app.answers.completeness_of(answer, self.scope, self.as_of, self.now_ms).await
    }
}

async fn answer(app: &Arc<App>, asked: Asked) -> Result<Sent, QueryError> {
    let Asked { sql, limit, timeout, asker, about, format, id, started } = asked;
    let query = Query {
        limit,
        timeout,
        asker: Some(asker),
        as_of: about.as_of,
        scope: about.scope.clone(),
        ..Query::parse(&sql)?
    };
    let answer = app.engine.query(query).await?;
    match format {
        Format::Json => whole(app, answer, about, started).await.map(Sent::Whole),
        other => begin(app, answer, about, (other, id)).await,
    }
}

/// One JSON document: `{"columns":[…],"rows":[…],…}`.
async fn whole(app: &Arc<App>, mut answer: Answer, about: About, started: Instant) -> Result<Response, QueryError> {
    let limit_bytes = app.engine.limits().memory_bytes;
    let mut body = format!("{{\"columns\":{},\"rows\":[", columns(answer.schema())?).into_bytes();
    let mut count = 0usize;
    while let Some(batch) = answer.next().await {
        let encoded = Rows::new(&batch?, Style::Native).map_err(cannot_encode)?;
        for row in 0..encoded.len() {
            if count > 0 {
                body.push(b',');
            }
            encoded.write_array(row, &mut body);
            count += 1;
            // Checked per row and not per batch: a batch of long texts may be larger than the limit by itself.
            if body.len() > limit_bytes {
                let message = format!("the JSON document is too long after {count} rows");
                return Err(QueryError::Memory { limit_bytes, message });
            }
        }
    }
    app.metrics.rows(count);
    // After the rows: both share the deadline of the statement, and the rows come first.
    let completeness = about.completeness(app, &answer).await;
    let frame = SqlAnswer {
        columns: Vec::new(),
        rows: NO_ROWS,
        row_count: count,
        truncated: answer.truncated(),
        completeness,
        snapshots: answer.snapshots().iter().map(SqlSnapshot::from).collect(),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    body.extend_from_slice(behind_rows(&frame)?.as_bytes());
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Rows that are written elsewhere.
const NO_ROWS: [(); 0] = [];

/// A document from the end of its rows on: the rows before it are JSON already.
fn behind_rows(frame: &SqlAnswer<[(); 0]>) -> Result<String, QueryError> {
    let document = serde_json::to_string(frame);
    let document = document.map_err(|error| QueryError::Internal { message: error.to_string() })?;
    // No text can contain this: a quote within it would be escaped.
    let behind = document.split_once("\"rows\":[").map(|(_, behind)| behind.to_owned());
    behind.ok_or_else(|| QueryError::Internal { message: "an answer has no rows".to_owned() })
}

/// The columns of an answer, as JSON.
fn columns(schema: &SchemaRef) -> Result<String, QueryError> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(SqlColumn { name: field.name().clone(), kind: sql_type(field.data_type()).text });
    }
    serde_json::to_string(&columns).map_err(|error| QueryError::Internal { message: error.to_string() })
}

/// A bulk form, sent while it is made. An error after the first batch breaks the connection off, which no client takes
/// for the end; the client can ask for it afterwards.
async fn begin(
    app: &Arc<App>,
    mut answer: Answer,
    about: About,
    (format, id): (Format, Option<String>),
) -> Result<Sent, QueryError> {
    // A type of column that the form cannot hold is found here, before any row is made.
    let mut encoder = Encoder::new(format, answer.schema()).map_err(cannot_write)?;
    // Before the rows, because it goes into the head of the response.
    let completeness = about.completeness(app, &answer).await;
    let mut rows = 0;
    // Awaited before the status line is sent: sorts, joins and groups run before the first batch, so that most errors
    // still become a problem document.
    let first = match answer.next().await {
        Some(batch) => {
            let batch = batch?;
            app.metrics.rows(batch.num_rows());
            rows = batch.num_rows();
            Some(encoder.batch(&batch).map_err(cannot_write)?)
        }
        None => None,
    };
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static(format.content_type()))].into_iter().collect();
    let pieces =
        Box::new(Pieces { app: Arc::clone(app), answer, encoder: Some(encoder), first, id, rows, tally: None });
    Ok(Sent::Pieces { head: (content_type, completeness_header(&completeness)), pieces })
}

/// The pieces of a bulk form.
struct Pieces {
    app: Arc<App>,
    answer: Answer,
    encoder: Option<Encoder>,
    first: Option<Bytes>,
    /// The name under which the client may ask how the answer ended.
    id: Option<String>,
    /// Rows encoded so far.
    rows: usize,
    tally: Option<Tally>,
}

impl Pieces {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StreamError> {
        let app = Arc::clone(&self.app);
        // `piece` consumes the rest and gives it back only with another piece: at the end these two are still needed,
        // and a tally that is dropped counts as cancelled.
        let id = self.id.take();
        let tally = self.tally.take();
        let next = match self.piece().await {
            Ok(Next::Piece(bytes, rest)) => return Ok(Some((bytes, Self { id, tally, ..*rest }))),
            Ok(Next::End { cut_after }) => {
                // A stream has no place behind its rows for `truncated`.
                if let (Some(rows), Some(id)) = (cut_after, &id) {
                    app.endings.remember(id.clone(), Ending::Cut(CutAnswer { truncated: true, row_count: rows }));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let error = next.as_ref().err().map(|error| {
            tracing::warn!(%error, "query failed while its rows were sent");
            if let Some(id) = id {
                app.endings.remember(id, Ending::Failed(error.into()));
            }
            error.for_metrics()
        });
        if let Some(tally) = tally {
            tally.end(error.as_ref());
        }
        next
    }

    async fn piece(mut self) -> Result<Next, StreamError> {
        if let Some(first) = self.first.take() {
            return Ok(Next::Piece(first, Box::new(self)));
        }
        // `finish` took the encoder at the call before: nothing is left to send.
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(Next::End { cut_after: self.answer.truncated().then_some(self.rows) });
        };
        match self.answer.next().await {
            Some(batch) => {
                let batch = batch?;
                self.app.metrics.rows(batch.num_rows());
                self.rows += batch.num_rows();
                let bytes = encoder.batch(&batch)?;
                self.encoder = Some(encoder);
                Ok(Next::Piece(bytes, Box::new(self)))
            }
            None => Ok(Next::Piece(encoder.finish()?, Box::new(self))),
        }
    }
}

/// A step of a bulk form.
enum Next {
    Piece(Bytes, Box<Pieces>),
    End {
        /// Rows that were sent, when there were more.
        cut_after: Option<usize>,
    },
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl StreamError {
    fn for_metrics(&self) -> QueryError {
        match self {
            Self::Query(error) => error.clone(),
            Self::Encode(error) => QueryError::Internal { message: error.to_string() },
        }
    }
}

impl From<&StreamError> for Problem {
    fn from(error: &StreamError) -> Self {
        match error {
            StreamError::Query(error) => error.into(),
            StreamError::Encode(error) => Self::internal(error.to_string()),
        }
    }
}

fn cannot_write(error: EncodeError) -> QueryError {
    QueryError::Unsupported { message: error.to_string(), at: None }
}
