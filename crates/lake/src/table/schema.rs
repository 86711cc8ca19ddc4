//! A [`TableDef`] as Iceberg metadata, and the check that a table found in the catalog fits it. The metadata of a new
//! table is composed as the specification's JSON, because `iceberg`'s builder numbers the fields anew and ours have
//! fixed ids.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{
    NestedField, NullOrder, PartitionField, PrimitiveType, Schema, SortDirection, SortField, TableMetadata, Transform,
    Type, UnboundPartitionField, UnboundPartitionSpec,
};
use serde_json::json;
use tables::def::{Column, ColumnType, FIELD_ID_KEY, Partition, TableDef};
use uuid::Uuid;

use super::TableIdent;
use super::positions::OFFSET_COUNT;

/// Iceberg's first partition field id.
const PARTITION_FIELD_ID: i32 = 1000;
/// The sort order of tables that have one; 0 means unsorted.
const SORT_ORDER_ID: i64 = 1;
/// How many of the newest snapshots stay in the metadata whatever their age (`commit/retention/grid.rs`).
pub(crate) const SNAPSHOTS_TO_KEEP: &str = "history.expire.min-snapshots-to-keep";

/// How metadata files are compressed: `gzip` or `none`.
pub(crate) const METADATA_CODEC: &str = "write.metadata.compression-codec";

/// Metadata files that leave the log of previous versions are deleted: with a commit every second they would fill any
/// disk.
pub(crate) const DELETE_OLD_METADATA: &str = "write.metadata.delete-after-commit.enabled";

/// A table in the catalog differs from its definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SchemaMismatch {
    /// The table in the catalog.
    pub table: TableIdent,
    /// At least one.
    pub differences: Vec<ColumnMismatch>,
}

/// One difference and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMismatch {
    /// The column, `partition` for the partition spec, or `schema` for all columns together.
    pub column: String,
    /// What the definition asks for, in words.
    pub expected: String,
    /// What the table has instead, in words.
    pub found: String,
    /// What an operator can do about it.
    pub remedy: &'static str,
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} was made with another schema", self.table)?;
        for (i, d) in self.differences.iter().enumerate() {
            let separator = if i == 0 { ":" } else { ";" };
            write!(f, "{separator} {}: expected {}, found {} ({})", d.column, d.expected, d.found, d.remedy)?;
        }
        Ok(())
    }
}

fn iceberg_type(kind: ColumnType) -> PrimitiveType {
    match kind {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int => PrimitiveType::Int,
        ColumnType::Long => PrimitiveType::Long,
        ColumnType::Float => PrimitiveType::Float,
        ColumnType::Double => PrimitiveType::Double,
        ColumnType::String => PrimitiveType::String,
        ColumnType::Binary => PrimitiveType::Binary,
        ColumnType::Timestamptz => PrimitiveType::Timestamptz,
    }
}

fn iceberg_schema(def: &TableDef) -> Result<Schema, iceberg::Error> {
    let fields = def.columns.iter().map(|column| Arc::new(iceberg_field(column)));
    Schema::builder().with_schema_id(0).with_fields(fields).build()
}

fn iceberg_field(column: &Column) -> NestedField {
    let kind = Type::Primitive(iceberg_type(column.kind));
    let field = NestedField::new(column.id, column.name, kind, column.required);
    if column.doc.is_empty() { field } else { field.with_doc(column.doc) }
}

fn partition_fields(def: &TableDef) -> Vec<PartitionField> {
    let Partition::Day(name) = def.partition else { return Vec::new() };
    let Some(source) = def.column(name) else { return Vec::new() };
    vec![PartitionField {
        source_id: source.id,
        field_id: PARTITION_FIELD_ID,
        name: format!("{name}_day"),
        transform: Transform::Day,
    }]
}

fn sort_fields(def: &TableDef) -> Vec<SortField> {
    // No name lacks a column: `Lake::ensure_table` refuses such a definition (`undefined_names`).
    let columns = def.sort.iter().filter_map(|name| def.column(name));
    columns.map(ascending).collect()
}

/// Sorts by the values of a column, ascending, nulls first.
fn ascending(column: &Column) -> SortField {
    SortField {
        source_id: column.id,
        transform: Transform::Identity,
        direction: SortDirection::Ascending,
        null_order: NullOrder::First,
    }
}

