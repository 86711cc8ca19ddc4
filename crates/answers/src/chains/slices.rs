//! Which events of a window are looked at, and in what portions. The detector holds rows back, in bounded memory, until
//! no earlier row can follow; so it is given the window slice by slice in order of time. A window with more events than
//! one detection may look at is cut at its beginning, and the answer has the time of the cut.

use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use query_engine::{QueryError, UsedSnapshot};

use super::conditions::events_of;
use super::reading::Reading;
use crate::columns::Columns;
use crate::window::Window;

/// Events of one slice; the detector holds twice as many back.
const SLICE_EVENTS: u64 = 1 << 20;
/// Pieces of the window in which events are counted.
const PIECES: u64 = 1 << 16;

/// The part of a window that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slices {
    /// Unix nanoseconds, in order of time and without gaps; none when there are no events.
    pub slices: Vec<RangeInclusive<i64>>,
    /// Events in the slices.
    pub events: u64,
    /// Events before the first slice.
    pub unread: u64,
    /// Snapshots of the tables that the events were counted in.
    pub snapshots: Vec<UsedSnapshot>,
}

impl Slices {
    /// Counts the events of a window over time and cuts it.
    ///
    /// # Errors
    /// The lake cannot be read, or a limit of the query engine was met.
    pub(super) async fn of(reading: &Reading<'_>, window: &Window) -> Result<Self, QueryError> {
        let most = reading.events();
        let (mut pieces, snapshots) = count(reading, window, None).await?;
        // Later counts and the events themselves are read at this snapshot (repeatable read): with rows that land
        // meanwhile a slice would hold more than was counted.
        let snapshot = snapshots.first().and_then(|used| used.snapshot_id);
        // A dense stretch in a long window is one piece at first: it is counted again, more finely. This ends, because
        // each count has shorter pieces, and one of a single nanosecond is left as it is.
        while let Some(at) = too_dense(&pieces, most) {
            let Piece { from_ns, to_ns, .. } = pieces[at];
            let (finer, _) = count(reading, &Window { from_ns, to_ns, ..window.clone() }, snapshot).await?;
            pieces.splice(at..=at, finer);
        }
        Ok(Self { snapshots, ..cut(&pieces, window, most) })
    }

    /// The snapshot that was counted.
    pub(super) fn snapshot(&self) -> Option<i64> {
        self.snapshots.first().and_then(|used| used.snapshot_id)
    }
}

/// A piece of the window that has events. Both ends are inclusive, unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    from_ns: i64,
    to_ns: i64,
    events: u64,
}

/// The events of a window in pieces of one length, in order of time; pieces without any are left out.
async fn count(
    reading: &Reading<'_>,
    window: &Window,
    snapshot: Option<i64>,
) -> Result<(Vec<Piece>, Vec<UsedSnapshot>), QueryError> {
    let piece_ns = piece_ns(window);
    let from_ns = window.from_ns;
    let condition = events_of(window);
    // Integer division rounds towards zero, which is down here: no event lies before `from_ns`.
    let sql = format!(
        "SELECT (ts_ns - {from_ns}) / {piece_ns} AS piece, count(*) AS events FROM silver.events WHERE {condition} \
         GROUP BY 1 ORDER BY 1"
    );
    let answer = reading.query(sql, snapshot).await?;
    let snapshots = answer.snapshots().to_vec();
    let batches = answer.collect().await.map_err(|error| reading.whole(error))?;
    Ok((batches.iter().flat_map(|batch| pieces(batch, window, piece_ns)).collect(), snapshots))
}

fn piece_ns(window: &Window) -> i64 {
    let length_ns = window.to_ns.saturating_sub(window.from_ns).unsigned_abs();
    // Rounded up: the pieces always cover the window, and their length is never zero.
    i64::try_from(length_ns / PIECES + 1).unwrap_or(i64::MAX)
}

fn pieces(batch: &RecordBatch, window: &Window, piece_ns: i64) -> Vec<Piece> {
    let columns = Columns(batch);
    (0..batch.num_rows()).filter_map(|row| piece(&columns, row, window, piece_ns)).collect()
}

/// A counted piece; `None` where a column is not as it was asked for.
fn piece(columns: &Columns<'_>, row: usize, window: &Window, piece_ns: i64) -> Option<Piece> {
    let events = u64::try_from(columns.long("events", row)?).ok()?;
    let from_ns = window.from_ns.saturating_add(columns.long("piece", row)?.saturating_mul(piece_ns));
    Some(Piece { from_ns, to_ns: from_ns.saturating_add(piece_ns - 1).min(window.to_ns), events })
}

/// The newest piece that has more events than a slice may have, of those that are looked at and of the first that is
/// not.
fn too_dense(pieces: &[Piece], most: u64) -> Option<usize> {
    let mut newer = 0;
    // From the newest on: those are looked at where the window has too many.
    for (at, piece) in pieces.iter().enumerate().rev() {
        // What lies before is beyond the limit, so its density does not matter.
        if newer >= most {
            return None;
        }
        if piece.events > SLICE_EVENTS.min(most) && piece.to_ns > piece.from_ns {
            return Some(at);
        }
        newer += piece.events;
    }
    None
}

/// How many of the newest pieces have no more than `most` events together, at least one.
fn count_kept(pieces: &[Piece], most: u64) -> usize {
    let mut events = 0;
    let mut kept = 0;
    for piece in pieces.iter().rev() {
        events += piece.events;
        // One piece at least, even when it alone is beyond the limit: an answer from no event would read as an empty
        // window.
        if kept > 0 && events > most {
            break;
        }
        kept += 1;
    }
    kept
}

fn events_in(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.events).sum()
}

/// Takes the newest pieces that together have no more than `most` events, at least one, and joins them to slices.
fn cut(pieces: &[Piece], window: &Window, most: u64) -> Slices {
    let kept = count_kept(pieces, most);
    let (before, kept) = pieces.split_at(pieces.len() - kept);
    // Everything is read from the window's own beginning.
    let mut from_ns =
        if before.is_empty() { window.from_ns } else { kept.first().map_or(window.from_ns, |p| p.from_ns) };
    let mut slices = Vec::new();
    let mut in_slice = 0;
    for piece in kept {
        // A piece that is larger than a slice may be becomes a slice of its own.
        if in_slice > 0 && in_slice + piece.events > SLICE_EVENTS {
            // Closed intervals without gap or overlap: `BETWEEN` reads each event once.
            slices.push(from_ns..=piece.from_ns - 1);
            from_ns = piece.from_ns;
            in_slice = 0;
        }
        in_slice += piece.events;
    }
    if !kept.is_empty() {
        slices.push(from_ns..=window.to_ns);
    }
    Slices { slices, events: events_in(kept), unread: events_in(before), snapshots: Vec::new() }
}

#[cfg(test)]
mod tests;
