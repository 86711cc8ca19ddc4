//! Reads what the audit needs from the tables: metadata of all, the narrow columns of some.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use event_schema::catalog::{Op, Source};
use event_schema::identity::event_id;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::commit::parse_ranges;
use lake::{ColumnRange, HeadError, Lake, ReadError, TableSnapshot, Value};
use tables::gold::op_minute::{events_of, minute_of};
use tables::ops::ledger::{DEAD_LETTER, SKIPPED};
use tables::{registry, silver};

use super::columns::Columns;
use super::laws::{Epoch, EpochEnd, Facts, Late, LedgerRow, OpMinute, RecordFacts, TableFacts, late};
use super::runs::Runs;

/// How long the tables may take to reach what the audit compares while ingest is running.
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
    #[error("{table} has rows of stream {number}, which this build does not know: audit with a newer one")]
    Stream { table: String, number: i32 },
    #[error("no table of this lake exists: nothing was ever landed")]
    Empty,
    #[error(
        "silver.events and gold.op_minute were never seen at the same messages: ingest is committing; audit again, or stop it first"
    )]
    Moving,
    #[error("{table} is ahead of ops.ledger at {at}, as after a crash: start ingest, let it catch up, and audit again")]
    Ahead { table: String, at: TopicPartition },
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
    settle(lake, &mut snapshots).await?;
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
        (facts.ledger, facts.skipped) = ledger_rows(ledger).await?;
    }
    let mut are_apart = false;
    if let (Some(events), Some(gold)) = (snapshots.get("silver.events"), snapshots.get("gold.op_minute")) {
        own_events(events, &mut facts).await?;
        if hold_the_same_messages(&facts.ledger, events, gold) {
            facts.events = events_per_minute(events, &gold.gaps()).await?;
            facts.aggregated = aggregated(gold).await?;
        } else {
            are_apart = true;
        }
    }
    facts.late = late_tables(lake, &facts.ledger).await?;
    if are_apart && facts.late.is_empty() {
        return Err(FactsError::Moving);
    }
    Ok(facts)
}

/// The tables that do not hold what the ledger has for them, also after a while: ingest commits the tables of a batch one by
/// one. A table that does not exist stands at the beginning.
async fn late_tables(lake: &Lake, ledger: &[LedgerRow]) -> Result<Vec<Late>, FactsError> {
    let mut found = Vec::new();
    for tried in 1.. {
        found.clear();
        for table in registry::all() {
            let name = table.def.name;
            let next = match lake.table(name.namespace, name.name).offsets().await {
                Err(ReadError::Head(HeadError::NotFound(_))) => BTreeMap::new(),
                offsets => offsets?,
            };
            found.extend(late(&name.to_string(), &next, ledger));
        }
        if found.is_empty() || tried >= SETTLE_TRIES {
            break;
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    Ok(found)
}

type Snapshots = BTreeMap<String, Arc<TableSnapshot>>;

/// Reads the heads of tables again until the ledger reaches all others, and the two tables of events stand at one place.
async fn settle(lake: &Lake, snapshots: &mut Snapshots) -> Result<(), FactsError> {
    for tried in 1.. {
        for (namespace, name) in [("silver", "events"), ("gold", "op_minute"), ("ops", "ledger")] {
            let snapshot = lake.table(namespace, name).snapshot().await?;
            snapshots.insert(format!("{namespace}.{name}"), snapshot);
        }
        let ledger = snapshots["ops.ledger"].offsets();
        let beyond = |s: &TableSnapshot| s.offsets().into_keys().find(|at| s.offsets().get(at) > ledger.get(at));
        let ahead = snapshots.iter().find_map(|(name, s)| Some((name, beyond(s)?)));
        let are_apart = snapshots["silver.events"].offsets() != snapshots["gold.op_minute"].offsets();
        match ahead {
            None if !are_apart || tried >= SETTLE_TRIES => break,
            Some((table, at)) if tried >= SETTLE_TRIES => {
                return Err(FactsError::Ahead { table: table.clone(), at });
            }
            _ => tokio::time::sleep(SETTLE_EVERY).await,
        }
    }
    Ok(())
}

/// What agents reported of themselves: how many such events, and the accounts at their end.
async fn own_events(snapshot: &TableSnapshot, facts: &mut Facts) -> Result<(), FactsError> {
    let own: Vec<i32> = Source::ALL.iter().filter(|s| s.is_of_agent()).map(|s| s.number()).collect();
    let bound = |n: Option<&i32>| n.copied().map(Value::Int);
    let is_own = [ColumnRange::between("source", bound(own.iter().min()), bound(own.iter().max()))];
    let names = ["node", "boot_id", "epoch", "source", "op", "arg0", "arg1", "bytes", "stream"];
    let mut batches = snapshot.scan_batches(&names, &is_own).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let (node, boot_id, epochs) = (columns.text(0)?, columns.text(1)?, columns.long(2)?);
        let (sources, ops, streams) = (columns.int(3)?, columns.int(4)?, columns.int(8)?);
        let [attempts, ring_drop, drained] = [5, 6, 7].map(|at| columns.long(at));
        let (attempts, ring_drop, drained) = (attempts?, ring_drop?, drained?);
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        for row in (0..batch.num_rows()).filter(|row| own.contains(&sources[*row])) {
            let epoch = Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: epochs[row] };
            *facts.own_events.entry(epoch.clone()).or_default() += 1;
            if Op::from_numbers(sources[row], ops[row]) == Some(Op::EpochEnd) {
                let (attempts, ring_drop) = (count(attempts[row]), count(ring_drop[row]));
                let end = EpochEnd { attempts, ring_drop, drained: count(drained[row]) };
                facts.ends.entry(epoch).or_default().insert(columns.stream(streams[row])?, end);
            }
        }
    }
    Ok(())
}

