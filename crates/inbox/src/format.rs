//! What objects hold, recognised by their first bytes and never by their names: users rename files.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::wire;
use recordings::{DestinationError, RecordingError, Target};
use service_kit::run::printable;
use stream::kafka::MAX_MESSAGE_BYTES;
use stream::log::{CarriedError, CarriedSegment, is_segment};

use crate::event::EventRow;
use crate::packer::{PackError, Packed, Packer};

pub(crate) mod columns;
pub(crate) mod lines;

/// Bytes by which a format is recognised.
pub(crate) const BEGINNING: usize = 16;
/// Largest message with its key. The headers of its batch and record are part of what a topic limits: 61 and about 20
/// bytes (Kafka documentation, "Record Batch" and "Record").
const MESSAGE_BYTES_MAX: usize = MAX_MESSAGE_BYTES - 128;
/// Bytes that decoders read ahead.
const BUFFER_BYTES: usize = 256 << 10;
/// Largest window of a zstd frame, as a power of two: 128 MiB, what `zstd -19 --long` writes (RFC 8878, section
/// 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why an object cannot be landed, whatever is done about bucket, queue or log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    #[error("the object is empty")]
    Empty,
    #[error(
        "the object begins with {beginning}, and is no segment of a spool, Parquet file, SQLite database, gzip or zstd frame, or \
         JSON lines"
    )]
    Unknown { beginning: String },
    #[error("the compressed object holds a {what}, which cannot be read as a stream: drop it without the compression")]
    Nested { what: &'static str },
    #[error("the object cannot be read to its end as {what}: it is damaged or was cut off")]
    Read {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Segment(#[from] CarriedError),
    #[error("line {number}: {what}")]
    Line { number: u64, what: String },
    #[error("the Parquet file cannot be read")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("the Parquet file is damaged in a way that its reader does not expect")]
    ParquetPanic,
    #[error("the Parquet file: {what}")]
    Columns { what: String },
    #[error("row {number} of the Parquet file: {what}")]
    Row { number: u64, what: String },
    #[error(
        "the object has {bytes} bytes, more than `bulk.temporary_limit` ({limit} bytes) allows: raise it, or split the file"
    )]
    TooLarge { bytes: u64, limit: u64 },
    #[error(
        "a message of the object has {bytes} bytes with its key, more than the {MESSAGE_BYTES_MAX} that Kafka takes"
    )]
    Message { bytes: usize },
    #[error("rows of the object cannot be made a message")]
    Pack(#[from] PackError),
    #[error("the database cannot be imported")]
    Recording(#[source] Box<RecordingError>),
    /// The log failed; nothing is wrong with the object.
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

impl FormatError {
    /// A short, stable word for counters, tags and dead letters.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Unknown { .. } => "unknown_format",
            Self::Nested { .. } => "nested",
            Self::Read { .. } => "damaged",
            Self::Segment(_) => "bad_segment",
            Self::Line { .. } => "bad_line",
            Self::Parquet(_) | Self::ParquetPanic => "bad_parquet",
            Self::Columns { .. } | Self::Row { .. } => "bad_columns",
            Self::TooLarge { .. } => "too_large",
            Self::Message { .. } => "message_too_large",
            Self::Pack(_) => "bad_rows",
            Self::Recording(_) => "bad_recording",
            Self::Destination(_) => "log",
        }
    }
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Read as a stream of bytes.
    Stream(Stream),
    /// Events with the columns of `silver.events`.
    Parquet,
    /// A database of the reference tracer.
    Database,
}

/// A format that is read from its first byte to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Segment,
    Lines,
    Gzip,
    Zstd,
}

impl Format {
    /// # Errors
    /// The object is empty, or of no format that is known.
    pub(crate) fn of(beginning: &[u8]) -> Result<Self, FormatError> {
        match beginning {
            [] => Err(FormatError::Empty),
            bytes if is_segment(bytes) => Ok(Self::Stream(Stream::Segment)),
            // RFC 1952, section 2.3.1; RFC 8878, section 3.1.1.
            [0x1f, 0x8b, ..] => Ok(Self::Stream(Stream::Gzip)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Stream(Stream::Zstd)),
            // sqlite.org/fileformat.html, section 1.3.1.
            bytes if bytes.starts_with(b"SQLite format 3\0") => Ok(Self::Database),
            bytes if bytes.starts_with(b"PAR1") => Ok(Self::Parquet),
            bytes if bytes.trim_ascii_start().starts_with(b"{") => Ok(Self::Stream(Stream::Lines)),
            bytes => {
                let beginning = printable(&String::from_utf8_lossy(bytes)).into_owned();
                Err(FormatError::Unknown { beginning: format!("{beginning:?}") })
            }
        }
    }
}

