//! What one query may use.

use std::time::Duration;

/// What queries may use. Every query has its own share: one greedy query fails alone.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory of one query for sorts, joins, groups and long texts, bytes. Beyond it operators spill, then the query fails.
    /// An answer that is made as a whole may be as long.
    pub memory_bytes: usize,
    /// Temporary files of all queries together, bytes.
    pub spill_bytes: u64,
    /// Longest time from arrival to the last row.
    pub time: Duration,
    /// Most rows of an answer that is made as a whole, a JSON document. Streamed ones end with the time.
    pub rows: usize,
    /// Most events one look for chains or stragglers takes in: the newest of its window.
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