/// The names a definition uses but does not define.
pub(crate) fn undefined_names(def: &TableDef) -> Vec<&'static str> {
    let day = match def.partition {
        Partition::Day(column) => Some(column),
        Partition::Unpartitioned => None,
    };
    def.sort.iter().copied().chain(day).filter(|name| def.column(name).is_none()).collect()
}

/// The metadata of a new, empty table.
pub(crate) fn new_table(
    def: &TableDef,
    location: &str,
    uuid: Uuid,
    unix_ms: i64,
) -> Result<TableMetadata, NewTableError> {
    let sort_fields = sort_fields(def);
    // Order 0 is reserved for tables that are not sorted (Iceberg spec, "Sorting").
    let sort_order_id = if sort_fields.is_empty() { 0 } else { SORT_ORDER_ID };
    let partition_fields = partition_fields(def);
    // `last-partition-id` is the highest one assigned: 999 if there is none, because ids begin at 1000. The count of
    // offsets is 0 from the first version on, since a table with rows but no count has lost offsets.
    let metadata = json!({
        "format-version": 2,
        "table-uuid": uuid,
        "location": location,
        "last-sequence-number": 0,
        "last-updated-ms": unix_ms,
        "last-column-id": def.columns.iter().map(|c| c.id).max().unwrap_or(0),
        "current-schema-id": 0,
        "schemas": [serde_json::to_value(iceberg_schema(def)?)?],
        "default-spec-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": serde_json::to_value(&partition_fields)?}],
        "last-partition-id": PARTITION_FIELD_ID - i32::from(partition_fields.is_empty()),
        "default-sort-order-id": sort_order_id,
        "sort-orders": [{"order-id": sort_order_id, "fields": serde_json::to_value(&sort_fields)?}],
        "properties": {
            "comment": def.doc,
            "write.format.default": "parquet",
            "write.parquet.compression-codec": "zstd",
            "write.metadata.previous-versions-max": "100",
            METADATA_CODEC: "gzip",
            DELETE_OLD_METADATA: "true",
            SNAPSHOTS_TO_KEEP: "100",
            OFFSET_COUNT: "0",
        },
        "snapshots": [],
        "snapshot-log": [],
        "metadata-log": [],
        "refs": {},
    });
    Ok(serde_json::from_value(metadata)?)
}

