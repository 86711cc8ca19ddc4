//! Two recordings whose events would have the same keys. Where most of the rows that landed under such keys are other events than
//! the file's, they are another host's: the file's events take other keys. An event that differs only in what a tracer may write
//! anew is the same one.

use std::collections::HashMap;
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::StreamId;
use event_schema::kind::RecordKind;
use service_kit::run::Drain;
use tables::seen::Seen;

use super::destination::{Destination, DestinationError};
use super::ingero::{Database, Nodes, Read, TABLES, Table};
use super::parcel::{Alternates, Content, Keys};
use super::recording::RecordingError;

/// Largest number of recordings of one node and session that are distinguished.
const ALTERNATES_MAX: u32 = 16;
/// About how many events of a file are compared with those that landed, at most: of more, every so many-th.
const COMPARED_MAX: u64 = 200_000;
/// How many events of each boot are compared in any case: a short session must not be judged by none.
const COMPARED_OF_EACH: u64 = 16;

/// A key that an event of the file has, and that an event that landed has too.
type EventKey = (StreamId, i64);
/// Events of a file to compare: their boot before any alternate, and what they hold.
pub(crate) type Sample = HashMap<EventKey, (Arc<str>, Content)>;
/// What landed under keys of a sample.
pub(crate) type Landed = HashMap<EventKey, Content>;

/// The keys that the events of a file take, and what was found about those that have landed.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) alternates: Alternates,
    pub(crate) tally: Tally,
}

/// Events that have landed, compared with those of the file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) compared: u64,
    /// Those that hold something else.
    pub(crate) differing: u64,
    /// Of them: those that are other events.
    others: u64,
}

impl Tally {
    fn note(&mut self, landed: Content, of_file: Content) {
        self.compared += 1;
        self.differing += u64::from(landed != of_file);
        self.others += u64::from(!landed.is_same_event(of_file));
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            compared: self.compared + other.compared,
            differing: self.differing + other.differing,
            others: self.others + other.others,
        }
    }

    /// Whether the file is another host's: two hosts that recorded at the same time agree on next to nothing.
    fn is_another_hosts(self) -> bool {
        self.others * 2 > self.compared
    }
}

/// Finds the keys that the events of a file take.
///
/// # Errors
/// The file or the lake cannot be read, or there are too many recordings of one node and session.
pub(crate) async fn settle(
    database: &mut Database,
    nodes: &Nodes,
    seen: &Seen,
    destination: &mut Destination,
    drain: &Drain,
) -> Result<Settled, RecordingError> {
    let mut alternates = Alternates::new();
    for _ in 0..ALTERNATES_MAX {
        let mut known = 0;
        each_known(database, nodes, &alternates, seen, |_| known += 1).await?;
        if known == 0 {
            return Ok(Settled { alternates, tally: Tally::default() });
        }
        let sample = sample(database, nodes, &alternates, seen, known).await?;
        // What a file before this one sent can be compared once it has landed.
        destination.land(drain).await?;
        let landed = tokio::select! {
            landed = destination.landed_events(&sample) => landed?,
            () = drain.cancelled() => return Err(DestinationError::Interrupted.into()),
        };
        let mut tallies: HashMap<&Arc<str>, Tally> = HashMap::new();
        for (key, (base, content)) in &sample {
            if let Some(landed) = landed.get(key) {
                tallies.entry(base).or_default().note(*landed, *content);
            }
        }
        let others: Vec<_> = tallies.iter().filter(|(_, tally)| tally.is_another_hosts()).collect();
        if others.is_empty() {
            let tally = tallies.values().fold(Tally::default(), Tally::plus);
            return Ok(Settled { alternates, tally });
        }
        others.into_iter().for_each(|(base, _)| *alternates.entry(Arc::clone(base)).or_insert(0) += 1);
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
    let every = known / COMPARED_MAX + 1;
    let mut sample = Sample::new();
    let mut of_base: HashMap<Arc<str>, u64> = HashMap::new();
    let mut number = 0_u64;
    each_known(database, nodes, alternates, seen, |event| {
        let of_base = of_base.entry(Arc::clone(&event.base)).or_insert(0);
        (*of_base, number) = (*of_base + 1, number + 1);
        if *of_base <= COMPARED_OF_EACH || number.is_multiple_of(every) {
            let content = content_of_row(event.table, event.cells);
            sample.insert((event.stream, event.seq), (event.base, content));
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

/// Shows every event that has a number of its own, and whose key has landed.
async fn each_known(
    database: &mut Database,
    nodes: &Nodes,
    alternates: &Alternates,
    seen: &Seen,
    mut show: impl FnMut(Known<'_>),
) -> Result<(), RecordingError> {
    let mut keys = Keys::new(alternates.clone());
    for table in TABLES.iter().filter(|table| table.kind == RecordKind::Event) {
        let each = |read: Read| {
            let Ok(row) = read.row else { return Ok(()) };
            let Some(node) = nodes.node_of(table, &row) else { return Ok(()) };
            let session = nodes.session_of_row(table, &row, node);
            if let Some((base, key)) = keys.of_event(table, &row, node, session)
                && seen.holds(&key.stream, key.seq)
            {
                show(Known { base, stream: key.stream, seq: key.seq, table, cells: &row.cells });
            }
            Ok::<(), RecordingError>(())
        };
        database.for_each(table, each).await?;
    }
    Ok(())
}

/// Columns of an event that are compared, as `silver.events` names them: those that a tracer writes once, then those that it may
/// write anew.
pub(crate) const COMPARED: [&str; 9] = ["ts_ns", "pid", "tid", "source", "op", "arg0", "arg1", "duration_ns", "comm"];
/// How many of them are written once.
const WRITTEN_ONCE: usize = 7;

/// What an event holds that has these cells in the order of [`COMPARED`].
pub(crate) fn content_of(cells: &[&Value]) -> Content {
    let named = || COMPARED.into_iter().zip(cells.iter().copied());
    Content::of(named().take(WRITTEN_ONCE), named().skip(WRITTEN_ONCE))
}

fn content_of_row(table: &Table, cells: &[Value]) -> Content {
    content_of(&COMPARED.map(|field| cell_of(table, cells, field)))
}

/// The cell that becomes a field of `silver.events`.
fn cell_of<'a>(table: &Table, cells: &'a [Value], field: &str) -> &'a Value {
    // The times of a recording are wall times.
    let field = if field == "ts_ns" { "boot_ns" } else { field };
    match table.columns.iter().position(|column| column.field == field).map(|at| &cells[at]) {
        // An empty name is none.
        Some(Value::Text(text)) if text.is_empty() => &Value::Null,
        Some(cell) => cell,
        None => &Value::Null,
    }
}
