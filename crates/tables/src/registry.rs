//! The list of tables, and how a batch of arrivals becomes the rows of each.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use event_schema::kind::RecordKind;
use event_schema::position::OffsetRange;

use crate::arrival::Arrival;
use crate::def::TableDef;
use crate::{bronze, gold, ops, silver};

/// Turns arrivals into rows. `ingested_us` is the time of landing, unix microseconds; the same for the whole batch.
///
/// Rows of one arrival come out in its order; a batch with no rows is left out.
pub type MakeRows = fn(&[Arrival], ingested_us: i64) -> Result<Vec<RecordBatch>, ArrowError>;

/// Turns offsets at which the log holds no message into rows.
pub type MakeSkipRows = fn(&[OffsetRange], ingested_us: i64) -> Result<RecordBatch, ArrowError>;

/// A table and the way its rows are made.
#[derive(Debug, Clone)]
pub struct Table {
    pub def: TableDef,
    pub make_rows: MakeRows,
    /// Absent where such offsets leave no row.
    pub make_skip_rows: Option<MakeSkipRows>,
}

impl Table {
    fn new(def: TableDef, make_rows: MakeRows) -> Self {
        Self { def, make_rows, make_skip_rows: None }
    }
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let ledger = Table::new(ops::ledger::def(), ops::ledger::rows);
    vec![
        Table::new(bronze::messages::def(), bronze::messages::rows),
        Table::new(silver::def(RecordKind::Event), |a, _| silver::rows(RecordKind::Event, a)),
        Table::new(silver::def(RecordKind::Stack), |a, _| silver::rows(RecordKind::Stack, a)),
        Table::new(silver::def(RecordKind::Process), |a, _| silver::rows(RecordKind::Process, a)),
        Table::new(silver::def(RecordKind::Session), |a, _| silver::rows(RecordKind::Session, a)),
        Table::new(silver::def(RecordKind::System), |a, _| silver::rows(RecordKind::System, a)),
        Table::new(silver::def(RecordKind::Cgroup), |a, _| silver::rows(RecordKind::Cgroup, a)),
        Table::new(silver::def(RecordKind::Aggregate), |a, _| silver::rows(RecordKind::Aggregate, a)),
        Table::new(silver::def(RecordKind::Chain), |a, _| silver::rows(RecordKind::Chain, a)),
        Table::new(gold::op_minute::def(), gold::op_minute::rows),
        Table { make_skip_rows: Some(ops::ledger::skip_rows), ..ledger },
        Table::new(ops::dlq::def(), ops::dlq::rows),
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
