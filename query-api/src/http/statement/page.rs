//! From batches to pages: columns with the first one, then about a megabyte of rows each.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::App;
use super::super::formats::json::{Rows, Style, cannot_encode};
use super::super::metrics::Tally;
use super::session::Session;
use query_engine::QueryError;
use query_engine::types::{SqlType, TypeArgument, sql_type};
use query_engine::{Asker, Query};

/// A page is sent at this size, bytes; it is Trino's default as well.
const PAGE_BYTES: usize = 1 << 20;

/// A statement as its client posted it.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    /// Who posted it.
    pub client: Asker,
    /// Its text.
    pub sql: String,
    /// The session, or why the statement fails.
    pub session: Result<Session, QueryError>,
}

/// What a client gets next. `data` is a JSON array of rows.
#[derive(Debug)]
pub(super) enum Page {
    /// The first page of a result, also of an empty one.
    Columns {
        columns: Value,
        data: Vec<u8>,
        rows: u64,
    },
    Data {
        data: Vec<u8>,
        rows: u64,
    },
    Failed(QueryError),
    End,
}

/// Runs the query and sends its pages; waits while the client is slow, and is dropped when its query is removed: its
/// tally then counts it as cancelled.
pub(super) async fn produce(app: Arc<App>, posted: Posted, tally: Tally, pages: mpsc::Sender<Page>) {
    let Posted { client, sql, session } = posted;
    let outcome = match session {
        Ok(session) => pages_of(&app, sql, session, client, &pages).await,
        Err(error) => Err(error),
    };
    // Before the last page is sent: a client that never fetches it must not leave the query uncounted.
    tally.end(outcome.as_ref().err());
    let last = match outcome {
        Ok(()) => Page::End,
        Err(error) => Page::Failed(error),
    };
    // An error means that the receiver was dropped: the query was cancelled or evicted.
    let _ = pages.send(last).await;
}

async fn pages_of(
    app: &App,
    sql: String,
    session: Session,
    asker: Asker,
    pages: &mpsc::Sender<Page>,
) -> Result<(), QueryError> {
    // Clients end a statement with a semicolon or not; the protocol takes both.
    let sql = sql.trim_end().trim_end_matches(';').to_owned();
    let Session { catalog, schema, zone, timeout } = session;
    let query = Query { catalog, schema, zone, timeout, asker: Some(asker), ..Query::parse(&sql)? };
    let mut answer = app.engine.query(query).await?;
    let mut columns = Some(columns(answer.schema()));
    let mut data = Filling::default();
    while let Some(batch) = answer.next().await {
        let rows = Rows::new(&batch?, Style::Trino).map_err(cannot_encode)?;
        app.metrics.rows(rows.len());
        for row in 0..rows.len() {
            data.push(&rows, row);
            // The channel is bounded: the query waits here while its client is slow (backpressure).
            if data.bytes.len() >= PAGE_BYTES && pages.send(data.page(columns.take())).await.is_err() {
                return Err(QueryError::Cancelled);
            }
        }
    }
    // An empty result still has its columns: clients build their result set from them.
    if data.rows > 0 || columns.is_some() {
        pages.send(data.page(columns.take())).await.map_err(|_| QueryError::Cancelled)?;
    }
    Ok(())
}

/// A page being filled.
#[derive(Default)]
struct Filling {
    bytes: Vec<u8>,
    rows: u64,
}

impl Filling {
    fn push(&mut self, rows: &Rows, row: usize) {
        self.bytes.push(if self.rows == 0 { b'[' } else { b',' });
        rows.write_array(row, &mut self.bytes);
        self.rows += 1;
    }

    fn page(&mut self, columns: Option<Value>) -> Page {
        let Self { bytes: mut data, rows } = std::mem::take(self);
        if rows > 0 {
            data.push(b']');
        }
        match columns {
            Some(columns) => Page::Columns { columns, data, rows },
            None => Page::Data { data, rows },
        }
    }
}

fn columns(schema: &SchemaRef) -> Value {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let kind = sql_type(field.data_type());
        columns.push(json!({ "name": field.name(), "type": kind.text, "typeSignature": signature(&kind) }));
    }
    columns.into()
}

/// A type as the protocol describes it.
fn signature(kind: &SqlType) -> Value {
    json!({ "rawType": kind.raw, "arguments": kind.arguments.iter().map(argument).collect::<Value>() })
}

fn argument(argument: &TypeArgument) -> Value {
    match argument {
        TypeArgument::Number(value) => json!({ "kind": "LONG", "value": value }),
        TypeArgument::Type(kind) => json!({ "kind": "TYPE", "value": signature(kind) }),
        TypeArgument::Field { name, kind } => {
            let value = json!({ "fieldName": { "name": name }, "typeSignature": signature(kind) });
            json!({ "kind": "NAMED_TYPE", "value": value })
        }
    }
}
