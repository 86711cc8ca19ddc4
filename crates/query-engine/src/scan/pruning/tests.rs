use std::collections::HashMap;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::ToDFSchema;
use datafusion::logical_expr::{cast, col, lit};
use datafusion::prelude::SessionContext;
use lake::read::ColumnStats;
use tables::def::FIELD_ID_KEY;

use super::*;

fn schema() -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let columns = [
        (1, "node", DataType::Utf8View),
        (2, "ts", micros),
        (3, "ts_ns", DataType::Int64),
        (4, "source", DataType::Int32),
        (5, "load", DataType::Float64),
    ];
    let fields = columns.into_iter().map(|(id, name, kind)| {
        Field::new(name, kind, true).with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn stats(lower: Value, upper: Value) -> ColumnStats {
    ColumnStats { lower: Some(lower), upper: Some(upper), null_count: Some(0), ..ColumnStats::default() }
}

fn file(name: &str, columns: Vec<(i32, ColumnStats)>) -> Arc<ScanFile> {
    Arc::new(ScanFile {
        location: format!("file:///w/{name}"),
        path: name.into(),
        size_bytes: 1,
        record_count: 10,
        day: None,
        columns,
        split_offsets: Vec::new(),
        sort_order_id: None,
        sequence_number: 1,
        snapshot_id: 1,
    })
}

fn kept(files: &[Arc<ScanFile>], filter: Expr) -> Vec<String> {
    let schema = schema();
    let predicate =
        SessionContext::new().create_physical_expr(filter, &Arc::clone(&schema).to_dfschema().unwrap()).unwrap();
    let kept = prune(files.to_vec(), predicate, &schema).unwrap();
    kept.iter().map(|file| file.path.to_string()).collect()
}

fn two_nodes() -> Vec<Arc<ScanFile>> {
    vec![
        file(
            "a",
            vec![
                (1, stats(Value::String("a0".into()), Value::String("a9".into()))),
                (4, stats(Value::Int(1), Value::Int(3))),
            ],
        ),
        file(
            "b",
            vec![
                (1, stats(Value::String("b0".into()), Value::String("b9".into()))),
                (4, stats(Value::Int(5), Value::Int(9))),
            ],
        ),
    ]
}

#[test]
fn equality_in_lists_and_or_leave_the_files_that_may_match() {
    let files = two_nodes();
    assert_eq!(kept(&files, col("node").eq(lit("a5"))), ["a"]);
    assert_eq!(kept(&files, col("node").in_list(vec![lit("b1"), lit("b2")], false)), ["b"]);
    assert_eq!(kept(&files, col("source").lt(lit(4)).or(col("node").eq(lit("b3")))), ["a", "b"]);
    assert_eq!(kept(&files, col("source").between(lit(4), lit(4))), Vec::<String>::new());
    assert_eq!(kept(&files, col("node").is_null()), Vec::<String>::new());
}

#[test]
fn a_cast_that_changes_the_order_prunes_nothing() {
    let files = two_nodes();
    // As text "10" lies before "9": numeric bounds say nothing about it.
    assert_eq!(kept(&files, cast(col("source"), DataType::Utf8View).gt(lit("2"))), ["a", "b"]);
    assert!(ranges(&[cast(col("source"), DataType::Float32).eq(lit(2.0f32))], &schema()).is_empty());
    assert!(ranges(&[col("source").eq(lit(4i64))], &schema()).is_empty());
}

#[test]
fn a_pattern_leaves_the_files_that_may_match() {
    assert_eq!(kept(&two_nodes(), col("node").like(lit("%5"))), ["a", "b"]);
    assert!(kept(&two_nodes(), col("node").like(lit("a%"))).contains(&"a".to_owned()));
    assert!(kept(&two_nodes(), col("node").not_like(lit("a%"))).contains(&"b".to_owned()));
}

#[test]
fn unknown_bounds_and_floats_keep_the_file() {
    let load = stats(Value::Double(0.0), Value::Double(1.0));
    let files = vec![file("bare", vec![]), file("nan", vec![(5, load)])];
    assert_eq!(kept(&files, col("source").eq(lit(77))), ["bare", "nan"]);
    assert_eq!(kept(&files, col("load").gt(lit(5.0))), ["bare", "nan"]);
}

#[test]
fn comparisons_become_ranges_whichever_side_the_literal_is_on() {
    let range = |filter: Expr| ranges(&[filter], &schema());
    assert_eq!(range(col("source").eq(lit(3))), [ColumnRange::equals("source", Value::Int(3))]);
    assert_eq!(range(lit(3).lt(col("source"))), [ColumnRange::between("source", Some(Value::Int(3)), None)]);
    assert_eq!(range(col("source").not_eq(lit(3))), []);
    assert_eq!(range(col("source").eq(lit(3)).or(col("source").eq(lit(4)))), []);
}

#[test]
fn a_range_of_nanoseconds_prunes_days_too() {
    let found = ranges(&[col("ts_ns").gt_eq(lit(-1i64)).and(col("ts_ns").lt(lit(5_000i64)))], &schema());
    assert!(found.contains(&ColumnRange::between("ts", Some(Value::Timestamptz(-1)), None)), "{found:?}");
    assert!(found.contains(&ColumnRange::between("ts", None, Some(Value::Timestamptz(5)))), "{found:?}");
}
