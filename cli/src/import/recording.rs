//! One file: read to its end first, so that a bad one sends nothing, and then a second time to send what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use event_schema::kind::RecordKind;
use service_kit::run::Drain;
use tables::seen::Seen;

use super::destination::{Destination, DestinationError};
use super::ingero::{Database, IngeroError, Misfit, Nodes, Read, Survey, TABLES, Table};
use super::packer::{PackError, Packed, Packer};
use super::parcel::Keys;
use super::progress::Progress;
use super::settle::settle;
use super::snapshot::Reading;

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
    #[error("{row} of table `{table}` of {} cannot be sent", path.display())]
    Pack {
        path: PathBuf,
        table: &'static str,
        row: String,
        #[source]
        source: PackError,
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
    ) -> Result<Self, RecordingError> {
        let mut database = Database::open(path).await?;
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
        let nodes = survey.finish(wishes.node);
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
        };
        Ok(Self { database, nodes, imported })
    }

    /// Reads the file again, in the same transaction, and sends what is new.
    ///
    /// # Errors
    /// The file cannot be read any more, or a message cannot be sent.
    pub(crate) async fn send(
        self,
        wishes: Wishes<'_>,
        seen: &mut Seen,
        destination: &mut Destination,
        progress: &mut Progress,
        drain: &Drain,
    ) -> Result<Imported, RecordingError> {
        let Self { mut database, nodes, mut imported } = self;
        let agent = format!("ingero schema {}", imported.schema);
        let path = imported.path.clone();
        let mut keys = Keys::new(settle(&mut database, &nodes, seen, destination, drain).await?);
        for table in TABLES {
            let mut packer = Packer::new(table.kind, wishes.cluster, &agent);
            let failed = |row: &str, source| RecordingError::Pack {
                path: path.clone(),
                table: table.name,
                row: row.to_owned(),
                source,
            };
            let pass = |read: Read| {
                progress.tick(&path, "importing", table.name);
                if drain.is_cancelled() {
                    return Err(DestinationError::Interrupted.into());
                }
                let Ok(row) = read.row else { return Ok(()) };
                let node = nodes.node_of(table, &row).to_owned();
                let session = nodes.session_of(&node, table.time_of(&row.cells));
                let Some(key) = keys.of(table, &row, &node, session) else { return Ok(()) };
                imported.count(table.kind, &node);
                if seen.note(key.stream.clone(), key.seq, key.seq + 1).is_empty() {
                    return Ok(());
                }
                imported.new_rows += 1;
                let time_ns = nodes.time_of(table, &row, &node);
                let packed = packer.add(table, key, row, time_ns).map_err(|source| failed(&read.name, source))?;
                packed.map_or(Ok(()), |packed| deliver(destination, &packed))
            };
            database.for_each(table, pass).await?;
            let rest = packer.finish().map_err(|source| failed("the last row", source))?;
            rest.iter().try_for_each(|packed| deliver(destination, packed))?;
        }
        database.close().await;
        Ok(imported)
    }
}

fn deliver(destination: &mut Destination, packed: &Packed) -> Result<(), RecordingError> {
    Ok(destination.send(packed.kind, &packed.node, &packed.message)?)
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
