use datafusion::arrow::datatypes::DataType;

use super::*;

fn column(name: &str, id: i32) -> Field {
    Field::new(name, DataType::Int64, true).with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
}

fn adapted(logical: Vec<Field>, physical: Vec<Field>, name: &str) -> String {
    let (logical, physical) = (Arc::new(Schema::new(logical)), Arc::new(Schema::new(physical)));
    let adapter = FieldIds.create(Arc::clone(&logical), physical).unwrap();
    let expr = adapter.rewrite(Arc::new(Column::new_with_schema(name, &logical).unwrap())).unwrap();
    expr.to_string()
}

#[test]
fn a_renamed_column_is_read_under_its_old_name() {
    let physical = vec![column("other", 9), column("dur", 2)];
    let text = adapted(vec![column("id", 1), column("duration_ns", 2)], physical, "duration_ns");
    assert!(text.contains("dur@1"), "{text}");
}

#[test]
fn a_new_column_never_reads_a_dropped_one_of_the_same_name() {
    let text = adapted(vec![column("bytes", 7)], vec![column("bytes", 2)], "bytes");
    assert_eq!(text, "NULL");
}

#[test]
fn a_file_without_ids_is_read_by_name() {
    let physical = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)];
    let text = adapted(vec![column("b", 1)], physical, "b");
    assert!(text.contains("b@1"), "{text}");
}
