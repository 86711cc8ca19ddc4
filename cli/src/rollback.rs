//! `causeway rollback`: makes an older snapshot of a table current again. The offsets of the table go back with its rows, so that
//! ingest reads again what is taken out (ADR 32).

mod lost;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueHint};
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::commit::{ActionOutcome, CommitError, Conflict, Earlier, StopReason};
use lake::{EnsureError, HeadError, Lake, ReadError, TableSnapshot, Token};
use serde::Serialize;
use service_kit::run::{Exit, Fatal};
use stream::LogState;
use stream::kafka::KafkaError;
use stream::log::LogError;
use tables::def::TableName;
use tables::registry::{self, Table};
use tokio::task::JoinError;

use crate::output::table::TextTable;
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};
use crate::rollback::lost::Recorded;

const EXAMPLES: &str = "\
Examples:
  causeway tables silver.events
  causeway rollback silver.events 5382919283746572911 --dry-run
  causeway rollback silver.events 5382919283746572911";

/// Makes an older snapshot of a table current again; ingest reads again what is taken out
///
/// The other tables stay as they are. The log must still hold what is taken out: ingest reads it again when it starts
/// the next time. Stop ingest before: the command is refused where the table was committed to since it looked, and a
/// process that is running stops at its next commit to the table, until it is started again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RollbackArgs {
    /// Table, such as `silver.events`
    #[arg(value_hint = ValueHint::Other)]
    table: String,
    /// Snapshot to go back to, as `causeway tables TABLE` lists them
    #[arg(value_hint = ValueHint::Other)]
    snapshot: i64,
    /// Show what would be taken out, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go back although the log lacks part of it, which is lost for the table: where retention has deleted it, ingest
    /// goes on only with `ingest.on_gap = "record"`
    #[arg(long)]
    accept_gap: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Why a table did not go back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("there is no table `{name}`: `causeway tables` lists them")]
    UnknownTable { name: String },
    #[error("{table} is not in this lake: nothing has landed, or the table was dropped")]
    Absent { table: String },
    #[error("{table} cannot be read")]
    Read { table: String, source: Box<ReadError> },
    #[error("{table} cannot be opened")]
    Open { table: String, source: Box<EnsureError> },
    #[error("{table} cannot go back to snapshot {snapshot}")]
    Refused { table: String, snapshot: i64, source: Conflict },
    #[error("{table} cannot go back to snapshot {snapshot}")]
    Stop { table: String, snapshot: i64, source: StopReason },
    #[error("what the log holds of {at} cannot be found out")]
    Log { at: TopicPartition, source: Box<LogError> },
    #[error("what Kafka holds cannot be found out")]
    Kafka(#[from] KafkaError),
    #[error("what Kafka holds was not found out to the end")]
    Asking(#[from] JoinError),
    #[error(
        "the log does not hold {} any more, which would be taken out of {table} and never come back: give --accept-gap to go back \
         nevertheless",
        ranges(missing)
    )]
    NotInLog { table: String, missing: Vec<OffsetRange> },
    #[error(
        "it is not known whether {table} went back: `causeway tables {table}` shows it; the same command may be given again"
    )]
    Unknown { table: String, source: CommitError },
    #[error("{table} did not go back")]
    NotCommitted { table: String, source: CommitError },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for RollbackError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::UnknownTable { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

fn ranges(ranges: &[OffsetRange]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a roll back does, or would do.
#[derive(Debug, Serialize)]
struct Report<'a> {
    table: &'a str,
    snapshot_before: Option<i64>,
    rolled_back_to: i64,
    /// The snapshot that was added; none when nothing was changed.
    snapshot: Option<i64>,
    rows_before: Option<u64>,
    rows: Option<u64>,
    /// What is taken out, and read again.
    offsets: Vec<Taken>,
    /// What of it the log does not hold any more.
    missing: Vec<Taken>,
}

/// Offsets of one partition, half-open.
#[derive(Debug, Serialize)]
struct Taken {
    log: String,
    start: i64,
    end: i64,
}

impl Taken {
    fn of(ranges: &[OffsetRange]) -> Vec<Self> {
        let taken = ranges.iter().map(|range| Self { log: range.at.to_string(), start: range.start, end: range.end });
        taken.collect()
    }
}

/// Runs the command.
pub(crate) async fn run(args: &RollbackArgs, place: &Place) -> Result<Exit, RollbackError> {
    let table = args.table.split_once('.').and_then(|(namespace, name)| registry::find(namespace, name));
    let Some(table) = table else { return Err(RollbackError::UnknownTable { name: args.table.clone() }) };
    let lake = place.open().await?;
    let head = snapshot(&lake, table.def.name).await?;
    // All that is shown is of the one head that was read.
    let earlier = head.plan_roll_back(args.snapshot).map_err(|source| RollbackError::Refused {
        table: args.table.clone(),
        snapshot: args.snapshot,
        source,
    })?;
    let taken = taken_out(&head.offsets(), &earlier);
    let missing = missing(&lake, place, &taken).await?;
    if !missing.is_empty() && !args.accept_gap && !args.dry_run {
        return Err(RollbackError::NotInLog { table: args.table.clone(), missing });
    }
    let mut report = Report {
        table: &args.table,
        snapshot_before: head.snapshot_id(),
        rolled_back_to: args.snapshot,
        snapshot: None,
        rows_before: head.total_records(),
        rows: rows_at(&head, args.snapshot),
        offsets: Taken::of(&taken),
        missing: Taken::of(&missing),
    };
    if !args.dry_run {
        report.snapshot = Some(go_back(&lake, table, args, head.snapshot_id()).await?);
    }
    if args.json {
        output::json(&serde_json::json!(report))?
    } else {
        output::text(&as_text(&report))?
    }
    Ok(Exit::Done)
}

/// A table's head. A table that does not exist is not made.
async fn snapshot(lake: &Lake, name: TableName) -> Result<Arc<TableSnapshot>, RollbackError> {
    lake.table(name.namespace, name.name).snapshot().await.map_err(|error| match error {
        ReadError::Head(HeadError::NotFound(_)) => RollbackError::Absent { table: name.to_string() },
        source => RollbackError::Read { table: name.to_string(), source: Box::new(source) },
    })
}

/// The offsets that leave the table.
fn taken_out(now: &BTreeMap<TopicPartition, NextOffset>, earlier: &Earlier) -> Vec<OffsetRange> {
    let mut taken = Vec::new();
    for (at, next) in now {
        let start = earlier.offsets.get(at).copied().unwrap_or_default();
        if start < *next {
            taken.push(OffsetRange::new(at.clone(), start.0, next.0));
        }
    }
    taken
}

fn rows_at(table: &TableSnapshot, snapshot: i64) -> Option<u64> {
    let history = table.history();
    let past = history.iter().find(|past| past.snapshot_id == snapshot)?;
    past.summary.get("total-records")?.parse().ok()
}

/// What of these ranges ingest cannot read again.
async fn missing(lake: &Lake, place: &Place, taken: &[OffsetRange]) -> Result<Vec<OffsetRange>, RollbackError> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let bronze = match snapshot(lake, tables::bronze::messages::def().name).await {
        // Nothing says which log the table was filled from.
        Err(RollbackError::Absent { .. }) => return Ok(taken.to_vec()),
        bronze => bronze?,
    };
    let recorded = Recorded::of(&bronze, taken);
    let logs = place.logs(recorded.asked(taken)).await?;
    Ok(lost::lost(taken, &logs, &recorded))
}

