use super::*;
use iceberg::spec::TableMetadataBuilder;

fn ident() -> TableIdent {
    TableIdent::new("silver", "t")
}

fn table() -> TableMetadata {
    new_table(&crate::tests::def(), "file:///w/silver/t", Uuid::from_u128(5), 1_000).unwrap()
}

#[test]
fn a_new_table_keeps_the_definitions_field_ids() {
    let table = table();
    let ids: Vec<_> = table.current_schema().as_struct().fields().iter().map(|f| (f.id, f.name.clone())).collect();
    let expected = [(7, "node"), (2, "ts"), (4, "seq"), (9, "share"), (11, "id")];
    assert_eq!(ids, expected.map(|(id, name)| (id, name.to_owned())));
    assert_eq!(table.last_column_id(), 11);
    assert_eq!(table.uuid(), Uuid::from_u128(5));
    let field = &table.default_partition_spec().fields()[0];
    assert_eq!((field.name.as_str(), field.transform, field.source_id), ("ts_day", Transform::Day, 2));
    assert_eq!(sort_order_id(&crate::tests::def(), &table), Some(1));
    let sort: Vec<_> = table.default_sort_order().fields.iter().map(|f| f.source_id).collect();
    assert_eq!(sort, [7, 2]);
}

#[test]
fn a_table_without_partition_and_order_is_made_so() {
    let def = TableDef { partition: Partition::Unpartitioned, sort: &[], ..crate::tests::def() };
    let table = new_table(&def, "s3://b/t", Uuid::nil(), 0).unwrap();
    assert!(table.default_partition_spec().is_unpartitioned());
    assert!(table.default_sort_order().is_unsorted());
    assert_eq!(sort_order_id(&def, &table), None);
    assert_eq!(verify(&def, &ident(), &table), Ok(()));
}

#[test]
fn our_own_table_fits_its_definition_and_its_arrow_schema() {
    let def = crate::tests::def();
    assert_eq!(verify(&def, &ident(), &table()), Ok(()));
    let read = arrow_schema(table().current_schema()).unwrap();
    for (read, made) in read.fields().iter().zip(def.arrow_schema().fields()) {
        assert_eq!(
            (read.name(), read.is_nullable(), field_id(read)),
            (made.name(), made.is_nullable(), field_id(made))
        );
    }
}

/// A table as another program would make it: same names, other ids, types and nullability.
#[test]
fn a_foreign_table_is_refused_with_every_difference() {
    let schema = Schema::builder()
        .with_fields([
            NestedField::optional(7, "node", Type::Primitive(PrimitiveType::String)).into(),
            NestedField::required(2, "ts", Type::Primitive(PrimitiveType::Timestamp)).into(),
            NestedField::required(5, "seq", Type::Primitive(PrimitiveType::Long)).into(),
            NestedField::required(9, "share", Type::Primitive(PrimitiveType::Double)).into(),
            NestedField::required(30, "tenant", Type::Primitive(PrimitiveType::String)).into(),
            NestedField::optional(31, "note", Type::Primitive(PrimitiveType::String)).into(),
        ])
        .build()
        .unwrap();
    let builder = TableMetadataBuilder::new_from_metadata(table(), None).add_current_schema(schema).unwrap();
    let error = verify(&crate::tests::def(), &ident(), &builder.build().unwrap().metadata).unwrap_err();
    let columns: Vec<_> = error.differences.iter().map(|d| d.column.as_str()).collect();
    assert_eq!(columns, ["ts", "seq", "share", "id", "tenant"], "optional node is laxer, note is harmless: {error}");
    let text = error.to_string();
    assert!(text.contains("ts: expected required timestamptz with id 2, found required timestamp with id 2"), "{text}");
    assert!(text.contains("id: expected optional string with id 11, found nothing (add the column"), "{text}");
}

#[test]
fn another_partition_spec_is_a_difference() {
    let def = TableDef { partition: Partition::Unpartitioned, ..crate::tests::def() };
    let error = verify(&def, &ident(), &table()).unwrap_err();
    assert!(error.to_string().contains("partition: expected unpartitioned, found day(field 2)"), "{error}");
}

#[test]
fn names_a_definition_does_not_define_are_found() {
    assert!(undefined_names(&crate::tests::def()).is_empty());
    let def = TableDef { sort: &["node", "nod"], partition: Partition::Day("time"), ..crate::tests::def() };
    assert_eq!(undefined_names(&def), ["nod", "time"]);
}
