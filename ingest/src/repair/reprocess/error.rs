//! Why rows were not made again.

use arrow::error::ArrowError;
use event_schema::position::{OffsetRange, TopicPartition};
use lake::commit::{CommitError, Conflict, StopReason};
use lake::{EnsureError, ReadError, TableSnapshot, WriteError};

use crate::repair::columns::ColumnError;
use crate::repair::letters::Coordinates;

/// Why rows were not made again. The table that it names is as it was, unless it is [`Self::Unknown`].
#[derive(Debug, thiserror::Error)]
pub enum ReprocessError {
    #[error("{table} is not made of the messages in bronze: only tables of silver and gold can be made again")]
    NotRefined { table: String },
    #[error("{table} cannot be read")]
    Read {
        table: String,
        #[source]
        source: ReadError,
    },
    #[error("{table} cannot be read")]
    Column {
        table: String,
        #[source]
        source: ColumnError,
    },
    #[error("{table} cannot be opened")]
    Open {
        table: String,
        #[source]
        source: Box<EnsureError>,
    },
    #[error(
        "{of} does not hold all that {table} has landed of {at}: start ingest, which lands it, and give the command again"
    )]
    Behind { of: String, table: String, at: TopicPartition },
    #[error(
        "{table} has columns that this version does not know: {columns}; they would be lost, so that nothing was changed: use the \
         version that ingest has"
    )]
    UnknownColumns { table: String, columns: String },
    #[error(
        "ops.ledger does not have the messages {gap}, which {table} has landed: which of their rows landed is not known, so that \
         nothing was changed"
    )]
    NotInLedger { table: String, gap: OffsetRange },
    #[error("bronze.messages cannot be read")]
    Message(#[source] ArrowError),
    #[error(
        "bronze.messages does not hold {0}, whose rows have landed: they cannot be made again; choose a later time"
    )]
    NotInBronze(Coordinates),
    #[error(
        "{message} has landed, but this version does not decode it ({cause}): {detail}; its rows would be lost, so that nothing \
         was changed"
    )]
    NotDecoded { message: Coordinates, cause: &'static str, detail: String },
    #[error(
        "{message} is not the message that ops.ledger has at its place: it holds {found}, the ledger says {expected}; nothing was \
         changed"
    )]
    Differs { message: Coordinates, found: String, expected: String },
    #[error(
        "which rows of {message} had landed before cannot be found out from ops.ledger: {found} would be new, and {landed} landed; \
         nothing was changed"
    )]
    Undecided { message: Coordinates, found: u64, landed: u64 },
    #[error("the file {file} of {table} is not of one day: which of its rows are to be made again is not known")]
    NoDay { table: String, file: String },
    #[error("interrupted: nothing was changed")]
    Interrupted,
    #[error("rows for {table} could not be made")]
    Rows {
        table: String,
        #[source]
        source: ArrowError,
    },
    #[error("files for {table} could not be written")]
    Write {
        table: String,
        #[source]
        source: WriteError,
    },
    #[error("{table} cannot be changed")]
    Refused {
        table: String,
        #[source]
        source: Conflict,
    },
    #[error("{table} cannot be changed")]
    Stop {
        table: String,
        #[source]
        source: StopReason,
    },
    #[error("{table} was not changed")]
    NotCommitted {
        table: String,
        #[source]
        source: CommitError,
    },
    #[error("it is not known whether the rows of {table} were replaced: the same command may be given again")]
    Unknown {
        table: String,
        #[source]
        source: CommitError,
    },
    #[error("other programs changed {table} each time before its rows could be replaced: give the command again")]
    Contended { table: String },
}

impl ReprocessError {
    /// Names the table that could not be read.
    pub(super) fn unread(table: &TableSnapshot) -> impl Fn(ReadError) -> Self + '_ {
        move |source| Self::Read { table: table.ident().to_string(), source }
    }

    /// Names the table that another program has changed.
    pub(super) fn misread(table: &TableSnapshot) -> impl Fn(ColumnError) -> Self + '_ {
        move |source| Self::Column { table: table.ident().to_string(), source }
    }
}
