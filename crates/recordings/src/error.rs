//! Why a recording was not imported.

use std::path::{Path, PathBuf};

use crate::destination::DestinationError;
use crate::ingero::{IngeroError, Misfit, Table};
use crate::packer::PackError;
use crate::snapshot::SnapshotError;

/// Why a file was not imported, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file is no recording, or cannot be read.
    #[error(transparent)]
    Ingero(#[from] IngeroError),
    /// A row has a cell that does not fit, and rows are not to be left out.
    #[error("{row} of table `{table}` of {} cannot be imported (--skip-bad-rows leaves such rows out)", path.display())]
    Row {
        /// The file, as it was named.
        path: PathBuf,
        /// The table of the recording.
        table: &'static str,
        /// The row by its number in the table, from 1, and its first cell.
        row: String,
        /// The cell.
        #[source]
        source: Misfit,
    },
    /// The rows can be given to no node.
    #[error("{} names no node, and has no session to name one after: name its node with --node", path.display())]
    Unnamed {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// Rows cannot be made a message.
    #[error("{row} of table `{table}` of {} cannot be sent", path.display())]
    Pack {
        /// The file, as it was named.
        path: PathBuf,
        /// The table of the recording.
        table: &'static str,
        /// The row, or the message of the rows before it.
        row: String,
        /// What is wrong with it.
        #[source]
        source: PackError,
    },
    /// An error after the first message of the file was sent.
    #[error(
        "{} was imported in part: {} row(s) of it had been sent when it could not be read or sent any further; import it again for the \
         rest, nothing lands twice",
        path.display(), sent
    )]
    InPart {
        /// The file, as it was named.
        path: PathBuf,
        /// Rows in the messages that were sent.
        sent: u64,
        /// The error.
        #[source]
        source: Box<Self>,
    },
    /// Every alternate key of the file's events is that of another event which landed.
    #[error(
        "{} has the node and the session of {count} recordings that landed, and other events: name its node with --node, or \
         import it into another lake",
        path.display()
    )]
    TooManyAlike {
        /// The file, as it was named.
        path: PathBuf,
        /// Recordings of one node and session that are distinguished.
        count: u32,
    },
    /// The destination failed: no other file can be imported either.
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

impl RecordingError {
    /// True when the import was interrupted.
    pub fn is_interrupted(&self) -> bool {
        matches!(
            self,
            Self::Destination(DestinationError::Interrupted)
                | Self::Ingero(IngeroError::Snapshot(SnapshotError::Interrupted { .. }))
        )
    }

    /// True when no other file can be imported either.
    pub(crate) fn ends_the_import(&self) -> bool {
        // The next file would meet the same destination, or the same signal.
        matches!(self, Self::Destination(_)) || self.is_interrupted()
    }

    pub(crate) fn pack(path: &Path, table: &Table, row: &str, source: PackError) -> Self {
        // A message is encoded when the next row no longer fits into it: the fault lies in the rows before that row.
        let row = match source {
            PackError::Row(_) => row.to_owned(),
            PackError::Batch(_) | PackError::Encode(_) => format!("a message of the rows before {row}"),
        };
        Self::Pack { path: path.to_owned(), table: table.name, row, source }
    }
}