/// Between the offsets of two tables there may be messages, but none with events.
fn hold_the_same_messages(ledger: &[LedgerRow], one: &TableSnapshot, other: &TableSnapshot) -> bool {
    let (one, other) = (one.offsets(), other.offsets());
    let holds = |offsets: &BTreeMap<TopicPartition, NextOffset>, row: &LedgerRow| {
        offsets.get(&row.at).is_some_and(|next| row.offset < next.0)
    };
    let mut events =
        ledger.iter().filter(|row| row.landed > 0 && row.kind.as_deref() == Some(RecordKind::Event.name()));
    events.all(|row| holds(&one, row) == holds(&other, row))
}

/// Counts the events of all messages but those that the aggregates never got to see.
async fn events_per_minute(
    snapshot: &TableSnapshot,
    unseen: &[OffsetRange],
) -> Result<BTreeMap<OpMinute, u64>, FactsError> {
    let names = ["node", "ts", "source", "op", "sample_weight", "log_name", "log_partition", "log_offset"];
    let mut counts = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&names, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let weights = columns.float(4)?;
        let logs = columns.text(5)?;
        let partitions = columns.int(6)?;
        let offsets = columns.long(7)?;
        let is_unseen = |row: usize| {
            let is_in = |gap: &OffsetRange| {
                gap.at.partition == partitions[row]
                    && (gap.start..gap.end).contains(&offsets[row])
                    && *gap.at.topic == *logs[row]
            };
            unseen.iter().any(is_in)
        };
        count_minutes(&columns, |row| if is_unseen(row) { 0 } else { events_of(weights[row]) }, &mut counts)?;
    }
    Ok(counts)
}

async fn aggregated(snapshot: &TableSnapshot) -> Result<BTreeMap<OpMinute, u64>, FactsError> {
    let mut counts = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["node", "minute", "source", "op", "count"], &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let events = columns.long(4)?;
        count_minutes(&columns, |row| u64::try_from(events[row]).unwrap_or(0), &mut counts)?;
    }
    Ok(counts)
}

/// Adds the rows of a batch whose first columns are node, time, source and op.
fn count_minutes(
    columns: &Columns<'_>,
    events: impl Fn(usize) -> u64,
    counts: &mut BTreeMap<OpMinute, u64>,
) -> Result<(), FactsError> {
    let (node, ts, source, op) = (columns.text(0)?, columns.micros(1)?, columns.int(2)?, columns.int(3)?);
    // Few keys beside many rows: the batch is summed by borrowed keys first.
    let mut sums: HashMap<(&str, i64, i32, i32), u64> = HashMap::new();
    for row in 0..node.len() {
        let sum = sums.entry((node[row], minute_of(ts[row]), source[row], op[row])).or_default();
        *sum = sum.saturating_add(events(row));
    }
    sums.retain(|_, sum| *sum > 0);
    for ((node, minute_us, source, op), sum) in sums {
        let count = counts.entry(OpMinute { node: node.to_owned(), minute_us, source, op }).or_default();
        *count = count.saturating_add(sum);
    }
    Ok(())
}

