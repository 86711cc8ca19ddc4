//! Parquet with the columns of `silver.events`. Columns of other types are cast where no value changes by it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::AssertUnwindSafe;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Int32Type, Int64Type, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{FormatError, Output};
use crate::event::{EventRow, PASSED_OVER};

const ROWS_AT_ONCE: usize = 1024;
/// A footer longer than this is refused: its reader keeps it in memory, and what it decodes to. Those of files with
/// thousands of row groups are some megabytes.
const FOOTER_BYTES_MAX: u32 = 16 << 20;

/// Columns that a file must have, each without nulls.
const REQUIRED: [&str; 6] = ["node", "ts_ns", "source", "op", "pid", "tid"];
/// Columns by the type that they are cast to.
const TEXTS: [&str; 10] =
    ["node", "cluster", "comm", "job_id", "container_id", "pod", "namespace", "source_id", "event_id", "peer_comm"];
const INTS: [&str; 10] =
    ["source", "op", "pid", "tid", "rank", "local_rank", "world_size", "gpu_id", "ret_code", "peer_pid"];
const LONGS: [&str; 9] =
    ["ts_ns", "duration_ns", "arg0", "arg1", "bytes", "stack_hash", "cgroup_id", "comm_hash", "coll_seq"];
const FLOATS: [&str; 2] = ["sample_weight", "duration_weight"];

/// Reads a file to its end.
pub(crate) fn read(file: &File, output: &mut Output<'_>) -> Result<(), FormatError> {
    // The reader has asserted on bytes that no writer makes; the output is dropped with the error.
    let read = std::panic::catch_unwind(AssertUnwindSafe(|| read_rows(file, output)));
    read.unwrap_or(Err(FormatError::ParquetPanic))
}

fn read_rows(file: &File, output: &mut Output<'_>) -> Result<(), FormatError> {
    check_footer(file)?;
    let file = file.try_clone().map_err(|source| FormatError::Read { what: "Parquet", source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    check_names(builder.schema())?;
    let mut number = 0;
    for batch in builder.with_batch_size(ROWS_AT_ONCE).build()? {
        let batch = batch.map_err(parquet::errors::ParquetError::from)?;
        let columns = Columns::of(&batch)?;
        for row in 0..batch.num_rows() {
            number += 1;
            let event = columns.event(row).map_err(|what| FormatError::Row { number, what })?;
            output.event(&event)?;
        }
    }
    Ok(())
}

/// The last eight bytes of a file are the length of its footer and `PAR1` (Parquet format, "File Format").
fn check_footer(mut file: &File) -> Result<(), FormatError> {
    let mut tail = [0; 8];
    let read = file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut tail));
    read.map_err(|source| FormatError::Read { what: "Parquet", source })?;
    let [a, b, c, d, ..] = tail;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    if bytes > FOOTER_BYTES_MAX {
        return Err(wrong(format!("its footer has {bytes} bytes, more than {FOOTER_BYTES_MAX}")));
    }
    Ok(())
}

fn wrong(what: String) -> FormatError {
    FormatError::Columns { what }
}

fn check_names(schema: &SchemaRef) -> Result<(), FormatError> {
    let known = [TEXTS.as_slice(), &INTS, &LONGS, &FLOATS, &PASSED_OVER].concat();
    if let Some(field) = schema.fields().iter().find(|field| !known.contains(&field.name().as_str())) {
        return Err(wrong(format!(
            "column `{}` is none of `silver.events`, whose columns are the ones that are read (traces of other tools, such as \
             straggler traces, are not supported yet)",
            field.name()
        )));
    }
    match REQUIRED.iter().find(|name| schema.index_of(name).is_err()) {
        Some(name) => Err(wrong(format!("column `{name}` is missing"))),
        None => Ok(()),
    }
}

