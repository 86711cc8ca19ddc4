//! Makes the rows of silver and gold again from `bronze.messages`, beside ingest, and puts them in the place of the
//! former ones by one commit for each table (ADR 50).
//!
//! ```text
//! plan    the table's offsets ─► which messages ─► wait for bronze and ledger, pin both
//! make    day by day: ledger ─► which rows landed ─► bronze ─► decode ─► rows ─► files
//! swap    the newest head ─► files with former rows ─► carry over what is of other messages ─► one commit
//! ```
//!
//! What landed is decided by `ops.ledger` and not anew: dead letters, forwarded messages and repetitions leave the rows
//! that they left. Until the commit nothing changes; files of a run that ended before it are orphans.

mod check;
mod error;
mod former;
mod ledger;
mod make;
mod messages;
mod scope;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::commit::{ActionOutcome, Conflict, Maintenance, Remake};
use lake::{DataFile, HeadError, Lake, ReadError, TableHandle, TableSnapshot, Token};
use service_kit::run::Drain;
use tables::registry::Table;

pub use error::ReprocessError;
use former::Former;
use messages::Messages;
use scope::Scope;

/// How long bronze and ledger may take to reach the offsets of a table: each table is committed by itself.
const SETTLE_TRIES: u32 = 100;
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// How often files are looked for anew that a rewrite has replaced meanwhile. Only the few files at the beginning are
/// read and written between a look and its commit.
const SWAPS: u32 = 10;
/// How often a table that changed meanwhile is planned anew.
const PLANS: u32 = 5;
/// How often one commit is tried whose outcome was not learned.
const ATTEMPTS: u32 = 3;

/// Tables that are made again.
#[derive(Debug)]
pub struct Reprocess {
    bronze: Arc<TableSnapshot>,
    ledger: Arc<TableSnapshot>,
    targets: Vec<Target>,
}

/// A table, which of its rows are made again, and those that are made.
#[derive(Debug)]
struct Target {
    table: &'static Table,
    handle: TableHandle,
    /// The table as it was planned on.
    head: Arc<TableSnapshot>,
    /// The messages since the time that was given, below the offsets of `head`.
    messages: Messages,
    scope: Scope,
    files: Vec<DataFile>,
    made: Made,
}

/// What was made for a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Made {
    messages: u64,
    rows: u64,
}

/// What became of a table, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The table.
    pub table: String,
    /// The version of the code that makes its rows now.
    pub refine_version: u32,
    /// The versions that made the former rows; `None` stands for an unknown one.
    pub former_versions: Vec<Option<u32>>,
    /// The messages since the time that was given.
    pub ranges: Vec<OffsetRange>,
    /// Messages whose rows were made; of partial aggregates those of whole days.
    pub messages: u64,
    /// Rows that were made. Not known before of partial aggregates.
    pub rows: Option<u64>,
    /// The rows in their place before.
    pub former_rows: u64,
    /// Files that are taken away.
    pub former_files: u64,
    /// Rows of other messages in these files, which are carried over.
    pub carried_rows: u64,
    /// Files that are added; unknown before they are written.
    pub files: Option<u64>,
    /// The snapshot that was added; none when nothing was changed.
    pub snapshot: Option<i64>,
}

/// How a swap ended.
#[derive(Debug)]
enum Swapped {
    Done(Report),
    /// The table changed so that its rows have to be made anew.
    Again,
}

impl Reprocess {
    /// Finds which rows are to be made again: those of all messages that ingest has read at or after a time (unix
    /// microseconds) and that the table has landed. Tables must be refined ones ([`Table::is_refined`]); one that is not
    /// in the lake is left out.
    ///
    /// # Errors
    /// A table cannot be read or has another schema, or bronze or ledger stay behind a table.
    pub async fn plan(lake: &Lake, tables: &[&'static Table], since_us: i64) -> Result<Self, ReprocessError> {
        let mut heads = Vec::new();
        for table in tables {
            if let Some(head) = head(lake, table).await? {
                heads.push((*table, head));
            }
        }
        // After the heads, and at least as far: what a table has landed is made again from these two alone.
        let bronze = settled(lake, ("bronze", "messages"), &heads).await?;
        let ledger = settled(lake, ("ops", "ledger"), &heads).await?;
        for (table, head) in &heads {
            check::refuse_unknown_columns(table, head)?;
            check::refuse_gaps(table, head, &ledger)?;
        }
        let begins = messages::begins(&bronze, since_us).await?;
        let mut targets = Vec::new();
        for (table, head) in heads {
            let handle = lake.ensure_table(&table.def).await.map_err(|source| ReprocessError::Open {
                table: table.def.name.to_string(),
                source: Box::new(source),
            })?;
            // Below the offsets of this head: what lands later is made by the ingest that lands it.
            let messages = Messages::since(&begins, &head);
            let scope = Scope::of(table, &head, &ledger, &messages).await?;
            targets.push(Target { table, handle, head, messages, scope, files: Vec::new(), made: Made::default() });
        }
        Ok(Self { bronze, ledger, targets })
    }

    /// What would be done. Reads `ops.ledger` and the coordinates of rows, and writes nothing.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn preview(&self) -> Result<Vec<Report>, ReprocessError> {
        let mut reports = Vec::new();
        for target in &self.targets {
            let landed = scope::count(&self.ledger, target).await?;
            let former = Former::find(&target.head, target).await?;
            // Events of a day come together in fewer aggregates: how many shows only when they are made.
            let rows = target.scope.is_of_messages().then_some(landed.rows);
            let report = target.report(Made { messages: landed.messages, ..Made::default() }, &former);
            reports.push(Report { rows, files: None, ..report });
        }
        Ok(reports)
    }

