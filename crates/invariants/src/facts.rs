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

use crate::columns::Columns;
use crate::error::FactsError;
use crate::laws::{Epoch, EpochEnd, Facts, Late, LedgerRow, OpMinute, RecordFacts, TableFacts, is_in_any, late};
use crate::runs::Runs;

/// How long the tables may take to reach what the audit compares while ingest is running.
const SETTLE_TRIES: u32 = 50;
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// Misnamed rows that are listed.
const MISNAMED_MAX: usize = 10;

/// Reads all facts of a lake. The ledger is read last, and at least as far as any other table. The facts take memory by the number
/// of messages that the tables hold.
///
/// # Errors
/// The lake cannot be read, another program has written to it, or its tables change while they are read.
pub async fn read(lake: &Lake) -> Result<Facts, FactsError> {
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
    if let Some(events) = snapshots.get("silver.events")
        && let Some(gold) = snapshots.get("gold.op_minute")
    {
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
        let ahead = snapshots.iter().find_map(|(name, snapshot)| Some((name, beyond(snapshot, &ledger)?)));
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

/// A partition of which a table holds more than the ledger does.
fn beyond(snapshot: &TableSnapshot, ledger: &BTreeMap<TopicPartition, NextOffset>) -> Option<TopicPartition> {
    snapshot.offsets().into_iter().find(|(at, next)| Some(next) > ledger.get(at)).map(|(at, _)| at)
}

/// A counter, which the tables hold as a signed number.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What agents reported of themselves: how many such events, and the accounts at their end.
async fn own_events(snapshot: &TableSnapshot, facts: &mut Facts) -> Result<(), FactsError> {
    let own: Vec<i32> = Source::ALL.iter().filter(|s| s.is_of_agent()).map(|s| s.number()).collect();
    let first = own.iter().min().copied().map(Value::Int);
    let last = own.iter().max().copied().map(Value::Int);
    let is_own = [ColumnRange::between("source", first, last)];
    let names = ["node", "boot_id", "epoch", "source", "op", "arg0", "arg1", "bytes", "stream"];
    let table = snapshot.ident().to_string();
    let mut batches = snapshot.scan_batches(&names, &is_own).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let node = columns.text(0)?;
        let boot_id = columns.text(1)?;
        let epochs = columns.long(2)?;
        let sources = columns.int(3)?;
        let ops = columns.int(4)?;
        let attempts = columns.long(5)?;
        let ring_drop = columns.long(6)?;
        let drained = columns.long(7)?;
        let streams = columns.int(8)?;
        for row in (0..columns.rows()).filter(|row| own.contains(&sources[*row])) {
            let epoch = Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: epochs[row] };
            *facts.own_events.entry(epoch.clone()).or_default() += 1;
            if Op::from_numbers(sources[row], ops[row]) == Some(Op::EpochEnd) {
                let end = EpochEnd {
                    attempts: count(attempts[row]),
                    ring_drop: count(ring_drop[row]),
                    drained: count(drained[row]),
                };
                facts.ends.entry(epoch).or_default().insert(columns.stream(streams[row])?, end);
            }
        }
    }
    Ok(())
}

/// Between the offsets of two tables there may be messages, but none with events.
fn hold_the_same_messages(ledger: &[LedgerRow], one: &TableSnapshot, other: &TableSnapshot) -> bool {
    let one = one.offsets();
    let other = other.offsets();
    let mut events = ledger.iter().filter(|row| row.landed > 0 && row.has_kind(RecordKind::Event.name()));
    events.all(|row| row.is_below(&one) == row.is_below(&other))
}

/// Counts the events of all messages but those in gaps of the aggregates.
async fn events_per_minute(
    snapshot: &TableSnapshot,
    unseen: &[OffsetRange],
) -> Result<BTreeMap<OpMinute, u64>, FactsError> {
    let names = ["node", "ts", "source", "op", "sample_weight", "log_name", "log_partition", "log_offset"];
    let table = snapshot.ident().to_string();
    let mut counts = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&names, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let weights = columns.float(4)?;
        let logs = columns.text(5)?;
        let partitions = columns.int(6)?;
        let offsets = columns.long(7)?;
        let mut events = Vec::with_capacity(columns.rows());
        for row in 0..columns.rows() {
            let is_unseen = is_in_any(unseen, logs[row], partitions[row], offsets[row]);
            events.push(if is_unseen { 0 } else { events_of(weights[row]) });
        }
        count_minutes(&columns, &events, &mut counts)?;
    }
    Ok(counts)
}

async fn aggregated(snapshot: &TableSnapshot) -> Result<BTreeMap<OpMinute, u64>, FactsError> {
    let table = snapshot.ident().to_string();
    let mut counts = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["node", "minute", "source", "op", "count"], &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let events: Vec<u64> = columns.long(4)?.iter().map(|events| count(*events)).collect();
        count_minutes(&columns, &events, &mut counts)?;
    }
    Ok(counts)
}

