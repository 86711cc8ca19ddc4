//! One file: read to its end first, so that a bad one sends nothing, and then a second time to send what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use service_kit::clock::{Clock, SystemClock};
use service_kit::run::Drain;

use crate::compare::Tally;
use crate::destination::Target;
use crate::error::RecordingError;
use crate::imported::{Faults, Imported, count_fault};
use crate::ingero::{Database, Nodes, Read, Survey, TABLES, Table};
use crate::keys::Keys;
use crate::packer::{Packed, Packer};
use crate::progress::{Progress, Step};
use crate::settle::settle;

/// How a file is imported.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The node of a recording that names none itself; `None`: a name made of its content. At most 256 bytes.
    pub node: Option<&'a str>,
    /// The cluster that its nodes belong to. At most 256 bytes.
    pub cluster: &'a str,
    /// Leave out rows that cannot be imported, and count them, instead of refusing the file.
    pub skip_bad_rows: bool,
}

/// A file that was read to its end and is sound. Its transaction is open: the file is read a second time as it stood.
#[derive(Debug)]
pub struct Recording {
    database: Database,
    nodes: Nodes,
    cluster: String,
    imported: Imported,
}

/// What the first reading finds.
#[derive(Default)]
struct Found {
    survey: Survey,
    nulled: Faults,
    skipped: Faults,
}

impl Found {
    /// Records a row. One that does not fit is counted where rows may be left out.
    fn note(&mut self, path: &Path, table: &'static Table, read: Read, skip: bool) -> Result<(), RecordingError> {
        let Read { name, row, nulled } = read;
        match row {
            Ok(row) => {
                for misfit in nulled {
                    count_fault(&mut self.nulled, table, &name, misfit);
                }
                self.survey.note(table, &row);
            }
            Err(misfit) if skip => count_fault(&mut self.skipped, table, &name, misfit),
            Err(source) => {
                let path = path.to_owned();
                return Err(RecordingError::Row { path, table: table.name, row: name, source });
            }
        }
        Ok(())
    }
}

impl Recording {
    /// Reads a file to its end. Blocks no thread; `drain` ends it early.
    ///
    /// # Errors
    /// The file is no recording, has a row that cannot be imported, or the drain ended the import.
    pub async fn survey(
        path: &Path,
        options: Options<'_>,
        progress: &mut dyn Progress,
        drain: &Drain,
    ) -> Result<Self, RecordingError> {
        let mut database = Database::open(path, drain).await?;
        let mut found = Found::default();
        for table in TABLES {
            database
                .for_each(table, |read| {
                    progress.row(path, Step::Reading, table.name);
                    found.note(path, table, read, options.skip_bad_rows)
                })
                .await?;
        }
        // After the last row only: a row of the first table may belong to a node that the last table names.
        let Some(nodes) = found.survey.finish(options.node) else {
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
            nulled: found.nulled,
            skipped: found.skipped,
            unplaced: BTreeMap::new(),
            tally: Tally::default(),
            alternates: 0,
        };
        Ok(Self { database, nodes, cluster: options.cluster.to_owned(), imported })
    }

    /// Reads the file again, in the same transaction, and sends what is new. What was sent has not arrived before
    /// [`Target::finish`] returns.
    ///
    /// # Errors
    /// The file cannot be read any more, a message cannot be sent, or the drain ended the import.
    pub async fn send(
        mut self,
        target: &mut Target,
        progress: &mut dyn Progress,
        drain: &Drain,
    ) -> Result<Imported, RecordingError> {
        target.read_landed().await?;
        // Before the first message: an event that was sent under a key of another host's event would be dropped as a
        // repetition.
        let settled = settle(&mut self.database, &self.nodes, target, drain).await?;
        self.imported.tally = settled.tally;
        self.imported.alternates = settled.alternates.len();
        let mut pass = SecondPass {
            nodes: &self.nodes,
            keys: Keys::new(settled.alternates),
            imported: &mut self.imported,
            target,
            sent: 0,
            now_ns: SystemClock.now_ms().saturating_mul(1_000_000),
        };
        let sent = pass.all(&mut self.database, &self.cluster, progress).await;
        let sent_rows = pass.sent;
        match sent {
            Ok(()) => {}
            // What was sent lands (at-least-once, deduplicated by key): the error reports it, and that a second import
            // is safe.
            Err(error) if sent_rows > 0 && !error.ends_the_import() => {
                let path = self.imported.path;
                return Err(RecordingError::InPart { path, sent: sent_rows, source: Box::new(error) });
            }
            Err(error) => return Err(error),
        }
        self.database.close().await;
        Ok(self.imported)
    }
}

/// The second reading of a file.
struct SecondPass<'a> {
    nodes: &'a Nodes,
    keys: Keys,
    imported: &'a mut Imported,
    target: &'a mut Target,
    /// Rows of the file in the messages so far.
    sent: u64,
    /// When it began, unix nanoseconds: the time of rows in a file that has no time.
    now_ns: i64,
}

impl SecondPass<'_> {
    async fn all(
        &mut self,
        database: &mut Database,
        cluster: &str,
        progress: &mut dyn Progress,
    ) -> Result<(), RecordingError> {
        let agent = format!("ingero schema {}", self.imported.schema);
        let path = self.imported.path.clone();
        for table in TABLES {
            let mut packer = Packer::new(table.kind, cluster, &agent);
            database
                .for_each(table, |read| {
                    progress.row(&path, Step::Importing, table.name);
                    self.row(table, &mut packer, read)
                })
                .await?;
            // A message holds rows of one kind: none stays open from one table to the next.
            let rest = packer.finish().map_err(|source| RecordingError::pack(&path, table, "the last row", source))?;
            self.send(rest)?;
        }
        Ok(())
    }

    /// Adds a row to its message if it is new, and sends the messages that it ended.
    fn row(&mut self, table: &Table, packer: &mut Packer<'_>, read: Read) -> Result<(), RecordingError> {
        // The first reading has counted it as skipped, or has refused the file.
        let Ok(row) = read.row else { return Ok(()) };
        let Some(node) = self.nodes.node_of(table, &row).map(str::to_owned) else {
            *self.imported.unplaced.entry(table.name).or_default() += 1;
            return Ok(());
        };
        let session = self.nodes.session_of_row(table, &row, &node);
        // Also for a row that has landed: the key of an equal row depends on how many came before it.
        let Some(key) = self.keys.of(table, &row, &node, session) else { return Ok(()) };
        self.imported.count(table.kind, &node);
        // Deduplication before sending: ingest would drop the row too, but only after it was written to the log.
        if self.target.seen.holds(&key.stream, key.seq) {
            return Ok(());
        }
        self.imported.new_rows += 1;
        let time_ns = self.nodes.time_of(table, &row, &node).unwrap_or(self.now_ns);
        match packer.add(table, key, row, time_ns) {
            Ok(ended) => self.send(ended),
            Err(source) => Err(RecordingError::pack(&self.imported.path, table, &read.name, source)),
        }
    }

    /// Sends messages. Their rows count as seen from then on. Rows of a message that was not sent are new in the next
    /// file.
    fn send(&mut self, messages: Vec<Packed>) -> Result<(), RecordingError> {
        for Packed { kind, stream, seqs, message } in messages {
            // Sent first, then noted: a message that failed must not hide its rows from the next file.
            self.target.destination.send(kind, &stream.node, &message)?;
            // Sequence numbers of a message are consecutive, so their span is its number of rows.
            self.sent += seqs.end.abs_diff(seqs.start);
            self.target.seen.note(stream, seqs.start, seqs.end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