    /// Makes the rows of all tables and writes their files, which nothing names yet.
    ///
    /// # Errors
    /// A message is absent from bronze, does not decode, or is not what the ledger says; or a table cannot be read or
    /// written.
    pub async fn make(&mut self) -> Result<(), ReprocessError> {
        make::make(&self.bronze, &self.ledger, &mut self.targets).await
    }

    async fn made(lake: &Lake, tables: &[&'static Table], since_us: i64) -> Result<Self, ReprocessError> {
        let mut reprocess = Self::plan(lake, tables, since_us).await?;
        reprocess.make().await?;
        Ok(reprocess)
    }

    /// Puts the rows that were made in the place of the former ones, one commit for each table. Adds what was done to
    /// `reports`. Returns the tables that changed meanwhile, by a roll back or by a rewrite of files that hold rows of
    /// later messages too: they are to be planned and made anew.
    ///
    /// # Errors
    /// A table cannot be read or written, or it is not known whether a commit has landed.
    pub async fn swap(self, reports: &mut Vec<Report>) -> Result<Vec<&'static Table>, ReprocessError> {
        let mut again = Vec::new();
        for target in self.targets {
            // One after another: an error leaves the tables before it done, and those behind it as they were.
            match target.swap().await? {
                Swapped::Done(report) => reports.push(report),
                Swapped::Again => again.push(target.table),
            }
        }
        Ok(again)
    }
}

impl Target {
    fn name(&self) -> String {
        self.table.def.name.to_string()
    }

    async fn swap(&self) -> Result<Swapped, ReprocessError> {
        for _ in 0..SWAPS {
            let head = self.newest_head().await?;
            // A column may have come since the rows were made.
            check::refuse_unknown_columns(self.table, &head)?;
            let former = Former::find(&head, self).await?;
            let carried = former.carry(&head, self).await?;
            let outputs: Vec<DataFile> = self.files.iter().cloned().chain(carried).collect();
            let mut report = self.report(self.made, &former);
            report.files = Some(outputs.len() as u64);
            // Neither before nor now any row: a commit would only add a snapshot.
            if former.is_empty() && outputs.is_empty() {
                return Ok(Swapped::Done(report));
            }
            let remake = Remake {
                // Of the look that the messages were planned by, not of this one: rows that a roll back has brought
                // back since are none of theirs.
                planned_on: self.head.sequence_number(),
                inputs: former.locations(),
                outputs,
                ranges: self.messages.ranges(),
                refine_version: self.table.refine_version,
            };
            match self.commit(remake).await? {
                Ok(snapshot) => return Ok(Swapped::Done(Report { snapshot: Some(snapshot), ..report })),
                // Rows of messages are found by their coordinates in whatever file they are now; partial aggregates are
                // not.
                Err(Conflict::FileGone { .. }) if self.scope.is_of_messages() => {}
                Err(Conflict::FileGone { .. } | Conflict::Rewritten { .. }) => return Ok(Swapped::Again),
                // Such as row-level deletes, which stay however often it is tried.
                Err(source) => return Err(ReprocessError::Refused { table: self.name(), source }),
            }
        }
        Err(ReprocessError::Contended { table: self.name() })
    }

    async fn newest_head(&self) -> Result<Arc<TableSnapshot>, ReprocessError> {
        self.handle.reader().snapshot().await.map_err(|source| self.unread(source))
    }

    fn unread(&self, source: ReadError) -> ReprocessError {
        ReprocessError::Read { table: self.name(), source }
    }

