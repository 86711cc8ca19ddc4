//! A table and rows that the unit tests of several modules share.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use tables::def::{Column, ColumnType, Encoding, Partition, TableDef, TableName};

/// 2026-01-01T00:00:00Z in microseconds, and its day.
pub(crate) const NEW_YEAR: i64 = 1_767_225_600_000_000;
pub(crate) const NEW_YEAR_DAY: i32 = 20_454;

/// Field ids are out of order and with holes, as after years of changes.
pub(crate) fn def() -> TableDef {
    let column = |id, name, kind, required, encoding, dictionary| Column {
        id,
        name,
        kind,
        required,
        encoding,
        dictionary,
        doc: "",
    };
    TableDef {
        name: TableName { namespace: "silver", name: "t" },
        doc: "rows of the tests",
        columns: vec![
            column(7, "node", ColumnType::String, true, Encoding::Dictionary, true),
            column(2, "ts", ColumnType::Timestamptz, true, Encoding::Delta, false),
            column(4, "seq", ColumnType::Long, true, Encoding::Delta, false),
            column(9, "share", ColumnType::Double, false, Encoding::Dictionary, false),
            column(11, "id", ColumnType::String, false, Encoding::DeltaBytes, false),
        ],
        partition: Partition::Day("ts"),
        sort: &["node", "ts"],
        tiers: false,
    }
}

/// One row: node, microseconds after [`NEW_YEAR`], sequence number. `share` is null for odd numbers.
pub(crate) fn rows(rows: &[(&str, i64, i64)]) -> RecordBatch {
    let node: DictionaryArray<Int32Type> = rows.iter().map(|r| Some(r.0)).collect();
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| NEW_YEAR + r.1)).with_timezone("+00:00");
    let seq = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
    let share: Float64Array = rows.iter().map(|r| (r.2 % 2 == 0).then_some(r.2 as f64 / 2.0)).collect();
    let id: StringArray = rows.iter().map(|r| Some(format!("{}:{}", r.0, r.2))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(node), Arc::new(ts), Arc::new(seq), Arc::new(share), Arc::new(id)];
    RecordBatch::try_new(def().arrow_schema(), columns).unwrap()
}
