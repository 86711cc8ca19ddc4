//! Two recordings whose events would have the same keys. Where most of the rows that landed under such keys are other
//! events than the file's, they are another host's: the file's events take alternate keys. An event that differs only
//! in columns that a tracer may update is the same event.

use std::collections::HashMap;
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::StreamId;
use event_schema::kind::RecordKind;
use service_kit::run::Drain;
use tables::seen::Seen;

use crate::compare::{COMPARED, Content, Sample, Tally};
use crate::destination::{DestinationError, Target};
use crate::error::RecordingError;
use crate::ingero::{Database, Nodes, Row, TABLES, Table};
use crate::keys::{Alternates, Keys};

/// Largest number of recordings of one node and session that are distinguished.
const ALTERNATES_MAX: u32 = 16;
/// About how many events of a file are compared with those that landed, at most. Of a larger number every n-th is
/// (systematic sampling).
const COMPARED_MAX: u64 = 200_000;
/// How many events of each boot are compared in any case: n-th events alone could miss a short session.
const COMPARED_OF_EACH: u64 = 16;

/// The keys that the events of a file take, and what was found about those that have landed.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) alternates: Alternates,
    pub(crate) tally: Tally,
}

/// Finds the keys that the events of a file take.
///
/// # Errors
/// The file or the lake cannot be read, or there are too many recordings of one node and session.
pub(crate) async fn settle(
    database: &mut Database,
    nodes: &Nodes,
    target: &mut Target,
    drain: &Drain,
) -> Result<Settled, RecordingError> {
    let Target { destination, seen, .. } = target;
    let mut alternates = Alternates::new();
    // Repeated until nothing changes (fixed point): under its alternate keys the file may meet a third host's events.
    for _ in 0..ALTERNATES_MAX {
        let mut known = 0;
        each_known(database, nodes, &alternates, seen, |_| known += 1).await?;
        // The usual case: the file is new, and nothing of the lake but its ledger is read.
        if known == 0 {
            return Ok(Settled { alternates, tally: Tally::default() });
        }
        let sample = sample(database, nodes, &alternates, seen, known).await?;
        // `seen` also has what this import sent for the files before: it can be read only once it has landed.
        destination.land(drain).await?;
        // Reads the keys and columns of all of `silver.events`, which may take minutes: a signal ends it. Dropping a
        // read is safe.
        let landed = tokio::select! {
            landed = destination.landed_events(&sample) => landed?,
            () = drain.cancelled() => return Err(DestinationError::Interrupted.into()),
        };
        let tallies = sample.compare(&landed);
        // By boot: one session of a merged file may be another host's, while the others are the same.
        let others: Vec<_> = tallies.iter().filter(|(_, tally)| tally.is_another_hosts()).collect();
        if others.is_empty() {
            let tally = tallies.values().fold(Tally::default(), Tally::plus);
            return Ok(Settled { alternates, tally });
        }
        for (base, _) in others {
            // Counted from the original boot id, so that every import of the file derives the same alternate.
            *alternates.entry(Arc::clone(base)).or_insert(0) += 1;
        }
    }
    Err(RecordingError::TooManyAlike { path: database.path().to_owned(), count: ALTERNATES_MAX })
}

/// Some of the `known` events of a file whose keys have landed.
async fn sample(
    database: &mut Database,
    nodes: &Nodes,
    alternates: &Alternates,
    seen: &Seen,
    known: u64,
) -> Result<Sample, RecordingError> {
    // At least 1, where every event is compared.
    let every = known / COMPARED_MAX + 1;
    let mut sample = Sample::default();
    let mut of_base: HashMap<Arc<str>, u64> = HashMap::new();
    let mut number = 0_u64;
    each_known(database, nodes, alternates, seen, |event| {
        let of_base = of_base.entry(Arc::clone(&event.base)).or_insert(0);
        *of_base += 1;
        number += 1;
        if *of_base <= COMPARED_OF_EACH || number.is_multiple_of(every) {
            let content = content_of(event.table, event.cells);
            sample.add((event.stream, event.seq), event.base, content);
        }
    })
    .await?;
    Ok(sample)
}

/// An event of a file whose key has landed.
struct Known<'a> {
    /// Its boot before any alternate.
    base: Arc<str>,
    stream: StreamId,
    seq: i64,
    table: &'static Table,
    cells: &'a [Value],
}

/// Passes every event that has a number of its own, and whose key has landed, to `show`.
async fn each_known(
    database: &mut Database,
    nodes: &Nodes,
    alternates: &Alternates,
    seen: &Seen,
    mut show: impl FnMut(Known<'_>),
) -> Result<(), RecordingError> {
    // New for each reading: `Keys` takes a number that it has had already for another row's.
    let mut keys = Keys::new(alternates.clone());
    for table in TABLES.iter().filter(|table| table.kind == RecordKind::Event) {
        database
            .for_each(table, |read| {
                if let Ok(row) = &read.row
                    && let Some(known) = known(table, row, nodes, &mut keys, seen)
                {
                    show(known);
                }
                Ok::<(), RecordingError>(())
            })
            .await?;
    }
    Ok(())
}

/// The event of a row, if its key has landed.
fn known<'a>(table: &'static Table, row: &'a Row, nodes: &Nodes, keys: &mut Keys, seen: &Seen) -> Option<Known<'a>> {
    let node = nodes.node_of(table, row)?;
    let session = nodes.session_of_row(table, row, node);
    let (base, key) = keys.of_event(table, row, node, session)?;
    let has_landed = seen.holds(&key.stream, key.seq);
    has_landed.then_some(Known { base, stream: key.stream, seq: key.seq, table, cells: &row.cells })
}

fn content_of(table: &Table, cells: &[Value]) -> Content {
    Content::of(&COMPARED.map(|field| cell_of(table, cells, field)))
}

/// The cell that becomes a field of `silver.events`.
fn cell_of<'a>(table: &Table, cells: &'a [Value], field: &str) -> &'a Value {
    // The table's `ts_ns` is computed from `boot_ns` and the beacon, which for a recording is the identity
    // (`Beacon::WALL`).
    let field = if field == "ts_ns" { "boot_ns" } else { field };
    match table.columns.iter().position(|column| column.field == field).map(|at| &cells[at]) {
        // As `event` writes it (`tables.rs`): an empty name lands as NULL, and must compare as equal to it.
        Some(Value::Text(text)) if text.is_empty() => &Value::Null,
        Some(cell) => cell,
        // An older schema lacks the column, and the landed row has NULL there.
        None => &Value::Null,
    }
}
