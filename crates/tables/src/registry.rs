//! The list of tables, and how a batch of arrivals becomes the rows of each.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use event_schema::kind::RecordKind;

use crate::arrival::Arrival;
use crate::def::TableDef;
use crate::{bronze, gold, ops, silver};

/// Turns arrivals into rows. `ingested_us` is the time of landing, unix microseconds; the same for the whole batch.
///
/// Rows of one arrival come out in its order; a batch with no rows is left out.
pub type MakeRows = fn(&[Arrival], ingested_us: i64) -> Result<Vec<RecordBatch>, ArrowError>;

/// A table and the way its rows are made.
#[derive(Debug, Clone)]
pub struct Table {
    pub def: TableDef,
    pub make_rows: MakeRows,
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    vec![
        Table { def: bronze::messages::def(), make_rows: bronze::messages::rows },
        Table { def: silver::def(RecordKind::Event), make_rows: |a, _| silver::rows(RecordKind::Event, a) },
        Table { def: silver::def(RecordKind::Stack), make_rows: |a, _| silver::rows(RecordKind::Stack, a) },
        Table { def: silver::def(RecordKind::Process), make_rows: |a, _| silver::rows(RecordKind::Process, a) },
        Table { def: silver::def(RecordKind::Session), make_rows: |a, _| silver::rows(RecordKind::Session, a) },
        Table { def: silver::def(RecordKind::System), make_rows: |a, _| silver::rows(RecordKind::System, a) },
        Table { def: silver::def(RecordKind::Cgroup), make_rows: |a, _| silver::rows(RecordKind::Cgroup, a) },
        Table { def: silver::def(RecordKind::Aggregate), make_rows: |a, _| silver::rows(RecordKind::Aggregate, a) },
        Table { def: silver::def(RecordKind::Chain), make_rows: |a, _| silver::rows(RecordKind::Chain, a) },
        Table { def: gold::op_minute::def(), make_rows: gold::op_minute::rows },
        Table { def: ops::ledger::def(), make_rows: ops::ledger::rows },
        Table { def: ops::dlq::def(), make_rows: ops::dlq::rows },
    ]
});

/// Every table messages land in.
pub fn all() -> &'static [Table] {
    &TABLES
}

/// Looks a table up by `namespace` and `name`.
pub fn find(namespace: &str, name: &str) -> Option<&'static Table> {
    all().iter().find(|t| t.def.name.namespace == namespace && t.def.name.name == name)
}

#[cfg(test)]
mod tests;
