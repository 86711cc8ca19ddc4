//! Reads what the audit needs from the tables: metadata of all, the narrow columns of some.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::identity::event_id;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::commit::parse_ranges;
use lake::{HeadError, Lake, ReadError, TableSnapshot};
use tables::ops::ledger::DEAD_LETTER;
use tables::{registry, silver};

use super::laws::{Epoch, Facts, LedgerRow, RecordFacts, TableFacts};
use super::runs::Runs;

/// How long the ledger may take to reach what the other tables hold while ingest is running.
const SETTLE_TRIES: u32 = 50;
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// Misnamed rows that are listed.
const MISNAMED_MAX: usize = 10;

/// Why the facts could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "snapshot {snapshot} of {table} has the ranges `{text}`, which cannot be read: another program wrote to the table"
    )]
    Ranges { table: String, snapshot: i64, text: String },
    #[error("column {column} of {table} is not of the type it should have: another program made the table")]
    Column { table: String, column: String },
    #[error("no table of this lake exists: nothing was ever landed")]
    Empty,
}

/// Reads all facts. The ledger is read last, and at least as far as any other table.
pub(crate) async fn read(lake: &Lake) -> Result<Facts, FactsError> {
    let mut snapshots = BTreeMap::new();
    for table in registry::all() {
        let name = table.def.name;
        match lake.table(name.namespace, name.name).snapshot().await {
            Ok(snapshot) => drop(snapshots.insert(name.to_string(), snapshot)),
            Err(ReadError::Head(HeadError::NotFound(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if snapshots.is_empty() {
        return Err(FactsError::Empty);
    }
    for _ in 0..SETTLE_TRIES {
        let ledger = lake.table("ops", "ledger").snapshot().await?;
        let is_behind =
            |s: &TableSnapshot| s.offsets().iter().any(|(at, next)| ledger.offsets().get(at).is_none_or(|n| n < next));
        let waits = snapshots.values().any(|s| is_behind(s));
        snapshots.insert("ops.ledger".to_owned(), ledger);
        if !waits {
            break;
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    let mut facts = Facts::default();
    for (name, snapshot) in &snapshots {
        facts.tables.push(table_facts(name, snapshot)?);
    }
    if let Some(bronze) = snapshots.get("bronze.messages") {
        facts.bronze = offsets(bronze).await?;
    }
    if let Some(dlq) = snapshots.get("ops.dlq") {
        facts.dead_letters = offsets(dlq).await?;
    }
    for kind in RecordKind::ALL {
        if let Some(snapshot) = snapshots.get(&silver::name(kind).to_string()) {
            facts.records.push(records(kind, snapshot).await?);
        }
    }
    if let Some(ledger) = snapshots.get("ops.ledger") {
        facts.ledger = ledger_rows(ledger).await?;
    }
    Ok(facts)
}

fn table_facts(name: &str, snapshot: &TableSnapshot) -> Result<TableFacts, FactsError> {
    let history = snapshot.history();
    let ranges_of = |key: &str, (id, _, summary): &(i64, i64, std::collections::HashMap<String, String>)| {
        let Some(text) = summary.get(key) else { return Ok(Vec::new()) };
        parse_ranges(text).ok_or_else(|| FactsError::Ranges {
            table: name.to_owned(),
            snapshot: *id,
            text: text.clone(),
        })
    };
    let mut commits = Vec::new();
    let mut explained: Vec<OffsetRange> = Vec::new();
    for entry in &history {
        commits.push(ranges_of("causeway.ranges", entry)?);
        explained.extend(ranges_of("causeway.gaps", entry)?);
    }
    // Sequence numbers count commits: fewer snapshots than that means that old ones expired.
    let commits_ever = snapshot.sequence_number();
    let is_cut = i64::try_from(history.len()).is_ok_and(|kept| kept < commits_ever);
    Ok(TableFacts { name: name.to_owned(), next: snapshot.offsets(), commits, explained, is_cut })
}

/// The offsets a table of messages holds.
async fn offsets(snapshot: &TableSnapshot) -> Result<BTreeMap<TopicPartition, Runs>, FactsError> {
    let mut found: BTreeMap<TopicPartition, Runs> = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["topic", "kafka_partition", "kafka_offset"], &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let (partitions, offsets) = (columns.int(1)?, columns.long(2)?);
        for (row, topic) in columns.text(0)?.into_iter().enumerate() {
            let at = TopicPartition::new(topic, partitions[row]);
            found.entry(at).or_default().add(offsets[row]);
        }
    }
    Ok(found)
}

async fn ledger_rows(snapshot: &TableSnapshot) -> Result<Vec<LedgerRow>, FactsError> {
    const COLUMNS: [&str; 18] = [
        "topic",
        "kafka_partition",
        "kafka_offset",
        "status",
        "node",
        "boot_id",
        "kind",
        "epoch",
        "stream",
        "first_seq",
        "rows",
        "landed_rows",
        "duplicate_rows",
        "emitted",
        "ring_drop",
        "shed",
        "sampled_out",
        "spool_drop",
    ];
    let mut rows = Vec::new();
    let mut batches = snapshot.scan_batches(&COLUMNS, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let [topic, status, node, boot_id, kind] = [0, 3, 4, 5, 6].map(|at| columns.text(at));
        let (topic, status, node, boot_id, kind) = (topic?, status?, node?, boot_id?, kind?);
        let (partition, stream) = (columns.int(1)?, columns.int(8)?);
        let mut numbers = Vec::new();
        for at in [2, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17] {
            numbers.push(columns.long(at)?);
        }
        for row in 0..batch.num_rows() {
            let number = |at: usize| numbers[at][row];
            let count = |at: usize| u64::try_from(number(at)).unwrap_or(0);
            let is_dead_letter = status[row] == DEAD_LETTER;
            rows.push(LedgerRow {
                at: TopicPartition::new(topic[row], partition[row]),
                offset: number(0),
                is_dead_letter,
                kind: Some(kind[row].to_owned()).filter(|_| !is_dead_letter),
                epoch: Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: number(1) },
                stream: stream[row],
                first_seq: number(2),
                rows: number(3),
                landed: number(4),
                duplicates: number(5),
                losses: LossCounters {
                    emitted: count(6),
                    ring_drop: count(7),
                    shed: count(8),
                    sampled_out: count(9),
                    spool_drop: count(10),
                },
            });
        }
    }
    Ok(rows)
}

async fn records(kind: RecordKind, snapshot: &TableSnapshot) -> Result<RecordFacts, FactsError> {
    let mut facts =
        RecordFacts { table: silver::name(kind).to_string(), kind: kind.name().to_owned(), ..RecordFacts::default() };
    let mut columns = vec!["kafka_partition", "kafka_offset", "node", "boot_id", "seq"];
    if kind == RecordKind::Event {
        columns.push("event_id");
    }
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: facts.table.clone(), batch: &batch };
        let (partition, offset, seq) = (columns.int(0)?, columns.long(1)?, columns.long(4)?);
        let (node, boot_id) = (columns.text(2)?, columns.text(3)?);
        let ids = if kind == RecordKind::Event { Some(columns.text(5)?) } else { None };
        // Rows come sorted by node: the entry is looked up once per run of a node.
        let mut row = 0;
        while row < batch.num_rows() {
            let seqs = facts.seqs.entry((node[row].to_owned(), boot_id[row].to_owned())).or_default();
            let begin = row;
            while row < batch.num_rows() && (node[row], boot_id[row]) == (node[begin], boot_id[begin]) {
                seqs.add(seq[row]);
                *facts.rows.entry((partition[row], offset[row])).or_default() += 1;
                row += 1;
            }
        }
        for (row, id) in ids.iter().flatten().enumerate() {
            if facts.misnamed.len() < MISNAMED_MAX && *id != event_id(node[row], boot_id[row], seq[row]) {
                facts.misnamed.push((*id).to_owned());
            }
        }
    }
    Ok(facts)
}

/// The columns of a batch by type.
struct Columns<'a> {
    table: String,
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn wrong(&self, at: usize) -> FactsError {
        FactsError::Column { table: self.table.clone(), column: self.batch.schema_ref().field(at).name().clone() }
    }

    fn int(&self, at: usize) -> Result<&'a [i32], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int32Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    fn long(&self, at: usize) -> Result<&'a [i64], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int64Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    /// Null reads as empty.
    fn text(&self, at: usize) -> Result<Vec<&'a str>, FactsError> {
        let column = self.batch.column(at).as_string_opt::<i32>().ok_or_else(|| self.wrong(at))?;
        Ok((0..column.len()).map(|row| if column.is_null(row) { "" } else { column.value(row) }).collect())
    }
}
