//! The documents of the HTTP surface that are not answers of the crate `answers`: requests and answers of
//! `/api/v1/sql`, and problems. Servers write them and clients read them by these types.

use std::collections::BTreeSet;
use std::fmt;

use answers::completeness::Completeness;
use query_engine::{Position, UsedSnapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The header that carries [`Completeness`] beside an answer which is no JSON document.
pub const COMPLETENESS_HEADER: &str = "x-causeway-completeness";
/// The header in which a client gives its request a name.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The `type` of the problem that a request itself is malformed.
pub const BAD_REQUEST: &str = "urn:causeway:problem:bad-request";

/// A problem document (RFC 9457): why there is no answer. `type` is stable; scripts may match on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:causeway:problem:…`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What `type` stands for, in words.
    pub title: String,
    /// The status of the response.
    #[serde(default)]
    pub status: u16,
    /// What was wrong.
    #[serde(default)]
    pub detail: String,
    /// What to do about it, where `detail` does not say what would be right.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Where in the statement the fault lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Place>,
    /// Names that exist and are near the one that does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub close_names: Vec<String>,
    /// The damaged file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A place in a statement, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Line of the statement.
    pub line: u64,
    /// Character of the line.
    pub column: u64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self { line: position.line, column: position.column }
    }
}

impl Problem {
    /// The request itself was wrong, not the statement in it.
    pub fn is_of_request(&self) -> bool {
        self.kind == BAD_REQUEST
    }
}

/// In one line, for people: what was wrong, where, and what to do.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy or another server may send a problem with no more than a title.
        let what = if self.detail.is_empty() { &self.title } else { &self.detail };
        f.write_str(what)?;
        if let Some(Place { line, column }) = self.position {
            write!(f, " (line {line}, column {column})")?;
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// A statement and how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
// Unknown fields are refused: a misspelt option that is ignored would give the answer to another question.
pub struct SqlRequest {
    /// One statement.
    pub sql: String,
    /// Most rows wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Read every table as of this time: RFC 3339, or a duration back from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Read the table that has this snapshot at it, and the others as they were then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
    /// Only rows from then on: RFC 3339, or a duration back from now. Applies to every table of the statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only rows of these nodes; of all when empty. Applies to every table of the statement.
    #[serde(default)]
    pub nodes: BTreeSet<String>,
    /// Longest time of the statement, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The rows of a statement. `Rows` is how its reader takes the rows: each is an array with a cell per column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlAnswer<Rows> {
    /// In the order of the cells of a row.
    pub columns: Vec<SqlColumn>,
    /// As many as the limit let through.
    pub rows: Rows,
    /// How many these are.
    pub row_count: usize,
    /// There were more rows than the limit let through.
    pub truncated: bool,
    /// `null` where the ledger cannot be read within the time of the statement.
    pub completeness: Option<Completeness>,
    /// What was read.
    pub snapshots: Vec<SqlSnapshot>,
    /// From the arrival of the request to its last row, milliseconds.
    pub elapsed_ms: u64,
}

/// A cell of a row: a number, a text, a truth value, a list, an object or `null`, as the type of its column says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Value)]
pub struct Cell(pub serde_json::Value);

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlColumn {
    /// As the statement names it; several columns may have one name.
    pub name: String,
    /// In SQL's words: `timestamp(6) with time zone`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A snapshot that an answer was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlSnapshot {
    /// `namespace.name`
    pub table: String,
    /// `null` when the table has no rows yet.
    pub snapshot_id: Option<i64>,
    /// When it was committed, unix milliseconds.
    pub committed_ms: Option<i64>,
}

impl From<&UsedSnapshot> for SqlSnapshot {
    fn from(used: &UsedSnapshot) -> Self {
        Self { table: used.table.clone(), snapshot_id: used.snapshot_id, committed_ms: used.committed_ms }
    }
}

/// An answer that was streamed and that the limit of its request cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutAnswer {
    /// Rows that were sent.
    pub row_count: usize,
    /// Always true.
    pub truncated: bool,
}