/// Commits the roll back if `from` is still the current snapshot; the id of the snapshot that it added.
async fn go_back(lake: &Lake, of: &Table, args: &RollbackArgs, from: Option<i64>) -> Result<i64, RollbackError> {
    let handle = lake.ensure_table(&of.def).await;
    let handle =
        handle.map_err(|source| RollbackError::Open { table: args.table.clone(), source: Box::new(source) })?;
    // One token names all attempts, so that one whose reply was lost is found and not repeated.
    let token = Token::random();
    let table = args.table.clone();
    let snapshot = args.snapshot;
    match attempt(|| handle.roll_back(snapshot, from, token)).await {
        ActionOutcome::Committed(committed) => Ok(committed.snapshot_id),
        ActionOutcome::Conflict(source) => Err(RollbackError::Refused { table, snapshot, source }),
        ActionOutcome::Stop(source) => Err(RollbackError::Stop { table, snapshot, source }),
        ActionOutcome::Unknown(source) => Err(RollbackError::Unknown { table, source }),
        ActionOutcome::Unreachable(source) => Err(RollbackError::NotCommitted { table, source }),
    }
}

/// Tries until it is known whether the change is in the table, a few times at most.
async fn attempt<F: Future<Output = ActionOutcome>>(mut commit: impl FnMut() -> F) -> ActionOutcome {
    const ATTEMPTS: u32 = 3;
    let mut last = match commit().await {
        ActionOutcome::Unknown(error) => error,
        known => return known,
    };
    for _ in 1..ATTEMPTS {
        match commit().await {
            // `Unreachable` is of this attempt alone: the commit of an earlier one may still be applied.
            ActionOutcome::Unknown(error) | ActionOutcome::Unreachable(error) => last = error,
            known => return known,
        }
    }
    ActionOutcome::Unknown(last)
}