/// Takes what an object holds. In the first reading it makes every message and sends none, so that a bad object changes
/// nothing.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    packer: Packer,
    target: Option<&'a mut Target>,
    /// Rows so far.
    pub(crate) rows: u64,
}

impl<'a> Output<'a> {
    pub(crate) fn new(packer: Packer, target: Option<&'a mut Target>) -> Self {
        Self { packer, target, rows: 0 }
    }

    pub(crate) fn event(&mut self, row: &EventRow) -> Result<(), FormatError> {
        self.rows += 1;
        let ended = self.packer.add(row)?;
        self.send(ended)
    }

    /// Checked in the first reading too: Kafka refuses such a message for good, and with it the objects that land
    /// together.
    fn message(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), FormatError> {
        let bytes = node.len() + message.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(FormatError::Message { bytes });
        }
        match &mut self.target {
            Some(target) => Ok(target.send(kind, node, message)?),
            None => Ok(()),
        }
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) -> Result<u64, FormatError> {
        let rest = self.packer.finish()?;
        self.send(rest)?;
        Ok(self.rows)
    }

    fn send(&mut self, messages: Vec<Packed>) -> Result<(), FormatError> {
        for Packed { node, message } in messages {
            self.message(RecordKind::Event, &node, &message)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Reads an object to its end.
    pub(crate) fn read(self, object: impl Read, output: &mut Output<'_>) -> Result<(), FormatError> {
        match self {
            Self::Segment => segment(BufReader::with_capacity(BUFFER_BYTES, object), output),
            Self::Lines => lines::read(BufReader::with_capacity(BUFFER_BYTES, object), "JSON lines", output),
            // A file may be several members (RFC 1952, section 2.2): `cat a.gz b.gz` is one.
            Self::Gzip => unpacked(flate2::read::MultiGzDecoder::new(object), "gzip", output),
            Self::Zstd => {
                let decoder = zstd_decoder(object).map_err(|source| FormatError::Read { what: "zstd", source })?;
                unpacked(decoder, "zstd", output)
            }
        }
    }
}

fn zstd_decoder<R: Read>(object: R) -> io::Result<zstd::stream::read::Decoder<'static, BufReader<R>>> {
    let mut decoder = zstd::stream::read::Decoder::new(object)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// What is inside of a compressed object: anything that is read as a stream, and is not compressed again.
fn unpacked(mut object: impl Read, what: &'static str, output: &mut Output<'_>) -> Result<(), FormatError> {
    let mut beginning = Vec::new();
    let read = object.by_ref().take(BEGINNING as u64).read_to_end(&mut beginning);
    read.map_err(|source| FormatError::Read { what, source })?;
    let format = Format::of(&beginning)?;
    let object = Cursor::new(beginning).chain(BufReader::with_capacity(BUFFER_BYTES, object));
    match format {
        Format::Stream(Stream::Segment) => segment(object, output),
        Format::Stream(Stream::Lines) => lines::read(object, what, output),
        Format::Stream(Stream::Gzip | Stream::Zstd) => Err(FormatError::Nested { what: "compressed file" }),
        Format::Parquet => Err(FormatError::Nested { what: "Parquet file" }),
        Format::Database => Err(FormatError::Nested { what: "SQLite database" }),
    }
}

/// The messages of a segment go into the log as they are: they have identities of their own.
fn segment(object: impl BufRead, output: &mut Output<'_>) -> Result<(), FormatError> {
    let mut records = CarriedSegment::open(object)?;
    while let Some(record) = records.next_record()? {
        // What does not decode is for ingest to judge, as of any agent: it becomes a dead letter there.
        let found = wire::peek(&record.payload).ok();
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        let node = match (&found, &key) {
            (Some(header), _) => header.node.as_str(),
            (None, Some(key)) => &**key,
            (None, None) => "",
        };
        let kind = found.as_ref().map_or(RecordKind::Event, |header| header.kind);
        let rows = found.as_ref().map_or(0, |header| u64::from(header.rows));
        output.rows += rows;
        // A message that some agent made.
        output.message(kind, node, &record.payload)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
