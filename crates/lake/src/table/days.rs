//! The day partition of a table's files.

use iceberg::spec::{DataFile, Literal, PartitionSpec, PrimitiveLiteral, Transform};

/// The position and source column of the day partition in a spec.
pub(crate) fn day_field(spec: &PartitionSpec) -> Option<(usize, i32)> {
    spec.fields().iter().enumerate().find(|(_, f)| f.transform == Transform::Day).map(|(i, f)| (i, f.source_id))
}

/// The day of a file, days since 1970-01-01; `position` is that of [`day_field`].
pub(crate) fn day_at(file: &DataFile, position: usize) -> Option<i32> {
    match file.partition().fields().get(position)?.as_ref().and_then(Literal::as_primitive_literal)? {
        PrimitiveLiteral::Int(day) => Some(day),
        _ => None,
    }
}