fn table_facts(name: &str, snapshot: &TableSnapshot) -> Result<TableFacts, FactsError> {
    let history = snapshot.history();
    let ranges = |(id, _, summary): &(i64, i64, HashMap<String, String>)| {
        let Some(text) = summary.get("causeway.ranges") else { return Ok(Vec::new()) };
        parse_ranges(text).ok_or_else(|| FactsError::Ranges {
            table: name.to_owned(),
            snapshot: *id,
            text: text.clone(),
        })
    };
    let commits = history.iter().map(ranges).collect::<Result<_, _>>()?;
    // Sequence numbers count commits: fewer snapshots than that means that old ones expired.
    let commits_ever = snapshot.sequence_number();
    let is_cut = i64::try_from(history.len()).is_ok_and(|kept| kept < commits_ever);
    Ok(TableFacts { name: name.to_owned(), next: snapshot.offsets(), commits, explained: snapshot.gaps(), is_cut })
}

/// The offsets a table of messages holds.
async fn offsets(snapshot: &TableSnapshot) -> Result<BTreeMap<TopicPartition, Runs>, FactsError> {
    let mut found: BTreeMap<TopicPartition, Runs> = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["log_name", "log_partition", "log_offset"], &[]).await?;
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

/// The rows of messages, and the offsets at which the log holds none.
async fn ledger_rows(snapshot: &TableSnapshot) -> Result<(Vec<LedgerRow>, Vec<OffsetRange>), FactsError> {
    const COLUMNS: [&str; 19] = [
        "log_name",
        "log_partition",
        "log_offset",
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
        "skipped_offsets",
    ];
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    let mut batches = snapshot.scan_batches(&COLUMNS, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: snapshot.ident().to_string(), batch: &batch };
        let [topic, status, node, boot_id, kind] = [0, 3, 4, 5, 6].map(|at| columns.text(at));
        let (topic, status, node, boot_id, kind) = (topic?, status?, node?, boot_id?, kind?);
        let (partition, stream) = (columns.int(1)?, columns.int(8)?);
        let mut numbers = Vec::new();
        for at in [2, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18] {
            numbers.push(columns.long(at)?);
        }
        for row in 0..batch.num_rows() {
            let number = |at: usize| numbers[at][row];
            let count = |at: usize| u64::try_from(number(at)).unwrap_or(0);
            let at = TopicPartition::new(topic[row], partition[row]);
            if status[row] == SKIPPED {
                skipped.push(OffsetRange::new(at, number(0), number(0).saturating_add(number(11))));
                continue;
            }
            let is_dead_letter = status[row] == DEAD_LETTER;
            rows.push(LedgerRow {
                at,
                offset: number(0),
                is_dead_letter,
                kind: Some(kind[row].to_owned()).filter(|_| !is_dead_letter),
                epoch: Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: number(1) },
                stream: columns.stream(stream[row])?,
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
    Ok((rows, skipped))
}

async fn records(kind: RecordKind, snapshot: &TableSnapshot) -> Result<RecordFacts, FactsError> {
    let mut facts =
        RecordFacts { table: silver::name(kind).to_string(), kind: kind.name().to_owned(), ..RecordFacts::default() };
    let mut columns = vec!["log_name", "log_partition", "log_offset", "node", "boot_id", "seq"];
    if kind == RecordKind::Event {
        columns.push("event_id");
    }
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns { table: facts.table.clone(), batch: &batch };
        count_rows(&columns, &mut facts.rows)?;
        let node = columns.text(3)?;
        let boot_id = columns.text(4)?;
        let seq = columns.long(5)?;
        let ids = if kind == RecordKind::Event { Some(columns.text(6)?) } else { None };
        // Rows come sorted by node: the entry is looked up once per run of a node.
        let mut row = 0;
        while row < batch.num_rows() {
            let seqs = facts.seqs.entry((node[row].to_owned(), boot_id[row].to_owned())).or_default();
            let begin = row;
            while row < batch.num_rows() && (node[row], boot_id[row]) == (node[begin], boot_id[begin]) {
                seqs.add(seq[row]);
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

/// Adds the rows of each message of a batch whose first columns are log, partition and offset. Rows of one message lie mostly
/// together: the message is looked up once per run of them.
fn count_rows(
    columns: &Columns<'_>,
    rows: &mut BTreeMap<TopicPartition, BTreeMap<i64, i64>>,
) -> Result<(), FactsError> {
    let logs = columns.text(0)?;
    let partitions = columns.int(1)?;
    let offsets = columns.long(2)?;
    let mut begin = 0;
    while begin < logs.len() {
        let is_of_message = |row: &usize| {
            offsets[*row] == offsets[begin] && partitions[*row] == partitions[begin] && logs[*row] == logs[begin]
        };
        let end = (begin..logs.len()).take_while(is_of_message).last().map_or(begin, |last| last + 1);
        let at = TopicPartition::new(logs[begin], partitions[begin]);
        let count = rows.entry(at).or_default().entry(offsets[begin]).or_default();
        *count = count.saturating_add(i64::try_from(end - begin).unwrap_or(i64::MAX));
        begin = end;
    }
    Ok(())
}
