//! The wire codec: one message is a small versioned header and one Arrow record batch, compressed once by its maker, so
//! that spool, broker and `bronze.messages` carry the same bytes.
//!
//! ```text
//! header   magic "CSWY" · version u16 · header length u16 · CRC32C of all that follows u32 · fixed fields · strings
//! body     zstd frame of: Arrow IPC dictionary batches, then one record batch (no schema message: the version is the schema)
//! ```
//!
//! Integers are little endian. `seq` is not a column: row `i` has `first_seq + i`. `boot_ns` travels as differences.
//! Versions once shipped stay readable for ever (`golden`): their rows are read as rows of the current version
//! ([`upgrade`]). Bytes are not trusted: every length is checked before it is used, and a message that does not decode
//! is a [`WireError`], never a panic.

use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::clock::Beacon;
use crate::kind::{RecordKind, WIRE_VERSION};
use crate::loss::LossCounters;
use crate::stream::Stream;

mod body;
mod header;
#[cfg(test)]
mod tests;
mod upgrade;

/// The version this build writes.
pub const VERSION: u16 = WIRE_VERSION;
/// Most rows one message may carry.
pub const ROWS_MAX: u32 = 65_536;
/// Days the rows of one message may span. Tables keep a file per day: without a limit one message could make thousands.
pub const DAYS_MAX: i64 = 400;
/// Most bytes a body may have once decompressed: it bounds the memory that a decompression bomb takes. There is no
/// bound of the ratio beside it, since an idle node's rows pack hundreds to one.
pub const RAW_BYTES_MAX: u32 = 64 << 20;
/// Most bytes an identifying string of the header may have.
pub const NAME_BYTES_MAX: usize = 256;

/// What the maker of a message states of its rows. The rest of the header follows from the rows and from their numbers,
/// see [`encode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderDraft {
    /// What the rows are.
    pub kind: RecordKind,
    /// Cluster that the node belongs to.
    pub cluster: String,
    /// Host that made the rows; at least one byte.
    pub node: String,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: String,
    /// Run of the agent within the boot, not negative.
    pub epoch: i64,
    /// The sequence that the rows' numbers are of.
    pub stream: Stream,
    /// How wall time follows from the boot time of the rows.
    pub beacon: Beacon,
    /// Since the message before of the same stream, the rows of this one included.
    pub losses: LossCounters,
    /// Name and version of the program that made the message.
    pub agent: String,
}

impl HeaderDraft {
    fn header(&self, first_seq: i64, batch: &RecordBatch) -> Result<Header, EncodeError> {
        // The decoder has the same limits: a message beyond them would be a dead letter.
        let rows = u32::try_from(batch.num_rows()).ok().filter(|n| *n <= ROWS_MAX);
        let rows = rows.ok_or(EncodeError::TooManyRows { rows: batch.num_rows() })?;
        if self.node.is_empty() {
            return Err(EncodeError::NoNode);
        }
        if self.epoch < 0 {
            return Err(EncodeError::BadField { field: "epoch", value: self.epoch });
        }
        if first_seq < 0 || first_seq.checked_add(i64::from(rows)).is_none() {
            return Err(EncodeError::BadField { field: "first_seq", value: first_seq });
        }
        let (first_boot_ns, last_boot_ns) = body::boot_ns_span(self.kind, batch)?;
        // Every field by name, so that a new one cannot be left out.
        let Self { kind, cluster, node, boot_id, epoch, stream, beacon, losses, agent } = self.clone();
        Ok(Header {
            kind,
            cluster,
            node,
            boot_id,
            epoch,
            stream,
            first_seq,
            rows,
            first_boot_ns,
            last_boot_ns,
            beacon,
            losses,
            agent,
        })
    }
}

/// What a message states of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the rows are.
    pub kind: RecordKind,
    /// Cluster that the node belongs to; may be empty.
    pub cluster: String,
    /// Host that made the rows; at least one byte.
    pub node: String,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: String,
    /// One run of the agent in the boot, not negative; later runs have greater numbers.
    pub epoch: i64,
    /// The sequence that the rows' numbers are of.
    pub stream: Stream,
    /// Sequence number of the first row.
    pub first_seq: i64,
    /// Number of rows, at most [`ROWS_MAX`].
    pub rows: u32,
    /// Smallest `boot_ns` of the rows; zero when there are none.
    pub first_boot_ns: i64,
    /// Largest `boot_ns` of the rows; zero when there are none.
    pub last_boot_ns: i64,
    /// How wall time follows from the boot time of the rows.
    pub beacon: Beacon,
    /// Since the message before of the same stream, the rows of this one included.
    pub losses: LossCounters,
    /// Name and version of the program that made the message.
    pub agent: String,
}

impl Header {
    /// What the maker of the message stated, for a message of other rows.
    pub fn draft(&self) -> HeaderDraft {
        HeaderDraft {
            kind: self.kind,
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            boot_id: self.boot_id.clone(),
            epoch: self.epoch,
            stream: self.stream,
            beacon: self.beacon,
            losses: self.losses,
            agent: self.agent.clone(),
        }
    }

    /// One past the sequence number of the last row.
    pub fn end_seq(&self) -> i64 {
        // Of a decoded header the sum is in range: `header::read` refuses others.
        self.first_seq.saturating_add(i64::from(self.rows))
    }
}

/// A decoded message.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The header, which the rows were checked against.
    pub header: Header,
    /// Rows with the kind's [`RecordKind::wire_schema`], whatever the version of the message; `boot_ns` is absolute
    /// again.
    pub batch: RecordBatch,
    /// Memory that the rows take, bytes. The columns share one buffer, which Arrow's own sum would count once per
    /// column.
    pub batch_bytes: usize,
}

