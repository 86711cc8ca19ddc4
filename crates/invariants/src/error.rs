//! Why a lake cannot be audited.

use event_schema::position::TopicPartition;
use lake::ReadError;

/// Why the facts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The catalog or the store does not answer, or a file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A snapshot's summary names offsets in a form that is not ours.
    #[error(
        "snapshot {snapshot} of {table} has the ranges `{text}`, which cannot be read: another program wrote to the table"
    )]
    Ranges {
        /// The table, as `namespace.name`.
        table: String,
        /// The snapshot's id.
        snapshot: i64,
        /// The property `causeway.ranges`.
        text: String,
    },
    /// A column has another type than the registry gives it.
    #[error("column {column} of {table} is not of the type it should have: another program made the table")]
    Column {
        /// The table, as `namespace.name`.
        table: String,
        /// The column's name.
        column: String,
    },
    /// A newer ingest has landed rows.
    #[error("{table} has rows of stream {number}, which this build does not know: audit with a newer one")]
    Stream {
        /// The table, as `namespace.name`.
        table: String,
        /// The stream's number.
        number: i32,
    },
    /// There is nothing to audit.
    #[error("no table of this lake exists: nothing was ever landed")]
    Empty,
    /// Ingest committed one of the two tables of events all the time.
    #[error(
        "silver.events and gold.op_minute were never seen at the same messages: ingest is committing; audit again, or stop it first"
    )]
    Moving,
    /// The ledger is behind, and stays there.
    #[error("{table} is ahead of ops.ledger at {at}, as after a crash: start ingest, let it catch up, and audit again")]
    Ahead {
        /// The table that is ahead.
        table: String,
        /// A partition of which it holds more.
        at: TopicPartition,
    },
}
