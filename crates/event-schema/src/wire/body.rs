//! The body of a message: Arrow IPC without a schema message, checked against the schema we know before Arrow sees it.
//!
//! arrow-ipc 58 trusts lengths it reads (arrow-rs issues 10521, 10437). So each encapsulated message is first walked
//! with the flatbuffer verifier: types, row counts, node and buffer counts, and every (offset, length) must fit before
//! it is decoded.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message};
use arrow::ipc::{Block, MessageHeader, MetadataVersion, RecordBatch as IpcBatch, root_as_message};

use super::{EncodeError, Header, ROWS_MAX, WireError};
use crate::kind::RecordKind;

/// Bytes before the flatbuffer of an encapsulated message: continuation marker and length.
const ENVELOPE_BYTES: usize = 8;
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Smallest and largest `boot_ns`; zeros when there are no rows.
pub(super) fn boot_ns_span(kind: RecordKind, batch: &RecordBatch) -> Result<(i64, i64), EncodeError> {
    let times = boot_ns(batch).ok_or(EncodeError::WrongSchema { kind })?.values();
    Ok((times.iter().copied().min().unwrap_or(0), times.iter().copied().max().unwrap_or(0)))
}

fn boot_ns(batch: &RecordBatch) -> Option<&Int64Array> {
    batch.column_by_name("boot_ns")?.as_primitive_opt::<Int64Type>()
}

fn replace_boot_ns(
    batch: &RecordBatch,
    schema: SchemaRef,
    times: Vec<i64>,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let at = schema.index_of("boot_ns")?;
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns[at] = Arc::new(Int64Array::from(times));
    RecordBatch::try_new(schema, columns)
}

pub(super) fn write(header: &Header, version: u16, batch: &RecordBatch) -> Result<Vec<u8>, EncodeError> {
    let kind = header.kind;
    let schema = kind.wire_schema_of(version);
    // By position, name and type, as the decoder will read them; metadata and nullability do not travel.
    let same = batch
        .schema()
        .fields()
        .iter()
        .zip(schema.fields())
        .all(|(a, b)| a.data_type() == b.data_type() && a.name() == b.name());
    if !same || batch.num_columns() != schema.fields().len() {
        return Err(EncodeError::WrongSchema { kind });
    }
    let times = boot_ns(batch).ok_or(EncodeError::WrongSchema { kind })?.values();
    let mut before = header.first_boot_ns;
    // Delta coding: neighbouring times differ little, and small numbers compress far better. Wrapping, since rows need
    // not be in order of time; the decoder wraps back.
    let steps = times.iter().map(|t| t.wrapping_sub(std::mem::replace(&mut before, *t))).collect();
    let batch = replace_boot_ns(batch, schema, steps).map_err(EncodeError::Arrow)?;

    // Aligned to 8 bytes, which `Layout::holds` requires, and with the continuation marker (not the format before Arrow
    // 0.15).
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).map_err(EncodeError::Arrow)?;
    // Writing a schema message would hand out the ids. None is written, so they are handed out here, in the same order.
    let mut tracker = DictionaryTracker::new(false);
    for field in batch.schema().fields() {
        if matches!(field.data_type(), DataType::Dictionary(..)) {
            tracker.next_dict_id();
        }
    }
    let (dictionaries, rows) = IpcDataGenerator::default()
        .encode(&batch, &mut tracker, &options, &mut CompressionContext::default())
        .map_err(EncodeError::Arrow)?;
    let mut out = Vec::with_capacity(rows.arrow_data.len() + 4096);
    // Dictionaries first: the record batch refers to them by id, and the decoder reads in one pass.
    for message in dictionaries.into_iter().chain([rows]) {
        write_message(&mut out, message, &options).map_err(EncodeError::Arrow)?;
    }
    Ok(out)
}

