//! One file: read to its end first, so that a bad one sends nothing, and then a second time to send what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use event_schema::kind::RecordKind;
use service_kit::clock::{Clock, SystemClock};
use service_kit::run::Drain;
use tables::seen::Seen;

use super::destination::{Destination, DestinationError};
use super::ingero::{Database, IngeroError, Misfit, Nodes, Read, Survey, TABLES, Table};
use super::packer::{PackError, Packed, Packer};
use super::parcel::Keys;
use super::progress::Progress;
use super::settle::{Tally, settle};
use super::snapshot::{Reading, SnapshotError};

/// Why a file was not imported, or not wholly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    #[error(transparent)]
    Ingero(#[from] IngeroError),
    #[error("{row} of table `{table}` of {} cannot be imported (--skip-bad-rows leaves such rows out)", path.display())]
    Row {
        path: PathBuf,
        table: &'static str,
        row: String,
        #[source]
        source: Misfit,
    },
    #[error("{} names no node, and has no session to name one after: name its node with --node", path.display())]
    Unnamed { path: PathBuf },
    #[error("{row} of table `{table}` of {} cannot be sent", path.display())]
    Pack {
        path: PathBuf,
        table: &'static str,
        row: String,
        #[source]
        source: PackError,
    },
    #[error(
        "{} was imported in part: {} row(s) of it had been sent when it could not be read or sent any further; import it again for the \
         rest, nothing lands twice",
        path.display(), sent
    )]
    InPart {
        path: PathBuf,
        sent: u64,
        #[source]
        source: Box<Self>,
    },
    #[error(
        "{} has the node and the session of {count} recordings that landed, and other events: name its node with --node, or \
         import it into another lake",
        path.display()
    )]
    TooManyAlike { path: PathBuf, count: u32 },
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

impl RecordingError {
    /// True when no other file can be imported either.
    pub(crate) fn ends_the_import(&self) -> bool {
        matches!(self, Self::Destination(_) | Self::Ingero(IngeroError::Snapshot(SnapshotError::Interrupted { .. })))
    }

    fn pack(path: &Path, table: &Table, row: &str, source: PackError) -> Self {
        // A message is made when a row no longer fits into it: what cannot be encoded are the rows before that one.
        let row = match source {
            PackError::Row(_) => row.to_owned(),
            PackError::Batch(_) | PackError::Encode(_) => format!("a message of the rows before {row}"),
        };
        Self::Pack { path: path.to_owned(), table: table.name, row, source }
    }
}

/// What a file is imported with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes<'a> {
    pub(crate) node: Option<&'a str>,
    pub(crate) cluster: &'a str,
    pub(crate) skip_bad_rows: bool,
}

/// Cells of a column that do not fit.
#[derive(Debug, Clone)]
pub(crate) struct Misfits {
    pub(crate) count: u64,
    /// The first: how its row is named, and what it holds.
    pub(crate) first: (String, Misfit),
}

/// By table and column.
pub(crate) type Faults = BTreeMap<(&'static str, &'static str), Misfits>;

/// What became of a file.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) path: PathBuf,
    pub(crate) schema: String,
    pub(crate) reading: Reading,
    /// No row names a node: the name was made of the content, or is the user's.
    pub(crate) is_unnamed: bool,
    /// The only node of the file.
    pub(crate) only_node: Option<String>,
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) rows: BTreeMap<&'static str, u64>,
    pub(crate) new_rows: u64,
    /// Cells that are NULL now.
    pub(crate) nulled: Faults,
    /// Rows that were left out.
    pub(crate) skipped: Faults,
    /// Rows that were left out because they may be of several nodes, by table.
    pub(crate) unplaced: BTreeMap<&'static str, u64>,
    /// Events that had landed before, compared with those of the file.
    pub(crate) tally: Tally,
    /// Sessions whose events have the keys of another recording's, and take others.
    pub(crate) alternates: usize,
}

/// A file that was read to its end and is sound.
pub(crate) struct Recording {
    database: Database,
    nodes: Nodes,
    imported: Imported,
}

fn count(faults: &mut Faults, table: &Table, row: &str, misfit: Misfit) {
    let fault = faults.entry((table.name, misfit.column));
    fault.or_insert_with(|| Misfits { count: 0, first: (row.to_owned(), misfit) }).count += 1;
}

