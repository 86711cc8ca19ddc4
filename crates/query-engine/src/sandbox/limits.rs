//! What one query may use.

use std::time::Duration;

/// What queries may use. Every query has its own share of memory: one that exceeds it fails without affecting the
/// others.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory of one query for sorts, joins, groups and long texts, bytes. Operators that exceed it spill to disk, then
    /// the query fails. An answer that is buffered as a whole may also be this large.
    pub memory_bytes: usize,
    /// Temporary files of all queries together, bytes.
    pub spill_bytes: u64,
    /// Longest time from arrival to the last row.
    pub time: Duration,
    /// Most rows of an answer that is buffered as a whole, a JSON document. Streamed answers are bounded by the time
    /// only.
    pub rows: usize,
    /// Most events that one search for chains or stragglers reads: the newest of its window.
    pub events: u64,
    /// Queries that run at once.
    pub concurrent: usize,
    /// Queries that may wait for their turn; the next one is refused.
    pub queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            spill_bytes: 4 << 30,
            time: Duration::from_secs(60),
            rows: 1_000_000,
            events: 20_000_000,
            concurrent: 8,
            queued: 64,
        }
    }
}
