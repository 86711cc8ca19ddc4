use super::{Event, EventRows, RowError, Rows, Value};
use crate::kind::RecordKind;

#[test]
fn the_event_builder_has_exactly_the_columns_of_the_catalogue() {
    let mut rows = EventRows::new();
    rows.push(&Event { boot_ns: 7, sample_weight: 1.0, comm: Some("python3"), ..Event::default() });
    let batch = rows.finish().unwrap();
    assert_eq!(batch.schema(), RecordKind::Event.wire_schema());
    assert_eq!(batch.num_rows(), 1);
    assert!(rows.is_empty());
}

#[test]
fn a_row_with_an_unknown_field_is_refused_by_name() {
    let mut rows = Rows::new(RecordKind::Stack);
    let refused = rows.push([("nope", Value::Long(1))]);
    assert_eq!(refused, Err(RowError::UnknownField { kind: RecordKind::Stack, field: "nope".into() }));
    assert!(rows.is_empty());
}

#[test]
fn a_row_without_a_required_field_is_refused_by_name() {
    let mut rows = Rows::new(RecordKind::Process);
    let refused = rows.push([("boot_ns", Value::Long(1)), ("name", Value::Text("sh".into()))]);
    assert_eq!(refused, Err(RowError::Missing { kind: RecordKind::Process, field: "pid".into() }));
}

#[test]
fn a_value_that_does_not_fit_its_field_is_refused() {
    let mut rows = Rows::new(RecordKind::Process);
    let row = [("boot_ns", Value::Long(1)), ("pid", Value::Long(1 << 40)), ("name", Value::Text("sh".into()))];
    assert!(matches!(rows.push(row), Err(RowError::WrongValue { field, .. }) if field == "pid"));
}

#[test]
fn every_kind_builds_a_batch_of_its_wire_schema() {
    for kind in RecordKind::ALL {
        let batch = Rows::new(kind).finish().unwrap();
        assert_eq!(batch.schema(), kind.wire_schema(), "{}", kind.name());
    }
}