    /// The snapshot that the commit added, or why it does not fit the head.
    async fn commit(&self, remake: Remake) -> Result<Result<i64, Conflict>, ReprocessError> {
        let action = Maintenance::Remake(remake);
        // One token names all attempts, so that one whose reply was lost is found and not repeated.
        let token = Token::random();
        let table = self.name();
        let mut lost_reply = None;
        for _ in 0..ATTEMPTS {
            match self.handle.maintain(&action, token).await {
                ActionOutcome::Committed(committed) => return Ok(Ok(committed.snapshot_id)),
                ActionOutcome::Conflict(conflict) => return Ok(Err(conflict)),
                ActionOutcome::Stop(source) => return Err(ReprocessError::Stop { table, source }),
                ActionOutcome::Unknown(error) => lost_reply = Some(error),
                // Of this attempt alone: the commit of an earlier one may still be applied.
                ActionOutcome::Unreachable(error) if lost_reply.is_some() => lost_reply = Some(error),
                ActionOutcome::Unreachable(source) => return Err(ReprocessError::NotCommitted { table, source }),
            }
        }
        match lost_reply {
            Some(source) => Err(ReprocessError::Unknown { table, source }),
            None => Err(ReprocessError::Contended { table }),
        }
    }

    fn report(&self, made: Made, former: &Former) -> Report {
        let ranges = self.messages.ranges();
        let mut versions: Vec<_> =
            ranges.iter().flat_map(|range| self.head.refined(&range.at).versions(range.start, range.end)).collect();
        // Of all partitions together: each has its own steps.
        versions.sort_unstable();
        versions.dedup();
        Report {
            table: self.name(),
            refine_version: self.table.refine_version,
            former_versions: versions,
            ranges,
            messages: made.messages,
            rows: Some(made.rows),
            former_rows: former.rows,
            former_files: former.len(),
            carried_rows: former.carried_rows,
            files: None,
            snapshot: None,
        }
    }
}

/// Makes the rows of tables again and replaces them, as [`Reprocess::plan`] says. A table that changed meanwhile is
/// planned and made anew, a few times at most.
///
/// # Errors
/// As the steps; [`ReprocessError::Interrupted`] when `drain` was cancelled before the first table was to be changed.
/// `reports` has the tables that are done.
pub async fn reprocess(
    lake: &Lake,
    mut tables: Vec<&'static Table>,
    since_us: i64,
    drain: &Drain,
    reports: &mut Vec<Report>,
) -> Result<(), ReprocessError> {
    for _ in 0..PLANS {
        let made = drain.run_until_cancelled(Reprocess::made(lake, &tables, since_us)).await;
        // From here on to the end: a commit that is dropped on its way may still be applied.
        let ended = made.unwrap_or(Err(ReprocessError::Interrupted))?.swap(reports).await?;
        if ended.is_empty() {
            return Ok(());
        }
        tables = ended;
    }
    let table = tables.first().map(|table| table.def.name.to_string());
    Err(ReprocessError::Contended { table: table.unwrap_or_default() })
}

/// The head of a table with all its offsets; `None` of one that is not in the lake.
async fn head(lake: &Lake, table: &Table) -> Result<Option<Arc<TableSnapshot>>, ReprocessError> {
    let name = table.def.name;
    let reader = lake.table(name.namespace, name.name);
    // The offsets first: some that another program removed would leave messages out.
    let found = match reader.offsets().await {
        Ok(_) => reader.snapshot().await,
        Err(error) => Err(error),
    };
    match found {
        Err(ReadError::Head(HeadError::NotFound(_))) => Ok(None),
        Err(source) => Err(ReprocessError::Read { table: name.to_string(), source }),
        Ok(head) => Ok(Some(head)),
    }
}

/// A table of messages, once it holds all that the heads have landed.
async fn settled(
    lake: &Lake,
    (namespace, name): (&str, &str),
    heads: &[(&'static Table, Arc<TableSnapshot>)],
) -> Result<Arc<TableSnapshot>, ReprocessError> {
    let reader = lake.table(namespace, name);
    let mut behind = None;
    for _ in 0..SETTLE_TRIES {
        let snapshot = reader.snapshot().await;
        let snapshot =
            snapshot.map_err(|source| ReprocessError::Read { table: format!("{namespace}.{name}"), source })?;
        let offsets = snapshot.offsets();
        behind = heads.iter().find_map(|(table, head)| Some((table.def.name, beyond(&head.offsets(), &offsets)?)));
        if behind.is_none() {
            return Ok(snapshot);
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    let of = format!("{namespace}.{name}");
    match behind {
        Some((table, at)) => Err(ReprocessError::Behind { of, table: table.to_string(), at }),
        None => Err(ReprocessError::Contended { table: of }),
    }
}

/// A partition of which `next` reaches further than `other`.
fn beyond(
    next: &BTreeMap<TopicPartition, NextOffset>,
    other: &BTreeMap<TopicPartition, NextOffset>,
) -> Option<TopicPartition> {
    next.iter().find(|(at, next)| Some(*next) > other.get(at)).map(|(at, _)| at.clone())
}