pub(super) fn read(header: &Header, version: u16, raw: Vec<u8>) -> Result<RecordBatch, WireError> {
    let schema = header.kind.wire_schema_of(version);
    let raw = Buffer::from_vec(raw);
    // The decoder of files and not of streams: it takes a schema as given, where a stream would have to begin with one.
    let mut decoder = FileDecoder::new(Arc::clone(&schema), MetadataVersion::V5);
    let mut at = 0;
    loop {
        // Checked before it is sliced or decoded. `at` stays in range, since a checked part ends within what is left.
        let part = check_part(&raw[at..], &schema, header.rows)?;
        let bytes = raw.slice_with_length(at, part.total_bytes());
        let block = Block::new(0, part.metadata_bytes, i64::from(part.body_bytes));
        at += part.total_bytes();
        match part.kind {
            Part::Dictionary => decoder.read_dictionary(&block, &bytes).map_err(WireError::Arrow)?,
            // Bytes behind the rows would be carried along unread, and two different messages would decode to the same
            // rows.
            Part::Rows if at != raw.len() => return Err(WireError::BadBody { what: "bytes follow the record batch" }),
            Part::Rows => {
                let batch = decoder.read_record_batch(&block, &bytes).map_err(WireError::Arrow)?;
                let batch = batch.ok_or(WireError::BadBody { what: "there is no record batch" })?;
                return absolute_times(header, batch, schema);
            }
        }
    }
}

/// Undoes the difference coding and holds the header to what the rows say.
fn absolute_times(header: &Header, batch: RecordBatch, schema: SchemaRef) -> Result<RecordBatch, WireError> {
    let steps = boot_ns(&batch).ok_or(WireError::BadBody { what: "`boot_ns` is missing" })?;
    // The value in the slot of a null is undefined, and must not enter the sums below.
    if steps.null_count() > 0 {
        return Err(WireError::BadBody { what: "`boot_ns` has nulls" });
    }
    let mut before = header.first_boot_ns;
    let times: Vec<i64> = steps
        .values()
        .iter()
        .map(|step| {
            before = before.wrapping_add(*step);
            before
        })
        .collect();
    let span = (times.iter().copied().min().unwrap_or(0), times.iter().copied().max().unwrap_or(0));
    // Readers of headers alone (`ops.ledger`) rely on these times: a header that differs from its rows is refused.
    if span != (header.first_boot_ns, header.last_boot_ns) {
        return Err(WireError::BadBody { what: "its times differ from those in the header" });
    }
    replace_boot_ns(&batch, schema, times).map_err(WireError::Arrow)
}

enum Part {
    Dictionary,
    Rows,
}

struct CheckedPart {
    kind: Part,
    /// Envelope and flatbuffer, padded.
    metadata_bytes: i32,
    body_bytes: u32,
}

impl CheckedPart {
    fn total_bytes(&self) -> usize {
        usize::try_from(self.metadata_bytes).unwrap_or(0) + self.body_bytes as usize
    }
}

/// Walks one encapsulated message without trusting any number in it.
fn check_part(bytes: &[u8], schema: &SchemaRef, rows: u32) -> Result<CheckedPart, WireError> {
    let (envelope, rest) = bytes.split_first_chunk::<ENVELOPE_BYTES>().ok_or(bad("it ends before the record batch"))?;
    let (marker, length) = envelope.split_at(4);
    // Four bytes by construction: the envelope has eight and was split in the middle.
    let length = i32::from_le_bytes(length.try_into().unwrap_or_default());
    // Negative or beyond the end: refused here, since `get` returns `None` where an index panics.
    let metadata = usize::try_from(length).ok().and_then(|n| rest.get(..n)).ok_or(bad("a message is cut off"))?;
    if marker != CONTINUATION {
        return Err(bad("a message does not begin with the continuation marker"));
    }
    // The flatbuffer verifier: offsets inside the metadata are followed only after it has passed.
    let message = root_as_message(metadata).map_err(|_| bad("a message is not a valid flatbuffer"))?;
    let body_bytes = u32::try_from(message.bodyLength()).map_err(|_| bad("a message states an impossible length"))?;
    // Cannot underflow: `metadata` is a part of `rest`.
    if body_bytes as usize > rest.len() - metadata.len() {
        return Err(bad("a message is longer than the body"));
    }
    let kind = match message.header_type() {
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch().ok_or(bad("a dictionary has no header"))?;
            let known =
                i64::try_from(schema.fields().iter().filter(|f| is_dictionary(f.data_type())).count()).unwrap_or(0);
            // Delta dictionaries append to the one before. The writer makes none, and the checks here would have to
            // hold for the sum.
            if dictionary.isDelta() || !(0..known).contains(&dictionary.id()) {
                return Err(bad("a dictionary belongs to no column"));
            }
            let data = dictionary.data().ok_or(bad("a dictionary has no data"))?;
            check_batch(&data, 0..=i64::from(ROWS_MAX), &[Layout::Text], body_bytes)?;
            Part::Dictionary
        }
        MessageHeader::RecordBatch => {
            let batch = message.header_as_record_batch().ok_or(bad("a record batch has no header"))?;
            let columns: Vec<Layout> = schema.fields().iter().map(|f| Layout::of(f.data_type())).collect();
            check_batch(&batch, i64::from(rows)..=i64::from(rows), &columns, body_bytes)?;
            Part::Rows
        }
        _ => return Err(bad("a message is neither a dictionary nor a record batch")),
    };
    // A `Block` counts the envelope with its metadata (Arrow IPC file format).
    let metadata_bytes = length.checked_add(8).ok_or(bad("a message states an impossible length"))?;
    Ok(CheckedPart { kind, metadata_bytes, body_bytes })
}