/// The columns of a batch, in the order of the names above; `None` for those that the file lacks.
struct Columns {
    texts: [Option<ArrayRef>; TEXTS.len()],
    ints: [Option<ArrayRef>; INTS.len()],
    longs: [Option<ArrayRef>; LONGS.len()],
    floats: [Option<ArrayRef>; FLOATS.len()],
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self, FormatError> {
        Ok(Self {
            texts: typed(batch, TEXTS, &DataType::Utf8)?,
            ints: typed(batch, INTS, &DataType::Int32)?,
            longs: typed(batch, LONGS, &DataType::Int64)?,
            floats: typed(batch, FLOATS, &DataType::Float32)?,
        })
    }

    fn event(&self, row: usize) -> Result<EventRow, String> {
        // In the order of `TEXTS`, `INTS`, `LONGS` and `FLOATS`.
        let [node, cluster, comm, job_id, container_id, pod, namespace, source_id, event_id, peer_comm] =
            self.texts.each_ref().map(|column| text(column.as_ref(), row));
        let [source, op, pid, tid, rank, local_rank, world_size, gpu_id, ret_code, peer_pid] =
            self.ints.each_ref().map(|column| int(column.as_ref(), row));
        let [ts_ns, duration_ns, arg0, arg1, bytes, stack_hash, cgroup_id, comm_hash, coll_seq] =
            self.longs.each_ref().map(|column| long(column.as_ref(), row));
        let [sample_weight, duration_weight] = self.floats.each_ref().map(|column| float(column.as_ref(), row));
        let event = EventRow {
            node: required("node", node)?,
            ts_ns: required("ts_ns", ts_ns)?,
            source: required("source", source)?,
            op: required("op", op)?,
            pid: required("pid", pid)?,
            tid: required("tid", tid)?,
            cluster,
            duration_ns,
            duration_weight,
            comm,
            rank,
            local_rank,
            world_size,
            job_id,
            gpu_id,
            arg0: arg0.unwrap_or_default(),
            arg1: arg1.unwrap_or_default(),
            bytes,
            ret_code,
            stack_hash: stack_hash.unwrap_or_default(),
            cgroup_id: cgroup_id.unwrap_or_default(),
            container_id,
            pod,
            namespace,
            comm_hash,
            coll_seq,
            sample_weight: sample_weight.unwrap_or(1.0),
            source_id,
            event_id,
            peer_comm,
            peer_pid,
            ..EventRow::default()
        };
        event.problem().map_or(Ok(event), |problem| Err(problem.to_owned()))
    }
}

/// Columns by name, cast to one type.
fn typed<const N: usize>(
    batch: &RecordBatch,
    names: [&'static str; N],
    kind: &DataType,
) -> Result<[Option<ArrayRef>; N], FormatError> {
    // An overflow is an error instead of a null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns = [const { None }; N];
    for (column, name) in columns.iter_mut().zip(names) {
        let Some(found) = batch.column_by_name(name) else { continue };
        if !is_alike(found.data_type(), kind) {
            return Err(wrong(format!("column `{name}` has the type {}, expected {kind}", found.data_type())));
        }
        let cast = cast_with_options(found, kind, &options);
        *column = Some(cast.map_err(|error| wrong(format!("column `{name}`: {error}")))?);
    }
    Ok(columns)
}

/// Whether a type holds values of the same sort: numbers are not made of texts, nor integers of fractions.
fn is_alike(found: &DataType, wanted: &DataType) -> bool {
    match found {
        DataType::Dictionary(_, values) => is_alike(values, wanted),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => *wanted == DataType::Utf8,
        found if found.is_integer() => wanted.is_integer(),
        found if found.is_floating() => wanted.is_floating(),
        _ => false,
    }
}

fn text(column: Option<&ArrayRef>, row: usize) -> Option<String> {
    let column = column?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn int(column: Option<&ArrayRef>, row: usize) -> Option<i32> {
    let column = column?.as_primitive_opt::<Int32Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn long(column: Option<&ArrayRef>, row: usize) -> Option<i64> {
    let column = column?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn float(column: Option<&ArrayRef>, row: usize) -> Option<f32> {
    let column = column?.as_primitive_opt::<Float32Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("`{name}` is null"))
}
