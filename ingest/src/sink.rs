//! One table as an exactly-once sink: rows of a share are made, written and committed together with its offsets.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use event_schema::position::OffsetRange;
use lake::commit::{CommitError, StopReason};
use lake::{CommitOutcome, CommitRequest, DataFile, ReadError, TableHandle, Token, WriteError};
use service_kit::admin::Condition;
use tables::arrival::{Arrival, Skipped};
use tables::registry::{CommitPolicy, Table};

use crate::complete::Completer;
use crate::metrics::{Metrics, OutcomeLabel, TableLabel};
use crate::retry::Retry;
use crate::room::Room;
use crate::share::Share;
use crate::standing::Standing;

/// Why a table cannot take its share of a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
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
    #[error("{table} cannot be committed to")]
    Commit {
        table: String,
        #[source]
        source: CommitError,
    },
    #[error("the offsets of {table} cannot be read")]
    Offsets {
        table: String,
        #[source]
        source: ReadError,
    },
    #[error("{table} cannot be written to any more")]
    Stopped {
        table: String,
        #[source]
        reason: StopReason,
    },
}

/// How the offsets of a commit have landed.
enum Landed {
    ByUs,
    /// Another owner has landed them, or some of them.
    ByAnother,
}

/// Writes one table.
#[derive(Debug)]
pub(crate) struct Sink {
    table: &'static Table,
    handle: TableHandle,
    standing: Standing,
    /// Met while the table can be read and written.
    reachable: Condition,
    room: Room,
    metrics: Metrics,
    /// Where the files of the table may move to cheaper storage classes.
    completer: Option<Completer>,
}

impl Sink {
    pub(crate) fn new(
        table: &'static Table,
        handle: TableHandle,
        reachable: Condition,
        room: Room,
        metrics: Metrics,
    ) -> Self {
        reachable.met();
        let standing = Standing::new(handle.clone(), reachable.clone());
        Self { table, handle, standing, reachable, room, metrics, completer: None }
    }

    /// Has the files tagged that commits name, if those of the table may move to cheaper storage classes.
    pub(crate) fn completing(self, completer: Option<&Completer>) -> Self {
        Self { completer: completer.filter(|_| self.table.def.tiers).cloned(), ..self }
    }

