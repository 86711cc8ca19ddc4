//! Tables and views: their columns, sizes and snapshots.

use std::collections::HashMap;

use query_engine::names::DEFAULT_SCHEMA;
use query_engine::time::rfc3339;
use query_engine::types::sql_type;
use query_engine::views::{self, CONSTANTS, VIEWS};
use query_engine::{Query, QueryError};
use serde::{Deserialize, Serialize};
use tables::registry;
use utoipa::ToSchema;

use crate::answers::Answers;

/// Snapshots that the description of a table lists, the newest first.
const SNAPSHOTS_LISTED: usize = 100;

/// Everything that can be queried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tables {
    /// Views, then tables in the order of the registry.
    pub tables: Vec<TableEntry>,
}

/// A table or a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableEntry {
    /// With its schema, unless that is the default one.
    pub name: String,
    /// Schema that the name is found in.
    pub schema: String,
    /// What it holds.
    pub doc: String,
    /// Whether it is a table or a view; of a table, its state.
    #[serde(flatten)]
    pub kind: TableKind,
}

/// What a name in SQL stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TableKind {
    /// A statement over tables, or constants.
    View,
    Table(TableState),
}

/// What a table is made of; all zero before its first commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableState {
    /// Rows in the current snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Data files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Size of the data files, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The current snapshot; `null` before the first commit.
    pub snapshot_id: Option<i64>,
    /// When it was committed, RFC 3339.
    pub committed: Option<String>,
    /// The metadata file that the catalog points at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_location: Option<String>,
    /// Why the table cannot be read; nothing else is known then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A table or a view with its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableDescription {
    /// As it was asked for.
    pub name: String,
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// Whether it is a table or a view; of a table, its state.
    #[serde(flatten)]
    pub kind: TableKind,
    /// The newest snapshots of a table, the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<Snapshot>>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Column {
    /// Name in SQL.
    pub name: String,
    /// In SQL's words: `timestamp(6) with time zone`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a row may have none.
    pub nullable: bool,
    /// What it holds, with the unit.
    pub doc: Option<String>,
}

/// A snapshot of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Id in the metadata of the table, as `snapshot` of a statement takes it.
    pub snapshot_id: i64,
    /// RFC 3339.
    pub committed: Option<String>,
    /// `append`, `replace`, `overwrite` or `delete`, as Iceberg's specification has them.
    pub operation: Option<String>,
    /// Rows that it added, a number in decimal digits, as the summary of the snapshot has it.
    pub added_rows: Option<String>,
    /// Rows that the table has in it, likewise.
    pub total_rows: Option<String>,
}

