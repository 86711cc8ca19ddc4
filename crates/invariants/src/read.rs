//! Reads the tables for the [`Proof`]: the metadata of all, then narrow columns of each, batch by batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use event_schema::catalog::{Op, Source};
use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use futures::TryStreamExt;
use lake::commit::parse_ranges;
use lake::{ColumnRange, HeadError, Lake, ReadError, TableSnapshot, Value};
use tables::{registry, silver};

use crate::columns::Columns;
use crate::error::FactsError;
use crate::facts::{Epoch, EpochEnd, OwnEvents, TableFacts};
use crate::proof::{Proof, Verdict};

mod messages;
mod minutes;

/// How long the tables may take to reach what the audit compares while ingest is running.
const SETTLE_TRIES: u32 = 50;
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// Reads the tables of a lake and holds them against the laws. The ledger is read at least as far as any other table. No row is
/// kept: the memory follows the keys that `gold.op_minute` has in a day, and for the whole time partitions, streams, epochs, gaps, dead
/// letters, messages that a table is behind with, and thousands of messages; not the messages. What is wrong is read a second time, a
/// million messages of a table at most.
///
/// # Errors
/// The lake cannot be read, another program has written to it, or its tables change while they are read.
pub async fn audit(lake: &Lake) -> Result<Verdict, FactsError> {
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
    let mut tables = Vec::new();
    for (name, snapshot) in &snapshots {
        tables.push(table_facts(name, snapshot)?);
    }
    let mut proof = Proof::begin(
        tables,
        registry::all().iter().map(|table| table.def.name.to_string()),
        RecordKind::ALL.into_iter().map(|kind| (silver::name(kind).to_string(), kind.name().to_owned())),
    );
    messages::read(&snapshots, &mut proof).await?;
    let mut own = OwnEvents::default();
    if let Some(events) = snapshots.get("silver.events")
        && let Some(gold) = snapshots.get("gold.op_minute")
    {
        own = own_events(events).await?;
        if !proof.are_events_apart() {
            minutes::add(events, gold, &mut proof).await?;
        }
    }
    let is_late = add_late_tables(lake, &mut proof).await?;
    if proof.are_events_apart() && !is_late {
        return Err(FactsError::Moving);
    }
    Ok(proof.finish(&own))
}

/// Reports the tables that do not hold what the ledger has for them, also after a while: ingest commits the tables of a batch one by
/// one. Returns whether there are any.
async fn add_late_tables(lake: &Lake, proof: &mut Proof) -> Result<bool, FactsError> {
    let mut late = Vec::new();
    for tried in 1.. {
        late.clear();
        for table in registry::all() {
            let name = table.def.name;
            let next = match lake.table(name.namespace, name.name).offsets().await {
                Err(ReadError::Head(HeadError::NotFound(_))) => BTreeMap::new(),
                offsets => offsets?,
            };
            if proof.is_late(&name.to_string(), &next) {
                late.push((name.to_string(), next));
            }
        }
        if late.is_empty() || tried >= SETTLE_TRIES {
            break;
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    for (table, next) in &late {
        proof.report_late(table, next);
    }
    Ok(!late.is_empty())
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
async fn own_events(snapshot: &TableSnapshot) -> Result<OwnEvents, FactsError> {
    let mut found = OwnEvents::default();
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
            *found.counts.entry(epoch.clone()).or_default() += 1;
            if Op::from_numbers(sources[row], ops[row]) == Some(Op::EpochEnd) {
                let end = EpochEnd {
                    attempts: count(attempts[row]),
                    ring_drop: count(ring_drop[row]),
                    drained: count(drained[row]),
                };
                found.ends.entry(epoch).or_default().insert(columns.stream(streams[row])?, end);
            }
        }
    }
    Ok(found)
}

fn table_facts(name: &str, snapshot: &TableSnapshot) -> Result<TableFacts, FactsError> {
    // Another program may have expired a snapshot in the middle: offsets can be followed through the later ones only.
    let history = snapshot.unbroken_history();
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
