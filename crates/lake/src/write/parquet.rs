//! One Parquet file: per-column encodings (measured to decide both speed and size), and the metrics Iceberg keeps about
//! it.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use ::parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use ::parquet::basic::{Compression, Encoding as ParquetEncoding, ZstdLevel};
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, SortingColumn};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::statistics::Statistics;
use ::parquet::schema::types::ColumnPath;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::{DataFileBuilder, Datum};
use tables::def::{Column, ColumnType, Encoding, TableDef};

use super::column_position;

/// A row group ends at this many rows or bytes, whichever comes first.
const ROW_GROUP_ROWS: usize = 1 << 20;
const ROW_GROUP_BYTES: usize = 128 << 20;
/// Longer strings are cut in statistics: a lower bound is cut off, an upper bound is cut and raised, so both still
/// hold.
const BOUND_BYTES: usize = 64;

/// Who wrote the file, in the form that Parquet's Java library parses (`VersionParser`). Of another form it logs "Ignoring
/// statistics because created_by could not be parsed", with a stack trace.
const CREATED_BY: &str = concat!("causeway version ", env!("CARGO_PKG_VERSION"));

/// How the table's columns are laid out.
pub(super) fn properties(def: &TableDef) -> Result<WriterProperties, ParquetError> {
    let positions = def.sort.iter().filter_map(|name| column_position(def, name));
    let sorting = positions
        .filter_map(|position| i32::try_from(position).ok())
        .map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: true })
        .collect();
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_truncate_length(Some(BOUND_BYTES))
        .set_sorting_columns(Some(sorting));
    for column in &def.columns {
        let path = ColumnPath::from(column.name);
        if column.kind == ColumnType::Binary {
            // Opaque bytes: no reader prunes by them.
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk);
        }
        let Some(encoding) = encoding(column) else { continue };
        builder =
            builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path.clone(), encoding);
        if column.encoding == Encoding::Plain {
            // The values are compressed already.
            builder = builder.set_column_compression(path, Compression::UNCOMPRESSED);
        }
    }
    Ok(builder.build())
}

/// The encoding instead of dictionary pages. An encoding that does not exist for the column's type is passed over.
fn encoding(column: &Column) -> Option<ParquetEncoding> {
    use ColumnType::{Binary, Int, Long, String, Timestamptz};
    match (column.encoding, column.kind) {
        (Encoding::Delta, Int | Long | Timestamptz) => Some(ParquetEncoding::DELTA_BINARY_PACKED),
        (Encoding::DeltaBytes, String | Binary) => Some(ParquetEncoding::DELTA_BYTE_ARRAY),
        (Encoding::Plain, _) => Some(ParquetEncoding::PLAIN),
        _ => None,
    }
}

/// A writer of one file.
pub(super) fn writer<W: Write + Send>(
    file: W,
    schema: &SchemaRef,
    properties: &WriterProperties,
) -> Result<ArrowWriter<W>, ParquetError> {
    // Without the embedded Arrow schema every reader sees plain strings, not our dictionaries.
    let options = ArrowWriterOptions::new().with_properties(properties.clone()).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(file, Arc::clone(schema), options)
}

/// Encodes the batches, in their order, to one file, without checksums.
pub(super) fn encode(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    properties: &WriterProperties,
) -> Result<(Vec<u8>, ParquetMetaData), ParquetError> {
    let mut file = Vec::new();
    let mut writer = writer(&mut file, schema, properties)?;
    for batch in batches {
        writer.write(batch)?;
    }
    let metadata = writer.close()?;
    Ok((file, metadata))
}

/// What Iceberg keeps about a file's columns, by field id.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Compressed bytes.
    column_sizes: HashMap<i32, u64>,
    /// Rows, nulls included.
    value_counts: HashMap<i32, u64>,
    null_counts: HashMap<i32, u64>,
    lower_bounds: HashMap<i32, Datum>,
    upper_bounds: HashMap<i32, Datum>,
    /// Where row groups start, bytes from the file's start.
    split_offsets: Vec<i64>,
}

impl Metrics {
    /// Puts the metrics into the manifest entry of their file.
    pub(super) fn describe(self, file: &mut DataFileBuilder) {
        file.column_sizes(self.column_sizes)
            .value_counts(self.value_counts)
            .null_value_counts(self.null_counts)
            .lower_bounds(self.lower_bounds)
            .upper_bounds(self.upper_bounds)
            .split_offsets(Some(self.split_offsets));
    }
}

