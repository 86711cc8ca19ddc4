use super::*;
use crate::read::ColumnStats;
use iceberg::spec::{ManifestContentType, ManifestFile};

const TS: i32 = 2;
const SEQ: i32 = 4;
const NODE: i32 = 7;

fn file(day: Option<i32>, stats: &[(i32, Value, Value)]) -> ScanFile {
    let column = |(id, lower, upper): &(i32, Value, Value)| {
        let stats = ColumnStats { lower: Some(lower.clone()), upper: Some(upper.clone()), ..ColumnStats::default() };
        (*id, stats)
    };
    let mut columns: Vec<_> = stats.iter().map(column).collect();
    columns.sort_by_key(|(id, _)| *id);
    ScanFile {
        location: String::new(),
        path: object_store::path::Path::default(),
        size_bytes: 1,
        record_count: 10,
        day,
        columns,
        split_offsets: vec![],
        sort_order_id: None,
        sequence_number: 1,
        snapshot_id: 1,
    }
}

fn range(id: i32, min: Option<Value>, max: Option<Value>) -> BoundRange {
    BoundRange { id, min, max }
}

fn may(file: &ScanFile, ranges: &[BoundRange]) -> bool {
    file_may_match(file, Some(TS), ranges)
}

#[test]
fn a_file_is_kept_exactly_when_its_bounds_touch_the_range() {
    let file = file(None, &[(SEQ, Value::Long(10), Value::Long(20))]);
    for (min, max, kept) in [(0, 9, false), (0, 10, true), (15, 16, true), (20, 30, true), (21, 30, false)] {
        let range = range(SEQ, Some(Value::Long(min)), Some(Value::Long(max)));
        assert_eq!(may(&file, &[range]), kept, "{min}..{max}");
    }
    assert!(!may(&file, &[range(SEQ, Some(Value::Int(21)), None)]), "integers of either width compare");
    assert!(may(&file, &[range(SEQ, Some(Value::String("21".into())), None)]), "other types prune nothing");
    assert!(may(&file, &[range(99, Some(Value::Long(1)), None)]), "unknown columns prune nothing");
}

#[test]
fn strings_and_floats_are_compared_as_such_and_nan_prunes_nothing() {
    let file = file(
        None,
        &[
            (NODE, Value::String("gpu-1".into()), Value::String("gpu-3".into())),
            (9, Value::Double(0.5), Value::Double(2.5)),
        ],
    );
    assert!(may(&file, &[range(NODE, Some(Value::String("gpu-2".into())), None)]));
    assert!(!may(&file, &[range(NODE, Some(Value::String("gpu-4".into())), None)]));
    assert!(!may(&file, &[range(9, None, Some(Value::Float(0.25)))]));
    assert!(may(&file, &[range(9, Some(Value::Double(f64::NAN)), None)]));
}

#[test]
fn every_condition_must_hold() {
    let file = file(
        None,
        &[(SEQ, Value::Long(10), Value::Long(20)), (NODE, Value::String("a".into()), Value::String("b".into()))],
    );
    let seq = range(SEQ, Some(Value::Long(12)), None);
    assert!(may(&file, &[seq.clone(), range(NODE, None, Some(Value::String("a".into())))]));
    assert!(!may(&file, &[seq, range(NODE, Some(Value::String("c".into())), None)]));
}

#[test]
fn the_day_prunes_without_bounds_and_borders_belong_to_their_day() {
    let day = |micros: i64| Value::Timestamptz(micros);
    let file = file(Some(3), &[]);
    assert!(may(&file, &[range(TS, Some(day(3 * DAY_MICROS)), Some(day(3 * DAY_MICROS)))]));
    assert!(may(&file, &[range(TS, Some(day(4 * DAY_MICROS - 1)), None)]));
    assert!(!may(&file, &[range(TS, Some(day(4 * DAY_MICROS)), None)]));
    assert!(!may(&file, &[range(TS, None, Some(day(3 * DAY_MICROS - 1)))]));
    assert!(may(&file, &[range(SEQ, Some(day(9 * DAY_MICROS)), None)]), "another column's time is not the day's");
}

#[test]
fn a_column_of_nulls_fulfils_no_condition() {
    let mut file = file(None, &[]);
    let nulls = ColumnStats { null_count: Some(10), value_count: Some(10), ..ColumnStats::default() };
    file.columns = vec![(SEQ, nulls)];
    assert!(!may(&file, &[range(SEQ, None, Some(Value::Long(5)))]));
    assert!(may(&file, &[range(SEQ, None, None)]), "no condition at all");
}

#[test]
fn a_manifest_is_left_out_by_its_days() {
    let def = crate::tests::def();
    let table = crate::table::schema::new_table(&def, "file:///w/t", uuid::Uuid::nil(), 0).unwrap();
    let spec = table.default_partition_spec();
    let bound = |day: i32| Some(Datum::date(day).to_bytes().unwrap());
    let summary = |lower: i32, upper: i32| FieldSummary {
        contains_null: false,
        contains_nan: None,
        lower_bound: bound(lower),
        upper_bound: bound(upper),
    };
    let manifest = |partitions| ManifestFile {
        manifest_path: String::new(),
        manifest_length: 1,
        partition_spec_id: 0,
        content: ManifestContentType::Data,
        sequence_number: 1,
        min_sequence_number: 1,
        added_snapshot_id: 1,
        added_files_count: Some(1),
        existing_files_count: Some(0),
        deleted_files_count: Some(0),
        added_rows_count: Some(1),
        existing_rows_count: Some(0),
        deleted_rows_count: Some(0),
        partitions,
        key_metadata: None,
        first_row_id: None,
    };
    let days = manifest(Some(vec![summary(5, 7)]));
    let at = |day: i64| {
        vec![range(TS, Some(Value::Timestamptz(day * DAY_MICROS)), Some(Value::Timestamptz(day * DAY_MICROS)))]
    };
    for (day, kept) in [(4, false), (5, true), (6, true), (7, true), (8, false)] {
        assert_eq!(manifest_may_match(&days, spec, &at(day)), kept, "{day}");
    }
    assert!(manifest_may_match(&manifest(None), spec, &at(4)), "no summary, no pruning");
    assert!(manifest_may_match(&days, spec, &[range(SEQ, Some(Value::Long(1)), None)]));
}
