//! Where imported messages go.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use lake::ReadError;
use service_kit::run::Drain;
use stream::kafka::{KafkaError, Rejection};
use tables::seen::Seen;

use crate::compare::{Landed, Sample};

/// Why messages could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The drain ended the import.
    #[error(
        "interrupted: what was sent lands with the next `causeway up` or import; import again for the rest, nothing lands twice"
    )]
    Interrupted,
    /// What has landed cannot be read.
    #[error("the lake cannot be read")]
    Read(#[from] ReadError),
    /// Kafka could not be reached, or refused a message for now.
    #[error("kafka cannot be written")]
    Kafka(#[from] KafkaError),
    /// Kafka refused a message for good.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Kafka did not answer.
    #[error("kafka did not acknowledge {missing} messages within {seconds} s{}: import again, nothing lands twice", reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Unacknowledged {
        /// Messages without an acknowledgement.
        missing: usize,
        /// How long the next acknowledgement was waited for, seconds.
        seconds: u64,
        /// The last error of the client, if it had one.
        reason: Option<String>,
    },
    /// An error of another destination.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// Takes messages in order.
#[async_trait]
pub trait Destination: fmt::Debug + Send {
    /// The rows of recordings that have landed; empty where they cannot be read. Ingest then drops repetitions.
    ///
    /// # Errors
    /// The lake cannot be read.
    async fn landed(&mut self) -> Result<Seen, DestinationError>;

    /// Takes a message with rows of a kind, keyed by the node.
    ///
    /// # Errors
    /// There is no room for it, or the destination failed.
    fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError>;

    /// Returns once what was sent so far can be read, where the destination can be read at all.
    ///
    /// # Errors
    /// The destination failed, or the drain ended the import.
    async fn land(&mut self, drain: &Drain) -> Result<(), DestinationError>;

    /// What the events that landed under the keys of a sample hold; [`Landed::unknown`] where that cannot be read.
    ///
    /// # Errors
    /// The lake cannot be read.
    async fn landed_events(&mut self, sample: &Sample) -> Result<Landed, DestinationError>;

    /// Makes what was sent so far durable and visible to readers, for an import that ends early.
    ///
    /// # Errors
    /// The destination failed.
    fn keep(&mut self) -> Result<(), DestinationError>;

    /// Returns once everything that was sent has arrived: it is landed, or acknowledged where landing cannot be seen.
    ///
    /// # Errors
    /// The destination failed, or the drain ended the import.
    async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError>;
}

/// A destination, and the rows that it has.
#[derive(Debug)]
pub struct Target {
    pub(crate) destination: Box<dyn Destination>,
    /// What landed before, or was sent by this import.
    pub(crate) seen: Seen,
    /// Whether `seen` has what landed before.
    is_read: bool,
}

impl Target {
    /// Reads what has landed at the destination.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn open(mut destination: Box<dyn Destination>) -> Result<Self, DestinationError> {
        // Once per import and not per file: `send` keeps it up to date. Another import meanwhile is kept out by the
        // destination, or ingest drops what both send.
        let seen = destination.landed().await?;
        Ok(Self { destination, seen, is_read: true })
    }

    /// Over a destination of which nothing is read before the first recording is sent.
    pub fn unread(destination: Box<dyn Destination>) -> Self {
        Self { destination, seen: Seen::new(), is_read: false }
    }

    /// Reads what has landed, unless that was done.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn read_landed(&mut self) -> Result<(), DestinationError> {
        if !self.is_read {
            self.seen = self.destination.landed().await?;
            self.is_read = true;
        }
        Ok(())
    }

    /// As [`Destination::send`], whether or not the rows have landed.
    ///
    /// # Errors
    /// There is no room for it, or the destination failed.
    pub fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        self.destination.send(kind, node, message)
    }

    /// As [`Destination::keep`].
    ///
    /// # Errors
    /// The destination failed.
    pub fn keep(&mut self) -> Result<(), DestinationError> {
        self.destination.keep()
    }

    /// As [`Destination::finish`].
    ///
    /// # Errors
    /// The destination failed, or the drain ended the import.
    pub async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        self.destination.finish(drain).await
    }
}