/// Collects the metrics of a file whose columns are those of `def`, in order.
pub(super) fn metrics(def: &TableDef, metadata: &ParquetMetaData) -> Metrics {
    let mut metrics = Metrics {
        split_offsets: metadata.row_groups().iter().filter_map(|g| g.columns().first()).map(chunk_start).collect(),
        ..Metrics::default()
    };
    let rows: i64 = metadata.row_groups().iter().map(|group| group.num_rows()).sum();
    for (i, column) in def.columns.iter().enumerate() {
        // By position: the file has the columns of the definition in their order.
        let chunks: Vec<_> = metadata.row_groups().iter().filter_map(|group| group.columns().get(i)).collect();
        let size: i64 = chunks.iter().map(|chunk| chunk.compressed_size()).sum();
        metrics.column_sizes.insert(column.id, size.unsigned_abs());
        metrics.value_counts.insert(column.id, rows.unsigned_abs());
        // Unknown if one row group does not say: a sum of options is `None` then.
        let nulls: Option<u64> = chunks.iter().map(|c| c.statistics().and_then(Statistics::null_count_opt)).sum();
        metrics.null_counts.extend(nulls.map(|count| (column.id, count)));
        if let Some((lower, upper)) = bounds(column, &chunks) {
            metrics.lower_bounds.insert(column.id, lower);
            metrics.upper_bounds.insert(column.id, upper);
        }
    }
    metrics
}

fn chunk_start(chunk: &ColumnChunkMetaData) -> i64 {
    // A column chunk begins with its dictionary page, if it has one (Parquet format, `ColumnMetaData`).
    let data = chunk.data_page_offset();
    chunk.dictionary_page_offset().map_or(data, |dictionary| dictionary.min(data))
}

/// The bounds over all row groups; `None` when there are no values, or one group does not say.
fn bounds(column: &Column, chunks: &[&ColumnChunkMetaData]) -> Option<(Datum, Datum)> {
    if column.kind == ColumnType::Binary {
        // Opaque bytes, by which no reader prunes: bounds would only make the manifests larger.
        return None;
    }
    let mut found: Option<(Datum, Datum)> = None;
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        if statistics.null_count_opt() == Some(chunk.num_values().unsigned_abs()) {
            // Only nulls: there are no bounds, and those of the other row groups stay valid.
            continue;
        }
        let (low, high) = chunk_bounds(column.kind, statistics)?;
        found = Some(match found {
            None => (low, high),
            Some((lower, upper)) => (if low < lower { low } else { lower }, if high > upper { high } else { upper }),
        });
    }
    found
}

fn chunk_bounds(kind: ColumnType, statistics: &Statistics) -> Option<(Datum, Datum)> {
    fn both<T: Copy>(min: Option<&T>, max: Option<&T>, datum: fn(T) -> Datum) -> Option<(Datum, Datum)> {
        Some((datum(*min?), datum(*max?)))
    }
    fn text(bytes: &ByteArray) -> Option<Datum> {
        // Bounds of strings are cut: one that is not UTF-8 is left out.
        bytes.as_utf8().ok().map(Datum::string)
    }
    match (kind, statistics) {
        (ColumnType::Boolean, Statistics::Boolean(s)) => both(s.min_opt(), s.max_opt(), Datum::bool),
        (ColumnType::Int, Statistics::Int32(s)) => both(s.min_opt(), s.max_opt(), Datum::int),
        (ColumnType::Long, Statistics::Int64(s)) => both(s.min_opt(), s.max_opt(), Datum::long),
        (ColumnType::Timestamptz, Statistics::Int64(s)) => both(s.min_opt(), s.max_opt(), Datum::timestamptz_micros),
        (ColumnType::Float, Statistics::Float(s)) => both(s.min_opt(), s.max_opt(), Datum::float),
        (ColumnType::Double, Statistics::Double(s)) => both(s.min_opt(), s.max_opt(), Datum::double),
        (ColumnType::String, Statistics::ByteArray(s)) => Some((text(s.min_opt()?)?, text(s.max_opt()?)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
