//! Tables that do not hold yet what the ledger has for them.

use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use tables::silver;

use super::{Broken, Law, LedgerRow, report};

/// A table that stands before messages of the ledger whose rows it should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) table: String,
    pub(crate) at: TopicPartition,
    /// Where the table stands.
    pub(crate) next: NextOffset,
    /// Messages of the ledger from there on that have rows for it.
    pub(crate) messages: u64,
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

/// The messages of the ledger that a table should hold rows of, from where it stands on, by partition.
pub(crate) fn late(table: &str, next: &BTreeMap<TopicPartition, NextOffset>, ledger: &[LedgerRow]) -> Vec<Late> {
    let wanted = Wanted::by(table);
    let mut counts: BTreeMap<&TopicPartition, u64> = BTreeMap::new();
    for row in ledger.iter().filter(|row| wanted.has(row) && row.offset >= standing(next, &row.at).0) {
        *counts.entry(&row.at).or_default() += 1;
    }
    let late = counts.into_iter().map(|(at, messages)| Late {
        table: table.to_owned(),
        at: at.clone(),
        next: standing(next, at),
        messages,
    });
    late.collect()
}

/// Where a table stands in a partition: at the beginning of one that it has nothing of.
fn standing(next: &BTreeMap<TopicPartition, NextOffset>, at: &TopicPartition) -> NextOffset {
    next.get(at).copied().unwrap_or_default()
}

pub(super) fn not_landed(late: &Late, broken: &mut Vec<Broken>) {
    let law = match late.table.as_str() {
        "bronze.messages" => Law::Messages,
        "ops.dlq" => Law::DeadLetters,
        "gold.op_minute" => Law::Aggregates,
        _ => Law::Rows,
    };
    let what = format!(
        "{} messages that have rows for it have not landed, from offset {} on; start ingest, let it catch up, audit again",
        late.messages, late.next
    );
    report(broken, law, &late.table, &late.at, what);
}