/// Why a message could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("header field `node` is empty: a message names the host that made its rows")]
    NoNode,
    #[error("header field `{field}` would hold {value}, which is not allowed")]
    BadField { field: &'static str, value: i64 },
    #[error("header field `{field}` has {bytes} bytes, more than the {NAME_BYTES_MAX} allowed")]
    NameTooLong { field: &'static str, bytes: usize },
    #[error("a batch of {rows} rows is more than the {ROWS_MAX} one message may carry")]
    TooManyRows { rows: usize },
    #[error("a body of {bytes} bytes is more than the {RAW_BYTES_MAX} one message may carry")]
    BodyTooLarge { bytes: usize },
    #[error("the batch spans {days} days, more than the {DAYS_MAX} one message may")]
    TooLong { days: i64 },
    #[error("the batch does not have the schema of a `{}` message", kind.name())]
    WrongSchema { kind: RecordKind },
    #[error("the batch could not be written as Arrow IPC")]
    Arrow(#[source] arrow::error::ArrowError),
    #[error("the body could not be compressed")]
    Compress(#[source] std::io::Error),
}

/// Why a message could not be read. The name of the variant is the `cause` of its dead letter.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the message ends after {bytes} bytes, inside its {part}")]
    Truncated { part: &'static str, bytes: usize },
    #[error("the message does not begin with the bytes of a Causeway message")]
    BadMagic,
    #[error("wire version {version} is not known; this build reads versions up to {VERSION}")]
    UnknownVersion { version: u16 },
    #[error("the CRC32C is {found:#010x}, the header says {stated:#010x}: the message is damaged")]
    BadChecksum { stated: u32, found: u32 },
    #[error("header field `{field}` holds {value}, which is not allowed")]
    BadField { field: &'static str, value: i64 },
    #[error("header field `{field}` is not UTF-8 text of at most {NAME_BYTES_MAX} bytes")]
    BadName { field: &'static str },
    #[error("the body could not be decompressed to the {raw_bytes} bytes the header states")]
    Decompress {
        raw_bytes: u32,
        #[source]
        source: std::io::Error,
    },
    #[error("the body is not the Arrow batch the header announces: {what}")]
    BadBody { what: &'static str },
    #[error("the body is not valid Arrow data")]
    Arrow(#[source] arrow::error::ArrowError),
}

impl WireError {
    /// A short, stable word for counters and the dead-letter table.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::BadMagic => "bad_magic",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::BadChecksum { .. } => "bad_checksum",
            Self::BadField { .. } => "bad_field",
            Self::BadName { .. } => "bad_name",
            Self::Decompress { .. } => "decompress",
            Self::BadBody { .. } => "bad_body",
            Self::Arrow(_) => "arrow",
        }
    }
}

/// Whole days between two times.
fn span_days(first_ns: i64, last_ns: i64) -> i64 {
    // Saturating, because the header is read before it is compared with the rows. Negative where it is wrong, which
    // that comparison refuses.
    last_ns.saturating_sub(first_ns) / (24 * 3_600 * 1_000_000_000)
}

/// Makes a message of the rows of a batch, the first of which has the sequence number `first_seq`. The number of rows
/// and the span of their times are taken from the batch.
///
/// # Errors
/// When the batch does not have the kind's schema, a limit is passed, or a field holds what the decoder would refuse.
pub fn encode(draft: &HeaderDraft, first_seq: i64, batch: &RecordBatch) -> Result<Bytes, EncodeError> {
    let header = draft.header(first_seq, batch)?;
    // Before the costly part, and here rather than in the centre: the maker can still cut its rows, and a dead letter
    // cannot be mended.
    let days = span_days(header.first_boot_ns, header.last_boot_ns);
    if days > DAYS_MAX {
        return Err(EncodeError::TooLong { days });
    }
    let raw = body::write(&header, VERSION, batch)?;
    pack(&header, VERSION, &raw)
}

fn pack(header: &Header, version: u16, raw: &[u8]) -> Result<Bytes, EncodeError> {
    let raw_bytes = u32::try_from(raw.len()).ok().filter(|n| *n <= RAW_BYTES_MAX);
    let raw_bytes = raw_bytes.ok_or(EncodeError::BodyTooLarge { bytes: raw.len() })?;
    // Level 1, the fastest of the standard levels: the agent shares its CPUs with the job that it observes.
    let packed = zstd::bulk::compress(raw, 1).map_err(EncodeError::Compress)?;
    header::write(header, version, &packed, raw_bytes)
}

/// Whether bytes begin as a message of this format does.
pub fn has_magic(message: &[u8]) -> bool {
    message.starts_with(header::MAGIC)
}

/// Reads the header only, after checking the CRC of the whole message.
///
/// # Errors
/// See [`WireError`].
pub fn peek(message: &[u8]) -> Result<Header, WireError> {
    header::read(message).map(|(header, _)| header)
}

/// Reads a whole message.
///
/// # Errors
/// See [`WireError`].
pub fn decode(message: &[u8]) -> Result<Decoded, WireError> {
    let (header, frame) = header::read(message)?;
    let raw = frame.unpack()?;
    // Noted before the buffer is given away: the columns stay slices of it (zero-copy), so that it is what they take.
    let raw_bytes = raw.len();
    // By the schema of the message's own version; only rows that passed are brought to the current one.
    let batch = body::read(&header, frame.version(), raw)?;
    let upgraded = upgrade::upgrade(header.kind, frame.version(), batch).map_err(WireError::Arrow)?;
    Ok(upgraded.decoded(header, raw_bytes))
}
