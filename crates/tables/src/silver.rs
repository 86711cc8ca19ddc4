//! Silver: typed, de-duplicated, clock-corrected records, one table per kind. The columns are the kind's fields.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use event_schema::identity::boot8;
use event_schema::kind::{Field, FieldType, RecordKind};
use event_schema::position::Message;
use event_schema::wire::Header;

use crate::arrival::Arrival;
use crate::columns::{long, micros, same_int, same_long, same_word, timestamp};
use crate::def::{Column, ColumnType, Encoding, Partition, TableDef, TableName};

/// The table records of a kind land in.
pub fn name(kind: RecordKind) -> TableName {
    let (namespace, name) = match kind {
        RecordKind::Event => ("silver", "events"),
        RecordKind::Stack => ("silver", "stacks"),
        RecordKind::Process => ("silver", "processes"),
        RecordKind::Session => ("silver", "nodes"),
        RecordKind::System => ("silver", "system"),
        RecordKind::Cgroup => ("silver", "cgroups"),
        RecordKind::Aggregate => ("silver", "aggregates"),
        RecordKind::Chain => ("gold", "chains"),
    };
    TableName { namespace, name }
}

/// Version of the code that makes the rows of a kind ([`crate::registry::Table::refine_version`]).
pub const fn refine_version(kind: RecordKind) -> u32 {
    // Of each kind for itself: a change to one leaves the rows of the others as they are.
    match kind {
        RecordKind::Event
        | RecordKind::Stack
        | RecordKind::Process
        | RecordKind::Session
        | RecordKind::System
        | RecordKind::Cgroup
        | RecordKind::Aggregate
        | RecordKind::Chain => 1,
    }
}

pub fn def(kind: RecordKind) -> TableDef {
    TableDef {
        name: name(kind),
        doc: match kind {
            RecordKind::Event => "typed, de-duplicated, clock-corrected events",
            RecordKind::Stack => "interned stacks that events refer to by hash",
            RecordKind::Process => "processes seen, with their rank and container",
            RecordKind::Session => "runs of an agent on a node, with the facts of the node",
            RecordKind::System => "snapshots of a host's CPU, memory and load",
            RecordKind::Cgroup => "cgroups and the containers behind them",
            RecordKind::Aggregate => "per-minute aggregates imported from the reference tracer",
            RecordKind::Chain => "causal chains",
        },
        columns: kind.fields().map(column).collect(),
        partition: Partition::Day("ts"),
        sort: &["node", "ts"],
        // The others hold what rows of any time refer to.
        tiers: matches!(kind, RecordKind::Event | RecordKind::System | RecordKind::Aggregate),
    }
}

fn column(field: &Field) -> Column {
    let (kind, encoding) = match field.kind {
        FieldType::Int => (ColumnType::Int, Encoding::Dictionary),
        FieldType::Long => (ColumnType::Long, Encoding::Dictionary),
        // Parquet's delta encoding stores small differences in few bits, where a dictionary of ever new values grows
        // past its limit.
        FieldType::Rising => (ColumnType::Long, Encoding::Delta),
        FieldType::Float => (ColumnType::Float, Encoding::Dictionary),
        FieldType::Double => (ColumnType::Double, Encoding::Dictionary),
        FieldType::Timestamp => (ColumnType::Timestamptz, Encoding::Delta),
        FieldType::Word | FieldType::Text => (ColumnType::String, Encoding::Dictionary),
        FieldType::Id => (ColumnType::String, Encoding::DeltaBytes),
    };
    Column {
        id: field.id,
        name: field.name,
        kind,
        required: !field.nullable,
        encoding,
        dictionary: field.kind == FieldType::Word,
        doc: field.doc,
    }
}

/// Rows of the arrivals that carry records of `kind`: one batch per arrival (more when part of it was seen before).
///
/// # Errors
/// Only if a decoded batch does not have its kind's schema, which the codec rules out.
pub fn rows(kind: RecordKind, arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
    let schema = def(kind).arrow_schema();
    let of_kind = arrivals.iter().filter(|a| a.header().is_some_and(|h| h.kind == kind));
    // More than one slice where the middle of a message was seen before.
    let slices = of_kind.flat_map(|a| a.slices().map(move |slice| (&a.message, slice)));
    slices.map(|(message, (header, batch, first_seq))| land(&schema, message, header, &batch, first_seq)).collect()
}

fn land(
    schema: &SchemaRef,
    message: &Message,
    header: &Header,
    batch: &RecordBatch,
    first_seq: i64,
) -> Result<RecordBatch, ArrowError> {
    let n = batch.num_rows();
    let boot_ns = batch.column_by_name("boot_ns").and_then(|c| c.as_primitive_opt::<Int64Type>());
    let boot_ns = boot_ns.ok_or_else(|| ArrowError::SchemaError("a batch has no `boot_ns`".to_owned()))?.values();
    let wall_ns = boot_ns.iter().map(|b| header.beacon.wall_ns_of(*b));
    // Cannot overflow: the decoder refuses numbers beyond `i64`.
    let end_seq = first_seq + i64::try_from(n).unwrap_or(0);
    // What the message says once becomes a column. Words are dictionaries of one entry, so that a row costs four bytes.
    let mut made: HashMap<&str, ArrayRef> = HashMap::from([
        ("cluster", same_word(&header.cluster, n)),
        ("node", same_word(&header.node, n)),
        ("boot_id", same_word(&header.boot_id, n)),
        ("epoch", same_long(header.epoch, n)),
        ("stream", same_int(header.stream.number(), n)),
        ("seq", long(first_seq..end_seq)),
        ("ts", timestamp(wall_ns.clone().map(micros))),
        ("ts_ns", long(wall_ns)),
        ("clock_error_ns", same_long(header.beacon.error_ns, n)),
        ("log_name", same_word(&message.at.topic, n)),
        ("log_partition", same_int(message.at.partition, n)),
        ("log_offset", same_long(message.offset, n)),
    ]);
    if header.kind == RecordKind::Event {
        made.insert("event_id", event_ids(header, first_seq..end_seq));
    }
    let columns = schema.fields().iter().map(|f| {
        // By name, since the table has its columns in another order than the wire. A value that travels goes before one
        // that is made here.
        let carried = batch.column_by_name(f.name()).cloned();
        carried
            .or_else(|| made.remove(f.name().as_str()))
            .ok_or_else(|| ArrowError::SchemaError(format!("no value for `{}`", f.name())))
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

fn event_ids(header: &Header, seqs: std::ops::Range<i64>) -> ArrayRef {
    let prefix = format!("{}:{}:", header.node, boot8(&header.boot_id));
    let n = usize::try_from(seqs.end - seqs.start).unwrap_or(0);
    let mut ids = StringBuilder::with_capacity(n, n * (prefix.len() + 14));
    for seq in seqs {
        // Writing into the builder's buffer cannot fail, and avoids a string per row.
        let _ = write!(ids, "{prefix}{seq}");
        ids.append_value("");
    }
    Arc::new(ids.finish())
}
