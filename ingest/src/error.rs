//! Why ingest ends.

use std::time::Duration;

use event_schema::position::TopicPartition;
use lake::{CatalogError, EnsureError};
use service_kit::run::Fatal;
use stream::kafka::KafkaError;
use tables::registry::Content;

use crate::home::HomeError;
use crate::reader::ReaderError;
use crate::recover::RecoverError;
use crate::sink::SinkError;

/// Why ingest ended.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("a table could not be created or is not ours to write")]
    Table(#[from] EnsureError),
    #[error("the tables to fill include none of {content:?}, which records where reading resumes")]
    Unlisted { content: Content },
    #[error("the table of agents' homes cannot be made in the catalog")]
    Homes(#[source] CatalogError),
    #[error("kafka cannot be written to")]
    Producer(#[source] KafkaError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("what was seen before could not be rebuilt")]
    Recover(#[from] RecoverError),
    #[error("the thread that reads the log ended without an error")]
    ReaderGone,
    #[error("the reader gave offset {offset} of {at} where {expected} was expected; start again: nothing was skipped")]
    Hole { at: TopicPartition, expected: i64, offset: i64 },
    #[error("handing a batch to the tables did not finish")]
    Dispatch(#[source] tokio::task::JoinError),
    #[error("the task of a table ended without a reason")]
    TableGone,
    #[error("not everything had landed {} s after ingest began to end: it is still in the log and lands when ingest runs again", .0.as_secs())]
    Overdue(Duration),
}

impl Fatal for IngestError {}
