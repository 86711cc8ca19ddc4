//! The stretch of time a question is about.

use query_engine::literal;

/// A node of which nothing has landed for so long before the end of a stretch is missing from it: four beacons, which
/// each stream of events carries every half minute. Lower it and a slow commit makes nodes silent; raise it and a dead
/// node is noticed later.
pub(super) const SILENT_MS: i64 = 120_000;

/// The stretch of time an answer is about, unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins; `None` for no bound, which stands for what landed within a day.
    pub from_ms: Option<i64>,
    /// Where it ends.
    pub to_ms: i64,
    /// The moment the lake is seen at: now, or a time in the past.
    pub seen_ms: i64,
    /// Whether that moment lies in the past, so that the ledger must be read as it was then.
    pub is_past: bool,
}

impl Extent {
    /// Everything, as it is now.
    pub fn now(now_ms: i64) -> Self {
        Self { from_ms: None, to_ms: now_ms, seen_ms: now_ms, is_past: false }
    }

    /// Everything, as it was.
    pub fn at(then_ms: i64) -> Self {
        Self { is_past: true, ..Self::now(then_ms) }
    }

    /// From then on; no earlier than it began before.
    pub fn since(self, from_ms: Option<i64>) -> Self {
        // Nothing was traced before 1970, and times before 1678 do not fit nanoseconds.
        // `None` is less than any `Some`: the later of two bounds, or the only one.
        Self { from_ms: self.from_ms.max(from_ms.map(|from_ms| from_ms.max(0))), ..self }
    }

    /// No later than then.
    pub fn until(self, to_ms: i64) -> Self {
        Self { to_ms: to_ms.min(self.to_ms), ..self }
    }

    /// Whether it ends before the moment the lake is seen at.
    pub(super) fn ends_in_past(&self) -> bool {
        self.to_ms < self.seen_ms
    }

    /// The condition on the ledger's rows about the stretch.
    pub(super) fn in_time(&self) -> String {
        let since = self.from_ms.map_or_else(|| "true".to_owned(), |from_ms| super::made_since(&instant(from_ms)));
        // A clock that runs ahead must not hide its node from an answer that ends now.
        let by = if self.ends_in_past() { super::made_by(&instant(self.to_ms)) } else { "true".to_owned() };
        format!("{since} AND {by}")
    }
}

/// A time of the ledger's columns in SQL.
pub(super) fn instant(unix_ms: i64) -> String {
    // A time beyond what nanoseconds hold (the year 2262) becomes the last that they do.
    literal::instant(unix_ms.saturating_mul(1_000_000))
}
