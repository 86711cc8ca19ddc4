//! Every table there is: made, written, committed, read back by us, PyIceberg and DuckDB.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use futures::TryStreamExt;
use lake::{CommitRequest, TableHandle, Token};
use tables::def::{Column, ColumnType, TableDef};

use crate::place::Place;
use crate::rows::{NEW_YEAR, offsets, range, swaps};

on_both!(every_table_holds_what_was_written_for_us_pyiceberg_and_duckdb);

/// Rows per batch; two batches are written.
const ROWS: i64 = 100;
const HOUR_US: i64 = 3_600_000_000;

/// Distinct values of every type, extremes among them; every third is null where a column may be.
fn values(column: &Column, rows: std::ops::Range<i64>) -> ArrayRef {
    let values = rows.map(|i| (column.required || i % 3 != 0).then_some(i));
    let text = |i: i64| format!("{} ✓ {i}", column.name);
    match column.kind {
        ColumnType::Boolean => Arc::new(values.map(|v| v.map(|i| i % 2 == 0)).collect::<BooleanArray>()),
        ColumnType::Int => Arc::new(values.map(|v| v.map(|i| i32::MAX - i as i32)).collect::<Int32Array>()),
        ColumnType::Long => Arc::new(values.map(|v| v.map(|i| i64::MIN + i)).collect::<Int64Array>()),
        ColumnType::Float => Arc::new(values.map(|v| v.map(|i| -0.1 * i as f32)).collect::<Float32Array>()),
        ColumnType::Double => Arc::new(values.map(|v| v.map(|i| 1e300 / i as f64)).collect::<Float64Array>()),
        ColumnType::String => Arc::new(values.map(|v| v.map(text)).collect::<StringArray>()),
        ColumnType::Binary => Arc::new(values.map(|v| v.map(i64::to_be_bytes)).collect::<BinaryArray>()),
        // Several days, before 1970 too.
        ColumnType::Timestamptz => {
            let micros = values.map(|v| v.map(|i| if i % 10 == 0 { -i * HOUR_US } else { NEW_YEAR + i * HOUR_US }));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("+00:00"))
        }
    }
}

fn rows(def: &TableDef, rows: std::ops::Range<i64>) -> RecordBatch {
    let column =
        |c: &Column| cast(&values(c, rows.clone()), def.arrow_schema().field_with_name(c.name).unwrap().data_type());
    let columns = def.columns.iter().map(|c| column(c).unwrap()).collect();
    RecordBatch::try_new(def.arrow_schema(), columns).unwrap()
}

/// The columns as plain types, in the order of a column whose values are distinct.
fn comparable(batches: &[RecordBatch], schema: &SchemaRef, key: &str) -> Vec<ArrayRef> {
    let all = concat_batches(&batches[0].schema(), batches).unwrap();
    let key = cast(all.column_by_name(key).unwrap(), schema.field_with_name(key).unwrap().data_type()).unwrap();
    let order = lexsort_to_indices(&[arrow::compute::SortColumn { values: key, options: None }], None).unwrap();
    let all = take_record_batch(&all, &order).unwrap();
    let column = |field: &Arc<arrow::datatypes::Field>| {
        cast(all.column_by_name(field.name()).unwrap(), field.data_type()).unwrap()
    };
    schema.fields().iter().map(column).collect()
}

fn first(def: &TableDef, kind: ColumnType) -> &'static str {
    def.columns.iter().find(|c| c.kind == kind && c.required).unwrap().name
}

async fn land(table: &TableHandle, batches: &[RecordBatch]) {
    for (i, batch) in batches.iter().enumerate() {
        let files = table.write(std::slice::from_ref(batch)).await.unwrap();
        assert!(files.len() > 3, "rows of several days: {}", table.def().name);
        let landed = range(0, i as i64 * ROWS, (i as i64 + 1) * ROWS);
        assert_eq!(swaps(table.commit(CommitRequest::new(vec![landed], Token::random(), files)).await), 1);
    }
}

async fn every_table_holds_what_was_written_for_us_pyiceberg_and_duckdb(place: Place) {
    let lake = place.lake().await;
    let mut written = BTreeMap::new();
    for def in tables::registry::all().iter().map(|table| &table.def) {
        let table = lake.ensure_table(def).await.unwrap();
        let batches = [rows(def, 1..ROWS + 1), rows(def, ROWS + 1..2 * ROWS + 1)];
        land(&table, &batches).await;
        written.insert(def.name.to_string(), (def, batches));
    }
    assert_eq!(lake.list().await.unwrap().len(), written.len());

    let spec = |def: &TableDef| {
        let (long, string) = (first(def, ColumnType::Long), first(def, ColumnType::String));
        format!("{}:{long}:{string}:{long}", def.name)
    };
    let specs: Vec<_> = written.values().map(|(def, _)| spec(def)).collect();
    let dump = place.dir.path().to_str().unwrap();
    let counted = place.count(&specs, &["--dump", dump]);
    assert_eq!(counted.len(), written.len());

    let again = place.lake().await;
    for (found, (name, (def, batches))) in counted.iter().zip(&written) {
        assert_eq!((found["table"].as_str(), found["duckdb"]["count"].as_i64()), (Some(name.as_str()), Some(2 * ROWS)));
        let table = again.ensure_table(def).await.unwrap();
        assert_eq!(offsets(&table).await, [2 * ROWS]);
        let snapshot = table.reader().snapshot().await.unwrap();
        let (schema, key) = (snapshot.schema(), first(def, ColumnType::Long));
        let expected = comparable(batches, schema, key);
        let read: Vec<_> = snapshot.scan_batches(&[], &[]).await.unwrap().try_collect().await.unwrap();
        assert_eq!(comparable(&read, schema, key), expected, "{name} as we read it");
        let file = FileReader::try_new(File::open(format!("{dump}/{name}.arrow")).unwrap(), None).unwrap();
        let theirs: Vec<_> = file.map(Result::unwrap).collect();
        assert_eq!(comparable(&theirs, schema, key), expected, "{name} as PyIceberg reads it");
    }
}
