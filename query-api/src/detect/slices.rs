//! Which events of a window are looked at, and in what portions. The detector holds rows back until it knows that none before
//! them is to come, in bounded memory; so it is given the window slice by slice in order of time. A window with more events than
//! one detection may look at is cut at its beginning, and it is said where.

use std::ops::RangeInclusive;

use datafusion::arrow::array::RecordBatch;

use super::Window;
use super::columns::Columns;
use super::reading::Reading;
use crate::engine::error::QueryError;
use crate::engine::run::UsedSnapshot;

/// Events of one slice; the detector holds twice as many back.
const SLICE_EVENTS: u64 = 1 << 20;
/// Pieces of the window in which events are counted.
const PIECES: u64 = 1 << 16;

/// The part of a window that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slices {
    /// Unix nanoseconds, in order of time and without gaps; none when there are no events.
    pub(super) slices: Vec<RangeInclusive<i64>>,
    pub(super) events: u64,
    /// Events before the first slice.
    pub(super) unread: u64,
    pub(super) snapshots: Vec<UsedSnapshot>,
}

impl Slices {
    /// Counts the events of a window over time and cuts it.
    ///
    /// # Errors
    /// The lake cannot be read, or a limit of the query engine was met.
    pub(super) async fn of(reading: &Reading<'_>, window: &Window) -> Result<Self, QueryError> {
        let piece_ns = piece_ns(window);
        let (from_ns, condition) = (window.from_ns, window.condition());
        let sql = format!(
            "SELECT (ts_ns - {from_ns}) / {piece_ns} AS piece, count(*) AS events FROM silver.events WHERE {condition} \
             GROUP BY 1 ORDER BY 1"
        );
        let answer = reading.query(sql, None).await?;
        let snapshots = answer.snapshots().to_vec();
        let batches = answer.collect().await.map_err(|error| reading.whole(error))?;
        let pieces: Vec<Piece> = batches.iter().flat_map(pieces).collect();
        Ok(Self { snapshots, ..cut(&pieces, (window, piece_ns), reading.events()) })
    }

    /// The snapshot that was counted.
    pub(super) fn snapshot(&self) -> Option<i64> {
        self.snapshots.first().and_then(|used| used.snapshot_id)
    }
}

/// A piece of the window that has events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    number: i64,
    events: u64,
}

fn piece_ns(window: &Window) -> i64 {
    let length_ns = window.to_ns.saturating_sub(window.from_ns).unsigned_abs();
    i64::try_from(length_ns / PIECES + 1).unwrap_or(i64::MAX)
}

fn pieces(batch: &RecordBatch) -> impl Iterator<Item = Piece> {
    let columns = Columns(batch);
    (0..batch.num_rows()).filter_map(move |row| {
        let events = u64::try_from(columns.long("events", row)?).ok()?;
        Some(Piece { number: columns.long("piece", row)?, events })
    })
}

/// Takes the newest pieces that together have no more than `most` events, at least one, and joins them to slices.
fn cut(pieces: &[Piece], (window, piece_ns): (&Window, i64), most: u64) -> Slices {
    let mut events = 0;
    let fits = |piece: &&Piece| {
        let is_first = events == 0;
        events += piece.events;
        is_first || events <= most
    };
    let kept = pieces.iter().rev().take_while(fits).count();
    let (before, kept) = pieces.split_at(pieces.len() - kept);
    let sum = |pieces: &[Piece]| pieces.iter().map(|piece| piece.events).sum::<u64>();
    let begin_ns = |piece: &Piece| window.from_ns.saturating_add(piece.number.saturating_mul(piece_ns));
    // Everything is read from the window's own beginning.
    let mut from_ns = if before.is_empty() { window.from_ns } else { kept.first().map_or(window.from_ns, begin_ns) };
    let mut slices = Vec::new();
    let mut in_hand = 0;
    for piece in kept {
        if in_hand > 0 && in_hand + piece.events > SLICE_EVENTS {
            slices.push(from_ns..=begin_ns(piece) - 1);
            (from_ns, in_hand) = (begin_ns(piece), 0);
        }
        in_hand += piece.events;
    }
    if !kept.is_empty() {
        slices.push(from_ns..=window.to_ns);
    }
    Slices { slices, events: sum(kept), unread: sum(before), snapshots: Vec::new() }
}

#[cfg(test)]
mod tests;