const fn bad(what: &'static str) -> WireError {
    WireError::BadBody { what }
}

fn is_dictionary(kind: &DataType) -> bool {
    matches!(kind, DataType::Dictionary(..))
}

/// How a column lies in the body: a validity bitmap, then these buffers.
#[derive(Clone, Copy)]
enum Layout {
    /// Values of this many bytes.
    Fixed(i64),
    /// Offsets of four bytes, then bytes.
    Text,
}

impl Layout {
    fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Utf8 => Self::Text,
            DataType::Int64 | DataType::Float64 => Self::Fixed(8),
            // Int32, Float32 and the keys of dictionaries.
            _ => Self::Fixed(4),
        }
    }

    fn buffers(self) -> usize {
        match self {
            Self::Fixed(_) => 2,
            Self::Text => 3,
        }
    }

    /// Whether the buffer after the validity bitmap holds what `rows` rows need, in whole values.
    fn holds(self, buffer: &arrow::ipc::Buffer, rows: i64) -> bool {
        let (width, values) = match self {
            Self::Fixed(width) => (width, rows),
            // The Arrow columnar format lets an array without elements leave out its offsets.
            Self::Text if rows == 0 => (4, 0),
            // Offsets delimit the values, so that there is one more than values.
            Self::Text => (4, rows + 1),
        };
        buffer.offset() % 8 == 0 && buffer.length() % width == 0 && buffer.length() >= values * width
    }
}

/// Whether offset and length of a buffer, neither of which is trusted, lie within a body of this size.
fn lies_within(buffer: &arrow::ipc::Buffer, body_bytes: i64) -> bool {
    buffer.offset() >= 0
        && buffer.length() >= 0
        && buffer.offset().checked_add(buffer.length()).is_some_and(|end| end <= body_bytes)
}

fn check_batch(
    batch: &IpcBatch<'_>,
    rows: std::ops::RangeInclusive<i64>,
    columns: &[Layout],
    body_bytes: u32,
) -> Result<(), WireError> {
    let rows = if rows.contains(&batch.length()) {
        batch.length()
    } else {
        return Err(bad("its row count differs from the one stated"));
    };
    // The body is compressed as a whole, and views are not among the column types: neither has checks here.
    if batch.compression().is_some() || batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(bad("it uses a feature this version does not have"));
    }
    let nodes = batch.nodes().ok_or(bad("it has no columns"))?;
    let buffers = batch.buffers().ok_or(bad("it has no buffers"))?;
    // After this, the index below is in range: every column has as many buffers as `columns` says.
    if nodes.len() != columns.len() || buffers.len() != columns.iter().map(|c| c.buffers()).sum::<usize>() {
        return Err(bad("its columns are not those of this version"));
    }
    let body_bytes = i64::from(body_bytes);
    if buffers.iter().any(|buffer| !lies_within(buffer, body_bytes)) {
        return Err(bad("a buffer lies outside the body"));
    }
    let mut validity = 0;
    for (node, column) in nodes.iter().zip(columns) {
        if node.length() != rows || !(0..=rows).contains(&node.null_count()) {
            return Err(bad("a column has another length than the batch"));
        }
        // Without nulls the bitmap may be left out (Arrow columnar format, "Validity bitmaps").
        if node.null_count() > 0 && buffers.get(validity).length() < (rows + 7) / 8 {
            return Err(bad("a validity bitmap is shorter than its column"));
        }
        if !column.holds(buffers.get(validity + 1), rows) {
            return Err(bad("a buffer does not hold the values of its column"));
        }
        validity += column.buffers();
    }
    Ok(())
}