/// Why a definition cannot become a table.
#[derive(Debug, thiserror::Error)]
pub enum NewTableError {
    #[error("the columns do not form an Iceberg schema")]
    Schema(#[from] iceberg::Error),
    #[error("the metadata is not valid")]
    Metadata(#[from] serde_json::Error),
}

/// Checks that files made by `def` fit the table. Further optional columns are no difference: a newer version may have
/// added them.
pub(crate) fn verify(def: &TableDef, ident: &TableIdent, metadata: &TableMetadata) -> Result<(), SchemaMismatch> {
    let schema = metadata.current_schema();
    let mut differences: Vec<_> = def.columns.iter().filter_map(|column| compare(column, schema)).collect();
    let required = schema.as_struct().fields().iter().filter(|field| field.required);
    // Rows written here have no value for a required column that the definition lacks.
    let foreign = required.filter(|f| !def.columns.iter().any(|c| c.id == f.id || c.name == f.name));
    differences.extend(foreign.map(|field| ColumnMismatch {
        column: field.name.clone(),
        expected: "no such column".to_owned(),
        found: describe(field),
        remedy: "make it optional or drop it, rows written here have no value for it",
    }));
    differences.extend(compare_partition(def, metadata));
    if differences.is_empty() { Ok(()) } else { Err(SchemaMismatch { table: ident.clone(), differences }) }
}

/// What brings a table to a definition; `None` where it is there already.
#[derive(Debug)]
pub(crate) struct Evolution {
    pub(crate) schema: Option<Schema>,
    pub(crate) spec: Option<UnboundPartitionSpec>,
}

/// How a table becomes what a definition says, without changing what its rows mean.
///
/// # Errors
/// What cannot be brought there: another meaning of a column, or a required column that old rows have no value for.
pub(crate) fn evolve(
    def: &TableDef,
    ident: &TableIdent,
    metadata: &TableMetadata,
) -> Result<Evolution, SchemaMismatch> {
    let current = metadata.current_schema();
    let mut fields: Vec<Arc<NestedField>> = current.as_struct().fields().to_vec();
    let mut differences = Vec::new();
    for column in &def.columns {
        if let Err(difference) = evolve_column(column, current, &mut fields) {
            differences.push(difference);
        }
    }
    // Built even if columns differ, so that all problems are reported at once.
    let schema = Schema::builder().with_fields(fields.clone()).build();
    let schema = schema.map_err(|error| ColumnMismatch {
        column: "schema".to_owned(),
        expected: "columns that form an Iceberg schema".to_owned(),
        found: error.to_string(),
        remedy: "give every column a name and an id of its own",
    });
    match schema {
        Ok(schema) if differences.is_empty() => {
            let is_new = fields != current.as_struct().fields();
            Ok(Evolution { schema: is_new.then_some(schema), spec: new_spec(def, metadata) })
        }
        Ok(_) => Err(SchemaMismatch { table: ident.clone(), differences }),
        Err(difference) => {
            differences.push(difference);
            Err(SchemaMismatch { table: ident.clone(), differences })
        }
    }
}

/// Adds or alters one column among the fields of a schema.
fn evolve_column(column: &Column, current: &Schema, fields: &mut Vec<Arc<NestedField>>) -> Result<(), ColumnMismatch> {
    let wanted = iceberg_field(column);
    let Some(found) = current.field_by_name(column.name).or(current.field_by_id(column.id)) else {
        if column.required {
            return Err(mismatch(&wanted, "nothing".to_owned(), "add the column as optional: old rows have no value"));
        }
        fields.push(Arc::new(wanted));
        return Ok(());
    };
    // Data files refer to columns by id (Iceberg spec, "Column Projection"). Under another id the old values would read
    // as null; under another name the id belongs to another column.
    if found.id != wanted.id || found.name != wanted.name {
        return Err(mismatch(&wanted, format!("{} {}", found.name, describe(found)), OUT_OF_THE_WAY));
    }
    if found.field_type != wanted.field_type && !is_widened(&found.field_type, &wanted.field_type) {
        return Err(mismatch(&wanted, describe(found), OTHER_TYPE));
    }
    // A column that is optional stays so: old rows may have no value.
    let required = found.required && column.required;
    if found.field_type != wanted.field_type || found.required != required {
        let altered = NestedField { field_type: wanted.field_type.clone(), required, ..found.as_ref().clone() };
        for field in fields.iter_mut().filter(|field| field.id == altered.id) {
            *field = Arc::new(altered.clone());
        }
    }
    Ok(())
}

/// Whether every value of one type is one of the other (Iceberg spec, "Schema Evolution").
fn is_widened(from: &Type, to: &Type) -> bool {
    use PrimitiveType::{Double, Float, Int, Long};
    matches!(
        (from, to),
        (Type::Primitive(Int), Type::Primitive(Long)) | (Type::Primitive(Float), Type::Primitive(Double))
    )
}

fn mismatch(wanted: &NestedField, found: String, remedy: &'static str) -> ColumnMismatch {
    ColumnMismatch { column: wanted.name.clone(), expected: describe(wanted), found, remedy }
}

/// The partition spec of a definition, when the table's default is another.
fn new_spec(def: &TableDef, metadata: &TableMetadata) -> Option<UnboundPartitionSpec> {
    let wanted = partition_fields(def);
    let found = metadata.default_partition_spec().fields();
    // Name and id of a partition field do not change its values.
    let is_same = wanted.len() == found.len()
        && wanted.iter().zip(found).all(|(w, f)| (w.source_id, w.transform) == (f.source_id, f.transform));
    let unbound = wanted.into_iter().map(|field| UnboundPartitionField {
        source_id: field.source_id,
        // Given anew, or that of an equal field of an older spec.
        field_id: None,
        name: field.name,
        transform: field.transform,
    });
    // Fails for fields with the same name, and a definition has one partition field at most.
    let spec = UnboundPartitionSpec::builder().add_partition_fields(unbound).ok()?.build();
    (!is_same).then_some(spec)
}

const OUT_OF_THE_WAY: &str = "move the table out of the way, another program made it";
const OTHER_TYPE: &str = "move the table out of the way, its values have another type";

/// How a column of the table differs from the definition; `None` when files made by the definition fit it.
fn compare(column: &Column, schema: &Schema) -> Option<ColumnMismatch> {
    let expected = iceberg_field(column);
    // By name first: a column with this name and another id is reported as such, and not as absent.
    let Some(found) = schema.field_by_name(column.name).or(schema.field_by_id(column.id)) else {
        let remedy = if column.required { OUT_OF_THE_WAY } else { "add the column as optional with this id" };
        return Some(mismatch(&expected, "nothing".to_owned(), remedy));
    };
    let remedy = remedy(&expected, found)?;
    let found =
        if found.name == expected.name { describe(found) } else { format!("{} {}", found.name, describe(found)) };
    Some(mismatch(&expected, found, remedy))
}

/// What an operator can do about a column that files written here do not fit; `None` when they fit it.
fn remedy(expected: &NestedField, found: &NestedField) -> Option<&'static str> {
    let is_renamed = found.name != expected.name;
    let has_other_type = found.field_type != expected.field_type;
    if found.id != expected.id || (is_renamed && has_other_type) {
        // Not the column of the definition: its id differs, or both its name and its type.
        Some(OUT_OF_THE_WAY)
    } else if is_renamed {
        Some("rename it back")
    } else if has_other_type {
        Some(OTHER_TYPE)
    } else if found.required && !expected.required {
        Some("make it optional, rows written here may have no value for it")
    } else {
        None
    }
}

fn compare_partition(def: &TableDef, metadata: &TableMetadata) -> Option<ColumnMismatch> {
    let expected = describe_partition(&partition_fields(def));
    let found = describe_partition(metadata.default_partition_spec().fields());
    let remedy = "set the table's partition spec back, files are written for this one";
    (expected != found).then(|| ColumnMismatch { column: "partition".to_owned(), expected, found, remedy })
}

fn describe_partition(fields: &[PartitionField]) -> String {
    if fields.is_empty() {
        return "unpartitioned".to_owned();
    }
    let fields: Vec<_> = fields.iter().map(|f| format!("{}(field {})", f.transform, f.source_id)).collect();
    fields.join(", ")
}

fn describe(field: &NestedField) -> String {
    let need = if field.required { "required" } else { "optional" };
    format!("{need} {} with id {}", field.field_type, field.id)
}

/// The id of the table's sort order that rows sorted by `def` are in; `None` when the table has no such order.
pub(crate) fn sort_order_id(def: &TableDef, metadata: &TableMetadata) -> Option<i32> {
    let fields = sort_fields(def);
    if fields.is_empty() {
        return None;
    }
    // By its fields: the id is that of this table, which another program may have made.
    let order = metadata.sort_orders_iter().find(|order| order.fields == fields)?;
    i32::try_from(order.order_id).ok()
}

/// A column of a type that is not read.
#[derive(Debug)]
pub(crate) struct UnreadType {
    pub(crate) column: String,
    pub(crate) kind: String,
}

/// The Arrow schema a table is read in: plain types, and each field's id under [`FIELD_ID_KEY`].
pub(crate) fn arrow_schema(schema: &Schema) -> Result<SchemaRef, UnreadType> {
    let fields: Result<Vec<_>, UnreadType> = schema.as_struct().fields().iter().map(|f| arrow_field(f)).collect();
    Ok(Arc::new(ArrowSchema::new(fields?)))
}

fn arrow_field(field: &NestedField) -> Result<Field, UnreadType> {
    let Some(kind) = field.field_type.as_primitive_type().and_then(arrow_type) else {
        return Err(UnreadType { column: field.name.clone(), kind: field.field_type.to_string() });
    };
    let id = [(FIELD_ID_KEY.to_owned(), field.id.to_string())];
    Ok(Field::new(&field.name, kind, !field.required).with_metadata(id.into()))
}

fn arrow_type(kind: &PrimitiveType) -> Option<DataType> {
    Some(match kind {
        PrimitiveType::Boolean => DataType::Boolean,
        PrimitiveType::Int => DataType::Int32,
        PrimitiveType::Long => DataType::Int64,
        PrimitiveType::Float => DataType::Float32,
        PrimitiveType::Double => DataType::Float64,
        PrimitiveType::String => DataType::Utf8,
        PrimitiveType::Binary => DataType::Binary,
        PrimitiveType::Date => DataType::Date32,
        PrimitiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        PrimitiveType::Timestamptz => ColumnType::Timestamptz.arrow(),
        _ => return None,
    })
}

/// The Iceberg field id an Arrow field carries.
pub(crate) fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(FIELD_ID_KEY)?.parse().ok()
}

#[cfg(test)]
mod tests;