/// Adds the rows of a batch whose first columns are node, time, source and op; `events` is the number of events of each row.
fn count_minutes(
    columns: &Columns<'_>,
    events: &[u64],
    counts: &mut BTreeMap<OpMinute, u64>,
) -> Result<(), FactsError> {
    let node = columns.text(0)?;
    let ts = columns.micros(1)?;
    let source = columns.int(2)?;
    let op = columns.int(3)?;
    // Few keys beside many rows: the batch is summed by borrowed keys first.
    let mut sums: HashMap<(&str, i64, i32, i32), u64> = HashMap::new();
    for row in 0..node.len() {
        let sum = sums.entry((node[row], minute_of(ts[row]), source[row], op[row])).or_default();
        *sum = sum.saturating_add(events[row]);
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
    let mut commits = Vec::new();
    for (id, _, summary) in &history {
        let Some(text) = summary.get("causeway.ranges") else {
            commits.push(Vec::new());
            continue;
        };
        let Some(ranges) = parse_ranges(text) else {
            return Err(FactsError::Ranges { table: name.to_owned(), snapshot: *id, text: text.clone() });
        };
        commits.push(ranges);
    }
    // Sequence numbers count commits: fewer snapshots than that means that old ones expired.
    let commits_ever = snapshot.sequence_number();
    let is_cut = i64::try_from(history.len()).is_ok_and(|kept| kept < commits_ever);
    Ok(TableFacts { name: name.to_owned(), next: snapshot.offsets(), commits, explained: snapshot.gaps(), is_cut })
}

/// The offsets a table of messages holds.
async fn offsets(snapshot: &TableSnapshot) -> Result<BTreeMap<TopicPartition, Runs>, FactsError> {
    let table = snapshot.ident().to_string();
    let mut found: BTreeMap<TopicPartition, Runs> = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["log_name", "log_partition", "log_offset"], &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let partitions = columns.int(1)?;
        let offsets = columns.long(2)?;
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
    let table = snapshot.ident().to_string();
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    let mut batches = snapshot.scan_batches(&COLUMNS, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        add_ledger(&Columns::of(&table, &batch), &mut rows, &mut skipped)?;
    }
    Ok((rows, skipped))
}

/// Adds the rows of a batch of the ledger.
fn add_ledger(
    columns: &Columns<'_>,
    rows: &mut Vec<LedgerRow>,
    skipped: &mut Vec<OffsetRange>,
) -> Result<(), FactsError> {
    let topic = columns.text(0)?;
    let partition = columns.int(1)?;
    let offset = columns.long(2)?;
    let status = columns.text(3)?;
    let node = columns.text(4)?;
    let boot_id = columns.text(5)?;
    let kind = columns.text(6)?;
    let epoch = columns.long(7)?;
    let stream = columns.int(8)?;
    let first_seq = columns.long(9)?;
    let announced = columns.long(10)?;
    let landed = columns.long(11)?;
    let duplicates = columns.long(12)?;
    let emitted = columns.long(13)?;
    let ring_drop = columns.long(14)?;
    let shed = columns.long(15)?;
    let sampled_out = columns.long(16)?;
    let spool_drop = columns.long(17)?;
    let skipped_offsets = columns.long(18)?;
    for row in 0..columns.rows() {
        let at = TopicPartition::new(topic[row], partition[row]);
        if status[row] == SKIPPED {
            skipped.push(OffsetRange::new(at, offset[row], offset[row].saturating_add(skipped_offsets[row])));
            continue;
        }
        let is_dead_letter = status[row] == DEAD_LETTER;
        rows.push(LedgerRow {
            at,
            offset: offset[row],
            is_dead_letter,
            kind: Some(kind[row].to_owned()).filter(|_| !is_dead_letter),
            epoch: Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: epoch[row] },
            stream: columns.stream(stream[row])?,
            first_seq: first_seq[row],
            rows: announced[row],
            landed: landed[row],
            duplicates: duplicates[row],
            losses: LossCounters {
                emitted: count(emitted[row]),
                ring_drop: count(ring_drop[row]),
                shed: count(shed[row]),
                sampled_out: count(sampled_out[row]),
                spool_drop: count(spool_drop[row]),
            },
        });
    }
    Ok(())
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
        let columns = Columns::of(&facts.table, &batch);
        count_rows(&columns, &mut facts.rows)?;
        let node = columns.text(3)?;
        let boot_id = columns.text(4)?;
        let seq = columns.long(5)?;
        let ids = if kind == RecordKind::Event { Some(columns.text(6)?) } else { None };
        // Rows come sorted by node: the entry is looked up once per run of a node.
        let mut row = 0;
        while row < columns.rows() {
            let seqs = facts.seqs.entry((node[row].to_owned(), boot_id[row].to_owned())).or_default();
            let begin = row;
            while row < columns.rows() && (node[row], boot_id[row]) == (node[begin], boot_id[begin]) {
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
        let message = (logs[begin], partitions[begin], offsets[begin]);
        let mut end = begin;
        while end < logs.len() && (logs[end], partitions[end], offsets[end]) == message {
            end += 1;
        }
        let at = TopicPartition::new(logs[begin], partitions[begin]);
        let count = rows.entry(at).or_default().entry(offsets[begin]).or_default();
        *count = count.saturating_add(i64::try_from(end - begin).unwrap_or(i64::MAX));
        begin = end;
    }
    Ok(())
}
