//! Two recordings whose events would have the same keys. Where the rows that landed under such keys hold something else than the
//! file does, they are another host's: the file's events take other keys.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::StreamId;
use service_kit::run::Drain;
use tables::seen::Seen;

use super::destination::Destination;
use super::ingero::{Database, Nodes, Read, TABLES, Table};
use super::parcel::{Alternates, Content, Keys};
use super::recording::RecordingError;

/// Largest number of recordings of one node and session that are distinguished.
const ALTERNATES_MAX: u32 = 16;
/// About how many landed events are compared at most: of more, those whose sequence number is a multiple.
const COMPARED_MAX: i64 = 200_000;

/// What landed under the keys that a file's events would have.
pub(crate) type Landed = HashMap<(StreamId, i64), Content>;

/// The keys that the events of a file take.
///
/// # Errors
/// The file or the lake cannot be read, or there are too many recordings of one node and session.
pub(crate) async fn settle(
    database: &mut Database,
    nodes: &Nodes,
    seen: &Seen,
    destination: &mut Destination,
    drain: &Drain,
) -> Result<Alternates, RecordingError> {
    let known: HashSet<&StreamId> = seen.ranges().map(|(stream, _)| stream).collect();
    let mut alternates = Alternates::new();
    for _ in 0..ALTERNATES_MAX {
        let mut shared = BTreeSet::new();
        each_event(database, nodes, &alternates, |_, stream, _, _| {
            if known.contains(stream) && !shared.contains(stream) {
                shared.insert(stream.clone());
            }
        })
        .await?;
        if shared.is_empty() {
            return Ok(alternates);
        }
        // What a file before this one sent can be compared once it has landed.
        destination.land(drain).await?;
        let every = rows_of(seen, &shared) / COMPARED_MAX + 1;
        let landed = destination.landed_events(&shared, every).await?;
        let mut others = BTreeSet::new();
        each_event(database, nodes, &alternates, |base, stream, seq, content| {
            if landed.get(&(stream.clone(), seq)).is_some_and(|landed| *landed != content) {
                others.insert(Arc::clone(base));
            }
        })
        .await?;
        if others.is_empty() {
            return Ok(alternates);
        }
        others.into_iter().for_each(|base| *alternates.entry(base).or_insert(0) += 1);
    }
    Err(RecordingError::TooManyAlike { path: database.path().to_owned(), count: ALTERNATES_MAX })
}

fn rows_of(seen: &Seen, streams: &BTreeSet<StreamId>) -> i64 {
    let ranges = seen.ranges().filter(|(stream, _)| streams.contains(*stream));
    ranges.map(|(_, range)| range.end.saturating_sub(range.start)).fold(0, i64::saturating_add)
}

/// Shows every event that has a number of its own: its boot before any alternate, its stream, sequence number and content.
async fn each_event(
    database: &mut Database,
    nodes: &Nodes,
    alternates: &Alternates,
    mut show: impl FnMut(&Arc<str>, &StreamId, i64, Content),
) -> Result<(), RecordingError> {
    let mut keys = Keys::new(alternates.clone());
    for table in TABLES.iter().filter(|table| table.kind == event_schema::kind::RecordKind::Event) {
        let each = |read: Read| {
            let Ok(row) = read.row else { return Ok::<_, RecordingError>(()) };
            let node = nodes.node_of(table, &row);
            let session = nodes.session_of(node, table.time_of(&row.cells));
            if let Some((base, key)) = keys.of_event(table, &row, node, session) {
                show(&base, &key.stream, key.seq, content_of(table, &row.cells));
            }
            Ok(())
        };
        database.for_each(table, each).await?;
    }
    Ok(())
}

/// Columns of an event that are compared, as `silver.events` names them.
pub(crate) const COMPARED: [&str; 9] = ["ts_ns", "pid", "tid", "source", "op", "duration_ns", "arg0", "arg1", "comm"];

fn content_of(table: &Table, cells: &[Value]) -> Content {
    Content::of(COMPARED.iter().map(|field| cell_of(table, cells, field)))
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