    pub(crate) fn table(&self) -> &'static Table {
        self.table
    }

    pub(crate) fn policy(&self) -> CommitPolicy {
        self.table.commit
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.clone()
    }

    fn name(&self) -> String {
        self.table.def.name.to_string()
    }

    /// Lands what the table does not hold yet. Returns when it is in the table, or found to be there already. A catalog
    /// or store that is away is waited for: nothing is given up.
    pub(crate) async fn land(&self, share: &Share) -> Result<(), SinkError> {
        let mut retry = Retry::new(&self.reachable);
        let mut ranges = self.standing.missing(&share.ends);
        // A further turn only behind another owner: the rest is another batch, with files and a token of its own.
        while !ranges.is_empty() {
            let mut request = self.prepare(share, ranges).await?;
            request.properties = share.remembered.properties(&request.ranges);
            request.attachments = share.remembered.attachments(&request.ranges);
            request.gaps = self.standing.gaps(&request.ranges);
            request.refine_version = Some(self.table.refine_version);
            ranges = match self.commit(&request, &mut retry).await? {
                Landed::ByUs => Vec::new(),
                Landed::ByAnother => self.standing.missing(&share.ends),
            };
        }
        Ok(())
    }

    /// Has committed files tagged.
    fn complete(&self, files: &[DataFile]) {
        if let Some(completer) = &self.completer {
            completer.complete(files);
        }
    }

    /// Commits; a catalog or store that is away is waited for.
    async fn commit(&self, request: &CommitRequest, retry: &mut Retry<'_>) -> Result<Landed, SinkError> {
        loop {
            let started = Instant::now();
            // Every attempt has the same token and files (idempotent): a commit whose reply was lost is recognised.
            let outcome = self.handle.commit(request.clone()).await;
            self.observe(&outcome, started.elapsed());
            match outcome {
                CommitOutcome::Committed(_) => {
                    self.standing.advance(&request.ranges);
                    // Not before: a file that no commit names must not move to a class that is billed for months.
                    self.complete(&request.files);
                    return Ok(Landed::ByUs);
                }
                // Fenced: another owner has landed these offsets, or some of them. The table has moved on without us,
                // and is asked where it stands: of a partition that has nothing left to land no later commit would
                // show it.
                CommitOutcome::Trim(_) | CommitOutcome::Drop => {
                    let looked = self.standing.look_again().await;
                    looked.map_err(|source| SinkError::Offsets { table: self.name(), source })?;
                    return Ok(Landed::ByAnother);
                }
                // Waiting does not help: offsets are missing, or it is another table.
                CommitOutcome::Stop(reason) => return Err(SinkError::Stopped { table: self.name(), reason }),
                CommitOutcome::Unknown(error) | CommitOutcome::Unreachable(error) if error.is_transient() => {
                    retry.wait(&format!("committing to {}", self.name()), &error).await;
                }
                CommitOutcome::Unknown(source) | CommitOutcome::Unreachable(source) => {
                    return Err(SinkError::Commit { table: self.name(), source });
                }
            }
        }
    }

    async fn prepare(&self, share: &Share, ranges: Vec<OffsetRange>) -> Result<CommitRequest, SinkError> {
        let arrivals = within(share, &ranges);
        let mut files = Vec::new();
        for portion in self.room.portions(self.table, &arrivals) {
            // Held until the files of the portion are in the store.
            let _room = self.room.take(&portion).await;
            let rows = self.table.rows(portion.arrivals);
            let rows = rows.map_err(|source| SinkError::Rows { table: self.name(), source })?;
            files.extend(self.write(rows).await?);
        }
        let rows = self.table.skip_rows(&clip(&share.skipped, &ranges));
        let rows = rows.map_err(|source| SinkError::Rows { table: self.name(), source })?;
        files.extend(self.write(rows).await?);
        Ok(CommitRequest::new(ranges, Token::random(), files))
    }

    /// Writes the files, if there are rows; a store that is away is waited for. The rows are gone once they are
    /// encoded.
    async fn write(&self, rows: Vec<RecordBatch>) -> Result<Vec<DataFile>, SinkError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        // Encoded once: a store that is away costs uploads, not encodings.
        let encoded = self.handle.encode(rows);
        let encoded = encoded.map_err(|source| SinkError::Write { table: self.name(), source })?;
        let mut retry = Retry::new(&self.reachable);
        let files = loop {
            match self.handle.upload(encoded.clone()).await {
                Ok(files) => break files,
                Err(error) if error.is_transient() => {
                    retry.wait(&format!("writing files of {}", self.name()), &error).await;
                }
                Err(source) => return Err(SinkError::Write { table: self.name(), source }),
            }
        };
        let label = TableLabel { table: self.name() };
        self.metrics.write_seconds.get_or_create(&label).observe(started.elapsed().as_secs_f64());
        let bytes = files.iter().map(DataFile::file_size_in_bytes).sum();
        self.metrics.written_bytes.get_or_create(&label).inc_by(bytes);
        Ok(files)
    }

    fn observe(&self, outcome: &CommitOutcome, took: Duration) {
        let word = match outcome {
            CommitOutcome::Committed(_) => "committed",
            CommitOutcome::Trim(_) => "trim",
            CommitOutcome::Drop => "drop",
            CommitOutcome::Stop(_) => "stop",
            CommitOutcome::Unknown(_) => "unknown",
            CommitOutcome::Unreachable(_) => "unreachable",
        };
        self.metrics.commits.get_or_create(&OutcomeLabel { table: self.name(), outcome: word }).inc();
        self.metrics.commit_seconds.get_or_create(&TableLabel { table: self.name() }).observe(took.as_secs_f64());
    }
}

/// The arrivals of a share that lie in the ranges, by log and offset. That is the order of most tables, whose rows need
/// not be copied once more to be put in order.
fn within<'a>(share: &'a Share, ranges: &[OffsetRange]) -> Vec<&'a Arrival> {
    let mut arrivals: Vec<&Arrival> = share.arrivals.iter().map(|charged| &charged.arrival).collect();
    arrivals.retain(|Arrival { message, .. }| {
        ranges.iter().any(|range| range.at == message.at && (range.start..range.end).contains(&message.offset))
    });
    arrivals.sort_by(|a, b| a.message.at.cmp(&b.message.at).then(a.message.offset.cmp(&b.message.offset)));
    arrivals
}

/// The parts of `skipped` that lie in the ranges.
fn clip(skipped: &[Skipped], ranges: &[OffsetRange]) -> Vec<Skipped> {
    let mut clipped = Vec::new();
    for Skipped { range: skip, arrived_us } in skipped {
        // A commit has at most one range per partition.
        let Some(range) = ranges.iter().find(|range| range.at == skip.at) else { continue };
        let part = OffsetRange::new(skip.at.clone(), skip.start.max(range.start), skip.end.min(range.end));
        if !part.is_empty() {
            clipped.push(Skipped { range: part, arrived_us: *arrived_us });
        }
    }
    clipped
}

#[cfg(test)]
mod tests;