/// Why there is no description of a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("`{name}` is not the name of a table")]
    NotAName { name: String },
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Answers {
    /// Every view and every table. A table that cannot be read does not hide the others.
    pub async fn tables(&self) -> Tables {
        let views = VIEWS.iter().map(|view| (view.name, view.doc)).chain(CONSTANTS.iter().copied());
        let mut tables: Vec<TableEntry> = views.map(|(name, doc)| view(name, doc)).collect();
        for table in registry::all() {
            let name = table.def.name;
            // One table that cannot be read does not hide the others: its error takes the place of its state.
            let state = self.state_of(name.namespace, name.name).await;
            tables.push(TableEntry {
                name: name.to_string(),
                schema: name.namespace.to_owned(),
                doc: table.def.doc.to_owned(),
                kind: TableKind::Table(state.unwrap_or_else(|error| TableState::unreadable(&error))),
            });
        }
        Tables { tables }
    }

    /// The columns of a table or a view; of a table its size and its snapshots too.
    ///
    /// # Errors
    /// There is no such table, or the lake cannot be read.
    pub async fn table(&self, name: &str) -> Result<TableDescription, TableError> {
        let parts: Vec<&str> = name.split('.').collect();
        // The name becomes a part of a statement: letters, digits and underscores cannot end an identifier. `LIMIT 0`
        // plans the statement without reading a file, for views as well.
        let sql = match parts[..] {
            [table] if is_name(table) => format!("SELECT * FROM {DEFAULT_SCHEMA}.{table} LIMIT 0"),
            [schema, table] if is_name(schema) && is_name(table) => format!("SELECT * FROM {schema}.{table} LIMIT 0"),
            _ => return Err(TableError::NotAName { name: name.to_owned() }),
        };
        let answer = self.engine.query(Query::housekeeping(&sql)?).await?;
        let columns = answer.schema().fields().iter().map(|field| Column {
            name: field.name().clone(),
            kind: sql_type(field.data_type()).text,
            nullable: field.is_nullable(),
            doc: doc_of(&parts, field.name()).map(str::to_owned),
        });
        let columns = columns.collect();
        let name = name.to_owned();
        match parts[..] {
            // The default schema holds views and constants alone.
            [schema, table] if schema != DEFAULT_SCHEMA => Ok(TableDescription {
                name,
                columns,
                kind: TableKind::Table(self.state_of(schema, table).await?),
                snapshots: Some(self.snapshots_of(schema, table).await?),
            }),
            _ => Ok(TableDescription { name, columns, kind: TableKind::View, snapshots: None }),
        }
    }

    async fn state_of(&self, namespace: &str, name: &str) -> Result<TableState, QueryError> {
        let Some(snapshot) = self.engine.snapshot(namespace, name).await? else {
            return Ok(TableState { rows: Some(0), files: Some(0), bytes: Some(0), ..TableState::default() });
        };
        // Totals in the summary of a snapshot are optional in Iceberg's specification: `operation` is its only required
        // field.
        let (rows, files, bytes) = match totals(snapshot.summary()) {
            Some(totals) => totals,
            // A snapshot of another program without them: its manifests are read and counted.
            None => {
                let files = snapshot.plan(&[]).await.map_err(|error| QueryError::lake(&error))?;
                let rows = files.iter().map(|file| file.record_count).sum();
                let bytes = files.iter().map(|file| file.size_bytes).sum();
                (rows, files.len() as u64, bytes)
            }
        };
        Ok(TableState {
            rows: Some(rows),
            files: Some(files),
            bytes: Some(bytes),
            snapshot_id: snapshot.snapshot_id(),
            committed: snapshot.timestamp_ms().and_then(rfc3339),
            metadata_location: Some(snapshot.metadata_location().to_owned()),
            error: None,
        })
    }

    async fn snapshots_of(&self, schema: &str, table: &str) -> Result<Vec<Snapshot>, QueryError> {
        let Some(snapshot) = self.engine.snapshot(schema, table).await? else { return Ok(Vec::new()) };
        // The history begins with the oldest snapshot.
        let newest = snapshot.history().into_iter().rev().take(SNAPSHOTS_LISTED);
        let snapshots = newest.map(|past| Snapshot {
            snapshot_id: past.snapshot_id,
            committed: rfc3339(past.committed_ms),
            added_rows: past.summary.get("added-records").cloned(),
            total_rows: past.summary.get("total-records").cloned(),
            operation: Some(past.operation),
        });
        Ok(snapshots.collect())
    }
}

impl TableState {
    fn unreadable(error: &QueryError) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

fn view(name: &str, doc: &str) -> TableEntry {
    let [name, schema, doc] = [name, DEFAULT_SCHEMA, doc].map(str::to_owned);
    TableEntry { name, schema, doc, kind: TableKind::View }
}

/// Rows, data files and their bytes, where the summary of a snapshot has all of them.
fn totals(summary: &HashMap<String, String>) -> Option<(u64, u64, u64)> {
    let [rows, files, bytes] = ["total-records", "total-data-files", "total-files-size"]
        .map(|total| summary.get(total).and_then(|text| text.parse::<u64>().ok()));
    Some((rows?, files?, bytes?))
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn doc_of(parts: &[&str], column: &str) -> Option<&'static str> {
    match parts {
        [DEFAULT_SCHEMA, view] | [view] => views::column_doc(view, column),
        [schema, table] => registry::find(schema, table)?.def.column(column).map(|column| column.doc),
        _ => None,
    }
}