fn as_text(report: &Report<'_>) -> String {
    let Report { table, rolled_back_to, .. } = report;
    let mut taken = TextTable::new(["log", "from", "to", "messages"]).numbers([1, 2, 3]);
    for Taken { log, start, end } in &report.offsets {
        taken.row([log.clone(), start.to_string(), end.to_string(), (end - start).to_string()]);
    }
    let mut text = match report.snapshot {
        Some(added) => format!("{table} is as it was at snapshot {rolled_back_to}; its snapshot is {added} now\n"),
        None => format!("{table} would be as it was at snapshot {rolled_back_to}\n"),
    };
    if let Some((before, rows)) = report.rows_before.zip(report.rows) {
        text += &format!("rows: {rows}, before {before}\n");
    }
    if report.offsets.is_empty() {
        return text + "no offsets go back: nothing is read again\n";
    }
    text += "offsets that go back, which ingest reads again when it is started:\n";
    text += &taken.render();
    for Taken { log, start, end } in &report.missing {
        text += &format!("NOT in the log any more, and lost for the table: {log} from {start} to {end}\n");
    }
    text
}

impl Place {
    /// The logs behind partitions, in their order, as they are now, with the fingerprint of the message just below each
    /// offset.
    async fn logs(
        &self,
        partitions: Vec<(TopicPartition, NextOffset)>,
    ) -> Result<Vec<Option<LogState>>, RollbackError> {
        match self {
            Self::Embedded(dir) => {
                let spool = dir.existing()?.spool();
                let states = partitions.into_iter().map(|(at, next)| {
                    let state = stream::log::state(&spool, &at, next);
                    state.map_err(|source| RollbackError::Log { at, source: Box::new(source) })
                });
                states.collect()
            }
            Self::Remote(remote) => {
                let kafka = remote.kafka.clone();
                // The calls of the Kafka client block.
                Ok(tokio::task::spawn_blocking(move || stream::kafka::states(&kafka, &partitions)).await??)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lake::commit::Committed;

    use super::*;

    fn offsets(next: &[(i32, i64)]) -> BTreeMap<TopicPartition, NextOffset> {
        next.iter().map(|(partition, next)| (TopicPartition::new("t", *partition), NextOffset(*next))).collect()
    }

    #[test]
    fn what_leaves_the_table_is_what_lies_between_its_offsets() {
        let earlier = Earlier { offsets: offsets(&[(0, 3), (1, 7)]), later_gaps: Vec::new(), later_remade: Vec::new() };
        let taken = taken_out(&offsets(&[(0, 5), (1, 7), (2, 4)]), &earlier);
        assert_eq!(ranges(&taken), "t/0:3-5, t/2:0-4");
    }
    fn unknown() -> ActionOutcome {
        ActionOutcome::Unknown(CommitError::SlowStore)
    }

    fn away() -> ActionOutcome {
        ActionOutcome::Unreachable(CommitError::SlowCatalog)
    }

    /// Attempts with these outcomes, as far as they are asked for.
    async fn attempts(outcomes: impl IntoIterator<Item = ActionOutcome>) -> ActionOutcome {
        let mut outcomes = outcomes.into_iter();
        attempt(|| std::future::ready(outcomes.next().expect("no attempt more"))).await
    }

    #[tokio::test]
    async fn a_commit_that_may_have_been_applied_is_not_denied_because_the_catalog_went_away_afterwards() {
        let committed = Committed { snapshot_id: 7, sequence_number: 2, metadata_version: 2, swaps: 1 };
        let ended = attempts([unknown(), away(), away()]).await;
        assert!(matches!(ended, ActionOutcome::Unknown(CommitError::SlowCatalog)), "{ended:?}");
        let ended = attempts([unknown(), away(), ActionOutcome::Committed(committed)]).await;
        assert!(matches!(ended, ActionOutcome::Committed(_)), "{ended:?}");
        let ended = attempts([away()]).await;
        assert!(matches!(ended, ActionOutcome::Unreachable(_)), "nothing was sent before: {ended:?}");
    }
}
