//! The forms an answer takes: JSON for people and scripts, NDJSON, CSV, Arrow and Parquet for bulk. `Accept` chooses.

mod accept;
pub(crate) mod json;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::http::HeaderMap;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use json::{Rows, Style, object_key};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

const MEDIA: [(Format, &str); 5] = [
    (Format::Json, "application/json"),
    (Format::Ndjson, "application/x-ndjson"),
    (Format::Csv, "text/csv"),
    (Format::Arrow, "application/vnd.apache.arrow.stream"),
    (Format::Parquet, "application/vnd.apache.parquet"),
];

/// Other media types of these forms.
const ALIASES: [(Format, &str); 2] = [(Format::Ndjson, "application/ndjson"), (Format::Ndjson, "application/jsonl")];

/// The rank of a form by the header; the least is preferred.
type Rank = (Reverse<u16>, Reverse<accept::Precision>, usize);

impl Format {
    /// The form that `Accept` prefers among those we have; JSON when anything will do. `None` when none that is
    /// accepted can be given.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let ranges = accept::ranges(headers)?;
        if ranges.is_empty() {
            return Some(Self::Json);
        }
        let mut best: Option<(Rank, Self)> = None;
        for (format, media) in MEDIA.into_iter().chain(ALIASES) {
            // A weight of 0 excludes a type, also one that a wildcard would admit (RFC 9110 section 12.4.2).
            let Some(range) = accept::most_specific(&ranges, media).filter(|range| range.weight > 0) else { continue };
            // Of equal weights a form that is named goes before one that a wildcard admits, then the first in the
            // header. Of the forms that one wildcard admits, the first of `MEDIA` stays.
            let rank = (Reverse(range.weight), Reverse(range.precision), range.position);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, format));
            }
        }
        best.map(|(_, format)| format)
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => MEDIA.iter().find(|(format, _)| *format == other).map_or("application/json", |(_, media)| media),
        }
    }
}

/// A row group of Parquet is held in memory until it is written: it ends at this size, bytes.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Why rows could not be written in the asked form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("cannot write the rows: {0}")]
    Arrow(#[from] ArrowError),
    #[error("cannot write the rows as Parquet: {0}")]
    Parquet(#[from] ParquetError),
}

/// Turns batches into bytes of one bulk form, a piece at a time.
pub(crate) enum Encoder {
    Ndjson { keys: Vec<Vec<u8>> },
    Csv { header: Option<Vec<u8>> },
    Arrow { writer: Box<StreamWriter<Vec<u8>>>, schema: SchemaRef },
    Parquet { writer: Box<ArrowWriter<Vec<u8>>>, schema: SchemaRef },
}

impl Encoder {
    /// # Errors
    /// The schema has a type the form cannot hold.
    pub(crate) fn new(format: Format, schema: &SchemaRef) -> Result<Self, EncodeError> {
        Ok(match format {
            Format::Json | Format::Ndjson => {
                let names = unique_names(schema.fields().iter().map(|field| field.name().as_str()));
                Self::Ndjson { keys: names.iter().map(|name| object_key(name)).collect() }
            }
            // Kept back for the first batch, or for the end where there is none.
            Format::Csv => Self::Csv { header: Some(csv_header(schema)) },
            Format::Arrow => {
                let schema = with_unique_names(schema);
                Self::Arrow { writer: Box::new(StreamWriter::try_new(Vec::new(), &schema)?), schema }
            }
            Format::Parquet => {
                // Level 3 is the default of zstd itself.
                let zstd = Compression::ZSTD(ZstdLevel::try_new(3)?);
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let schema = with_unique_names(schema);
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
                Self::Parquet { writer: Box::new(writer), schema }
            }
        })
    }

    /// The bytes of the next batch; may be empty where the form collects first.
    ///
    /// # Errors
    /// The rows cannot be written in this form.
    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> Result<Bytes, EncodeError> {
        Ok(match self {
            Self::Ndjson { keys } => ndjson(batch, keys)?.into(),
            Self::Csv { header } => csv(batch, header.take().unwrap_or_default())?.into(),
            Self::Arrow { writer, schema } => {
                writer.write(&renamed(batch, schema)?)?;
                std::mem::take(writer.get_mut()).into()
            }
            Self::Parquet { writer, schema } => {
                writer.write(&renamed(batch, schema)?)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
                // Taking the bytes does not disturb the offsets of the footer: the writer counts what it has written.
                std::mem::take(writer.inner_mut()).into()
            }
        })
    }

    /// The bytes after the last batch.
    ///
    /// # Errors
    /// The end of the form cannot be written.
    pub(crate) fn finish(self) -> Result<Bytes, EncodeError> {
        Ok(match self {
            Self::Ndjson { .. } => Bytes::new(),
            Self::Csv { header } => header.unwrap_or_default().into(),
            Self::Arrow { mut writer, .. } => {
                // The end-of-stream marker of the IPC format, by which a reader distinguishes the end from a broken
                // connection.
                writer.finish()?;
                std::mem::take(writer.get_mut()).into()
            }
            // The last row group and the footer, without which the file cannot be read.
            Self::Parquet { writer, .. } => writer.into_inner()?.into(),
        })
    }
}

/// Names that are all different, so that no reader of named values loses one: `node`, `node_1`. A name that occurs once
/// stays.
pub(crate) fn unique_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let given: HashSet<&str> = names.clone().collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut unique = Vec::new();
    for name in names {
        let mut chosen = name.to_owned();
        let mut number = 0u64;
        // A number is passed over where another column has the name that it makes, also one further on.
        while taken.contains(&chosen) || number > 0 && given.contains(chosen.as_str()) {
            number += 1;
            chosen = format!("{name}_{number}");
        }
        taken.insert(chosen.clone());
        unique.push(chosen);
    }
    unique
}

fn with_unique_names(schema: &SchemaRef) -> SchemaRef {
    let names = unique_names(schema.fields().iter().map(|field| field.name().as_str()));
    let fields = schema.fields().iter().zip(names).map(|(field, name)| field.as_ref().clone().with_name(name));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// The batch with other names of columns.
fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // Arrow cannot derive the number of rows of a batch without columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
}

fn ndjson(batch: &RecordBatch, keys: &[Vec<u8>]) -> Result<Vec<u8>, ArrowError> {
    let rows = Rows::new(batch, Style::Native)?;
    let mut out = Vec::with_capacity(rows.len() * 64);
    for row in 0..rows.len() {
        rows.write_object(row, keys, &mut out);
        out.push(b'\n');
    }
    Ok(out)
}

fn csv_header(schema: &SchemaRef) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        csv_cell(field.name(), index, &mut out);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// RFC 4180: a cell with a comma, quote or line break is quoted; null is empty, an empty text is `""`. A null that is
/// alone in its row is `""` too, as most writers have it: readers pass over an empty line.
fn csv_cell(text: &str, index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

fn csv(batch: &RecordBatch, mut out: Vec<u8>) -> Result<Vec<u8>, ArrowError> {
    // A value that cannot be formatted is written as its error: otherwise `to_string` below would panic.
    let options = FormatOptions::default().with_display_error(true);
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        for (index, (formatter, array)) in columns.iter().zip(batch.columns()).enumerate() {
            if !array.is_null(row) {
                csv_cell(&formatter.value(row).to_string(), index, &mut out);
            } else if columns.len() == 1 {
                out.extend_from_slice(b"\"\"");
            } else if index > 0 {
                out.push(b',');
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
