//! `gold.chains`: causal chains as their tracers reported them. Rows are made of messages by [`rows`] and read back
//! from the answer of a query by [`back`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use event_schema::kind::RecordKind;
use serde_json::Value;

use crate::arrival::Arrival;
use crate::def::TableDef;
use crate::silver;

/// The columns that [`back`] reads; select these.
pub const COLUMNS: [&str; 13] = [
    "chain_id",
    "node",
    "severity",
    "summary",
    "detected_ns",
    "root_cause",
    "explanation",
    "recommendations",
    "op",
    "p99_us",
    "p50_us",
    "tail_ratio",
    "timeline",
];

/// What [`COLUMNS`] hold of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredChain {
    /// Id that the tracer gave the chain.
    pub chain_id: String,
    /// Name of the node whose tracer reported it.
    pub node: String,
    /// `HIGH`, `MEDIUM` or `LOW`, as reported; `None` where it is null.
    pub severity: Option<String>,
    /// One line.
    pub summary: Option<String>,
    /// When it was detected, unix nanoseconds.
    pub detected_ns: i64,
    /// What caused it, in the tracer's words.
    pub root_cause: Option<String>,
    /// A paragraph, in the tracer's words.
    pub explanation: Option<String>,
    /// What to do, the most useful first; empty where the column is null or no JSON array of strings.
    pub recommendations: Vec<String>,
    /// Operation that was slow.
    pub op: Option<String>,
    /// 99th percentile of the operation, microseconds.
    pub p99_us: Option<i64>,
    /// Median of the operation, microseconds.
    pub p50_us: Option<i64>,
    /// p99 / p50.
    pub tail_ratio: Option<f64>,
    /// From cause to symptom; empty where the column is null or no JSON array of steps.
    pub timeline: Vec<StoredStep>,
}

/// A step of a stored chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredStep {
    /// `HOST`, `CUDA`, `SYSTEM`, … as the tracer names layers; empty where it gives none.
    pub layer: String,
    /// Operation or metric within the layer; empty where it gives none.
    pub op: String,
    /// Counts, times and shares in words; empty where it gives none.
    pub detail: String,
    /// How long it took, microseconds.
    pub dur_us: Option<i64>,
}

/// The table; its columns are the fields of a record of kind `chain`.
pub fn def() -> TableDef {
    silver::def(RecordKind::Chain)
}

/// The rows that arrivals leave in the table: one for each record of kind `chain`.
///
/// # Errors
/// As [`silver::rows`].
pub fn rows(arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
    silver::rows(RecordKind::Chain, arrivals)
}

/// The chains of a batch with [`COLUMNS`], whatever its encoding of text. A row without an id, a node or a time is left
/// out.
pub fn back(batch: &RecordBatch) -> Vec<StoredChain> {
    let [id, node, severity, summary, detected, cause, explanation, fixes, op, p99, p50, ratio, timeline] =
        // Converted once per batch: a query may give text as views, dictionaries or large strings.
        COLUMNS.map(|name| plain(batch, name));
    let mut chains = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        // Without these three a chain cannot be shown or identified; any other field may be absent.
        let Some(chain_id) = text(&id, row) else { continue };
        let Some(node) = text(&node, row) else { continue };
        let Some(detected_ns) = long(&detected, row) else { continue };
        chains.push(StoredChain {
            chain_id,
            node,
            severity: text(&severity, row),
            summary: text(&summary, row),
            detected_ns,
            root_cause: text(&cause, row),
            explanation: text(&explanation, row),
            // Free text of another tracer: what does not parse is left out, and the chain is shown all the same.
            recommendations: text(&fixes, row).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
            op: text(&op, row),
            p99_us: long(&p99, row),
            p50_us: long(&p50, row),
            tail_ratio: double(&ratio, row),
            timeline: text(&timeline, row).and_then(|json| steps(&json)).unwrap_or_default(),
        });
    }
    chains
}

/// A column, its text as plain strings whether it was a view, a dictionary or large; `None` where it is absent.
fn plain(batch: &RecordBatch, name: &str) -> Option<ArrayRef> {
    let column = batch.column_by_name(name)?;
    if column.data_type().is_primitive() { Some(Arc::clone(column)) } else { cast(column, &DataType::Utf8).ok() }
}

/// A cell; `None` for null, for a column that is absent, and for one of another type.
fn text(column: &Option<ArrayRef>, row: usize) -> Option<String> {
    let column = column.as_ref()?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn long(column: &Option<ArrayRef>, row: usize) -> Option<i64> {
    let column = column.as_ref()?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn double(column: &Option<ArrayRef>, row: usize) -> Option<f64> {
    let column = column.as_ref()?.as_primitive_opt::<Float64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// The steps of a JSON array; `None` where one of them is none.
fn steps(json: &str) -> Option<Vec<StoredStep>> {
    let Ok(Value::Array(steps)) = serde_json::from_str(json) else { return None };
    steps.iter().map(step).collect()
}

/// A step of a JSON object, whatever else the tracer writes into it; `None` where a value has another type.
fn step(step: &Value) -> Option<StoredStep> {
    let step = step.as_object()?;
    Some(StoredStep {
        layer: step.get("layer").map_or(Some(""), Value::as_str)?.to_owned(),
        op: step.get("op").map_or(Some(""), Value::as_str)?.to_owned(),
        detail: step.get("detail").map_or(Some(""), Value::as_str)?.to_owned(),
        dur_us: match step.get("dur_us") {
            None | Some(Value::Null) => None,
            // A fraction, or a number beyond 64 bits, makes the step invalid rather than wrong.
            Some(number) => Some(number.as_i64()?),
        },
    })
}

#[cfg(test)]
mod tests;
