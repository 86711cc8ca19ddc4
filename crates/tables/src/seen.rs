//! Which sequence numbers of each stream the log has held. An agent that is killed between Kafka's acknowledgement and
//! its own record of it sends the same batch again; a reader of the log drops the rows that it has seen.
//!
//! Law: the decision about a message depends on the messages before it in its partition, and on nothing else, so that
//! every reader and every restart decides alike. The rows of a stream land from one partition only: a message of it
//! that is met elsewhere is forwarded there ([`Arrival::forward`](crate::arrival::Arrival::forward)).

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use event_schema::identity::StreamId;
use event_schema::wire::Header;

#[cfg(test)]
mod tests;

/// Sequence numbers seen, per stream, as coalesced ranges: one range per stream unless batches are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    streams: HashMap<StreamId, Stream>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stream {
    rows: Ranges,
    /// A message without rows came: an agent sends one at the end of a stream at most, to report its last losses.
    is_reported: bool,
}

impl Seen {
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything noted: [`Self::note`] of each again gives the same. A message without rows is an empty range.
    pub fn ranges(&self) -> impl Iterator<Item = (&StreamId, Range<i64>)> {
        self.streams.iter().flat_map(|(id, stream)| {
            let empty = stream.is_reported.then_some(0..0);
            // Any empty range of the stream stands for "reported"; `note` only checks whether it is empty.
            stream.rows.0.iter().map(|(start, end)| *start..*end).chain(empty).map(move |range| (id, range))
        })
    }

    /// Notes everything that another one has noted.
    pub fn extend(&mut self, other: &Self) {
        for (stream, range) in other.ranges() {
            self.note(stream.clone(), range.start, range.end);
        }
    }

    /// Notes the rows of a message; returns those that are new, as ranges of row numbers. A message without rows that
    /// is new gives one empty range; nothing at all is given for a repetition.
    pub fn admit(&mut self, header: &Header) -> Vec<Range<u32>> {
        // Deduplication: delivery is at least once, so that the log may hold a batch twice. What lands is the
        // difference.
        let fresh = self.note(stream_of(header), header.first_seq, header.end_seq());
        fresh.into_iter().map(|range| row_of(header, range.start)..row_of(header, range.end)).collect()
    }

    /// Whether a row was noted.
    pub fn holds(&self, stream: &StreamId, seq: i64) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.rows.holds(seq))
    }

    /// Notes that `first..end` of a stream was seen (recovery reads this out of `ops.ledger`); returns what was new.
    pub fn note(&mut self, stream: StreamId, first: i64, end: i64) -> Vec<Range<i64>> {
        let stream = self.streams.entry(stream).or_default();
        // A message without rows has no number by which a repetition would be known. It may come once per stream (ADR
        // 8).
        if first < end {
            return stream.rows.insert(first, end);
        }
        let is_repetition = std::mem::replace(&mut stream.is_reported, true);
        if is_repetition { Vec::new() } else { std::iter::once(first..first).collect() }
    }
}

/// The number of the row with a sequence number of the message, or of the row behind the last.
fn row_of(header: &Header, seq: i64) -> u32 {
    // In range: what is fresh lies within the message.
    u32::try_from(seq - header.first_seq).unwrap_or(header.rows)
}

fn stream_of(header: &Header) -> StreamId {
    StreamId {
        node: Arc::from(header.node.as_str()),
        boot_id: Arc::from(header.boot_id.as_str()),
        epoch: header.epoch,
        stream: header.stream,
    }
}

/// Disjoint, non-adjacent half-open ranges: start → end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    fn holds(&self, seq: i64) -> bool {
        // The ranges are disjoint, so that only the last one that begins at or before the number can hold it.
        let last_before = self.0.range(..=seq).next_back();
        last_before.is_some_and(|(_, end)| seq < *end)
    }

    /// Adds `first..end`, which is not empty, and returns the parts that were not there.
    fn insert(&mut self, first: i64, end: i64) -> Vec<Range<i64>> {
        let mut low = first;
        let mut high = end;
        let mut fresh = Vec::new();
        let mut at = first;
        // Everything that overlaps or touches first..end, in order.
        // At most one range that begins before the new one reaches it: they are disjoint and not adjacent.
        let start = self.0.range(..=first).next_back().filter(|(_, e)| **e >= first).map_or(first, |(s, _)| *s);
        // Up to `end` inclusive: a range that begins there is adjacent, and is joined so that a stream without gaps
        // stays one range.
        let touched: Vec<(i64, i64)> = self.0.range(start..=end).map(|(s, e)| (*s, *e)).collect();
        for (s, e) in touched {
            // The part before the next range known was not there.
            if s > at {
                fresh.push(at..s.min(end));
            }
            at = at.max(e);
            low = low.min(s);
            high = high.max(e);
            self.0.remove(&s);
        }
        if at < end {
            fresh.push(at..end);
        }
        // Interval merging: one range in place of all that were touched.
        self.0.insert(low, high);
        fresh
    }
}