impl Recording {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// The file is no recording, or has a row that cannot be imported.
    pub(crate) async fn survey(
        path: &Path,
        wishes: Wishes<'_>,
        progress: &mut Progress,
        drain: &Drain,
    ) -> Result<Self, RecordingError> {
        let mut database = Database::open(path, drain).await?;
        let mut survey = Survey::default();
        let (mut nulled, mut skipped) = (Faults::new(), Faults::new());
        for table in TABLES {
            let note = |read: Read| {
                progress.tick(path, "reading", table.name);
                let Read { name, row, nulled: cells } = read;
                match row {
                    Ok(row) => {
                        cells.into_iter().for_each(|misfit| count(&mut nulled, table, &name, misfit));
                        survey.note(table, &row);
                    }
                    Err(misfit) if wishes.skip_bad_rows => count(&mut skipped, table, &name, misfit),
                    Err(source) => {
                        let path = path.to_owned();
                        return Err(RecordingError::Row { path, table: table.name, row: name, source });
                    }
                }
                Ok(())
            };
            database.for_each(table, note).await?;
        }
        let Some(nodes) = survey.finish(wishes.node) else {
            return Err(RecordingError::Unnamed { path: path.to_owned() });
        };
        let imported = Imported {
            path: path.to_owned(),
            schema: database.version.clone(),
            reading: database.reading,
            is_unnamed: nodes.is_unnamed,
            only_node: nodes.only().map(str::to_owned),
            nodes: BTreeSet::new(),
            rows: BTreeMap::new(),
            new_rows: 0,
            nulled,
            skipped,
            unplaced: BTreeMap::new(),
            tally: Tally::default(),
            alternates: 0,
        };
        Ok(Self { database, nodes, imported })
    }

    /// Reads the file again, in the same transaction, and sends what is new.
    ///
    /// # Errors
    /// The file cannot be read any more, or a message cannot be sent.
    pub(crate) async fn send(
        mut self,
        wishes: Wishes<'_>,
        seen: &mut Seen,
        destination: &mut Destination,
        progress: &mut Progress,
        drain: &Drain,
    ) -> Result<Imported, RecordingError> {
        let settled = settle(&mut self.database, &self.nodes, seen, destination, drain).await?;
        self.imported.tally = settled.tally;
        self.imported.alternates = settled.alternates.len();
        let mut sender = Sender { seen, destination, sent: 0 };
        match self.send_new(wishes, Keys::new(settled.alternates), &mut sender, progress).await {
            Ok(()) => {}
            Err(error) if sender.sent > 0 && !error.ends_the_import() => {
                let (path, source) = (self.imported.path, Box::new(error));
                return Err(RecordingError::InPart { path, sent: sender.sent, source });
            }
            Err(error) => return Err(error),
        }
        self.database.close().await;
        Ok(self.imported)
    }

    async fn send_new(
        &mut self,
        wishes: Wishes<'_>,
        mut keys: Keys,
        sender: &mut Sender<'_>,
        progress: &mut Progress,
    ) -> Result<(), RecordingError> {
        let Self { database, nodes, imported } = self;
        let agent = format!("ingero schema {}", imported.schema);
        let path = imported.path.clone();
        let now_ns = SystemClock.now_ms().saturating_mul(1_000_000);
        for table in TABLES {
            let mut packer = Packer::new(table.kind, wishes.cluster, &agent);
            let failed = |row: &str, source| RecordingError::pack(&path, table, row, source);
            let pass = |read: Read| {
                progress.tick(&path, "importing", table.name);
                let Ok(row) = read.row else { return Ok(()) };
                let Some(node) = nodes.node_of(table, &row).map(str::to_owned) else {
                    *imported.unplaced.entry(table.name).or_default() += 1;
                    return Ok(());
                };
                let session = nodes.session_of_row(table, &row, &node);
                let Some(key) = keys.of(table, &row, &node, session) else { return Ok(()) };
                imported.count(table.kind, &node);
                if sender.seen.holds(&key.stream, key.seq) {
                    return Ok(());
                }
                imported.new_rows += 1;
                let time_ns = nodes.time_of(table, &row, &node).unwrap_or(now_ns);
                let ended = packer.add(table, key, row, time_ns).map_err(|source| failed(&read.name, source))?;
                ended.into_iter().try_for_each(|packed| sender.send(packed))
            };
            database.for_each(table, pass).await?;
            let rest = packer.finish().map_err(|source| failed("the last row", source))?;
            rest.into_iter().try_for_each(|packed| sender.send(packed))?;
        }
        Ok(())
    }
}

/// What takes the messages of a file.
struct Sender<'a> {
    seen: &'a mut Seen,
    destination: &'a mut Destination,
    /// Rows of the file in the messages so far.
    sent: u64,
}

impl Sender<'_> {
    /// Sends a message. Its rows count as seen from then on: those of a message that was never sent are new in the next file.
    fn send(&mut self, packed: Packed) -> Result<(), RecordingError> {
        self.destination.send(packed.kind, &packed.stream.node, &packed.message)?;
        self.sent += packed.seqs.end.abs_diff(packed.seqs.start);
        self.seen.note(packed.stream, packed.seqs.start, packed.seqs.end);
        Ok(())
    }
}

impl Imported {
    fn count(&mut self, kind: RecordKind, node: &str) {
        *self.rows.entry(kind.name()).or_default() += 1;
        if !self.nodes.contains(node) {
            self.nodes.insert(node.to_owned());
        }
    }

    /// Rows of the file that were not left out.
    pub(crate) fn all_rows(&self) -> u64 {
        self.rows.values().sum()
    }
}

#[cfg(test)]
mod tests;
