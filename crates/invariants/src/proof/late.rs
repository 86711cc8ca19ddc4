//! Tables that do not hold yet what the ledger has for them.

use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use tables::silver;

use crate::facts::{LedgerRow, TableFacts};
use crate::laws::{Law, Report};
use crate::runs::Runs;

/// The messages that tables had not come to when their metadata was read.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeMap<String, Behind>);

/// What a table had not come to.
#[derive(Debug)]
struct Behind {
    wanted: Wanted,
    next: BTreeMap<TopicPartition, NextOffset>,
    /// Offsets of the messages that it makes rows of, from where it stood on.
    offsets: BTreeMap<TopicPartition, Runs>,
}

/// The messages that a table makes rows of.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    All,
    DeadLetters,
    /// With new rows of this kind.
    Kind(RecordKind),
    None,
}

impl Wanted {
    fn by(table: &str) -> Self {
        match table {
            "bronze.messages" | "ops.ledger" => Self::All,
            "ops.dlq" => Self::DeadLetters,
            "gold.op_minute" => Self::Kind(RecordKind::Event),
            records => {
                let kind = RecordKind::ALL.into_iter().find(|kind| silver::name(*kind).to_string() == records);
                kind.map_or(Self::None, Self::Kind)
            }
        }
    }

    fn has(self, row: &LedgerRow) -> bool {
        match self {
            Self::All => true,
            Self::DeadLetters => row.is_dead_letter,
            Self::Kind(kind) => row.landed > 0 && row.has_kind(kind.name()),
            Self::None => false,
        }
    }
}

/// Where a table stands in a partition: at the beginning of one that it has nothing of.
fn standing(next: &BTreeMap<TopicPartition, NextOffset>, at: &TopicPartition) -> NextOffset {
    next.get(at).copied().unwrap_or_default()
}

impl Late {
    /// Begins with where the tables stand. A registered table that does not exist stands at the beginning.
    pub(super) fn begin(tables: &[TableFacts], registered: impl IntoIterator<Item = String>) -> Self {
        let mut late = Self::default();
        for name in registered {
            let next = tables.iter().find(|table| table.name == name).map(|table| table.next.clone());
            let behind = Behind { wanted: Wanted::by(&name), next: next.unwrap_or_default(), offsets: BTreeMap::new() };
            late.0.insert(name, behind);
        }
        late
    }

    pub(super) fn add(&mut self, row: &LedgerRow) {
        for behind in self.0.values_mut() {
            if row.offset >= standing(&behind.next, &row.at).0 && behind.wanted.has(row) {
                behind.offsets.entry(row.at.clone()).or_default().add(row.offset);
            }
        }
    }

    /// Whether a table, which stands at `next` now, has not come to messages of the ledger that it makes rows of.
    pub(super) fn is_late(&mut self, table: &str, next: &BTreeMap<TopicPartition, NextOffset>) -> bool {
        !self.messages(table, next).is_empty()
    }

    /// The number of messages that a table has not come to, by partition.
    fn messages(&mut self, table: &str, next: &BTreeMap<TopicPartition, NextOffset>) -> BTreeMap<TopicPartition, u64> {
        let mut counts = BTreeMap::new();
        let Some(behind) = self.0.get_mut(table) else { return counts };
        for (at, offsets) in &mut behind.offsets {
            let from = standing(next, at).0;
            let beyond = offsets.ranges().iter().map(|(start, end)| end.saturating_sub((*start).max(from)).max(0));
            let count: i64 = beyond.sum();
            if count > 0 {
                counts.insert(at.clone(), count.unsigned_abs());
            }
        }
        counts
    }

    pub(super) fn report(&mut self, table: &str, next: &BTreeMap<TopicPartition, NextOffset>, report: &mut Report) {
        let law = match table {
            "bronze.messages" => Law::Messages,
            "ops.dlq" => Law::DeadLetters,
            "gold.op_minute" => Law::Aggregates,
            _ => Law::Rows,
        };
        for (at, messages) in self.messages(table, next) {
            let what = format!(
                "{messages} messages that have rows for it have not landed, from offset {} on; start ingest, let it catch \
                 up, audit again",
                standing(next, &at)
            );
            report.add(law, table, &at, what);
        }
    }
}
