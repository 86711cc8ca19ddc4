//! The forms an answer takes: JSON for people and scripts, NDJSON, CSV, Arrow and Parquet for bulk. `Accept` chooses.

pub(crate) mod json;
pub(crate) mod types;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
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

impl Format {
    /// The first media type of `Accept` that we have; JSON when anything will do. `None` when nothing asked for can be given.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Some(Self::Json);
        };
        accept.split(',').find_map(|range| {
            let media = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            match media.as_str() {
                "" | "*/*" | "application/*" => Some(Self::Json),
                "text/*" => Some(Self::Csv),
                "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
                media => MEDIA.iter().find(|(_, known)| *known == media).map(|(format, _)| *format),
            }
        })
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => MEDIA.iter().find(|(format, _)| *format == other).map_or("application/json", |(_, media)| media),
        }
    }
}

/// A row group of Parquet is held until it is written: it ends when it is this long.
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
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    /// # Errors
    /// The schema has a type the form cannot hold.
    pub(crate) fn new(format: Format, schema: &SchemaRef) -> Result<Self, EncodeError> {
        Ok(match format {
            Format::Json | Format::Ndjson => {
                Self::Ndjson { keys: schema.fields().iter().map(|field| object_key(field.name())).collect() }
            }
            Format::Csv => Self::Csv { header: Some(csv_header(schema)) },
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
            Format::Parquet => {
                let zstd = Compression::ZSTD(ZstdLevel::try_new(3)?);
                let properties = WriterProperties::builder().set_compression(zstd).build();
                Self::Parquet(Box::new(ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?))
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
            Self::Arrow(writer) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut()).into()
            }
            Self::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
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
            Self::Arrow(mut writer) => {
                writer.finish()?;
                std::mem::take(writer.get_mut()).into()
            }
            Self::Parquet(writer) => writer.into_inner()?.into(),
        })
    }
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

/// RFC 4180: a cell with a comma, quote or line break is quoted; null is empty, an empty text is `""`.
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
    let options = FormatOptions::default().with_display_error(true);
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        for (index, (formatter, array)) in columns.iter().zip(batch.columns()).enumerate() {
            if !array.is_null(row) {
                csv_cell(&formatter.value(row).to_string(), index, &mut out);
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
