//! Which records a question is about. Losses of others do not concern it, and a table without nodes has no missing
//! ones.

use event_schema::kind::RecordKind;
use query_engine::UsedSnapshot;
use tables::{registry, silver};

/// What a question reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Whether any of its tables has rows of nodes.
    pub has_nodes: bool,
    /// The kinds of records that its tables are made of.
    kinds: Vec<RecordKind>,
}

impl Subject {
    /// Events, and all that is derived from them.
    pub fn events() -> Self {
        Self { has_nodes: true, kinds: vec![RecordKind::Event] }
    }

    /// Records of every kind.
    pub fn everything() -> Self {
        Self { has_nodes: true, kinds: RecordKind::ALL.to_vec() }
    }

    /// What the tables hold that a statement reads.
    pub fn of(snapshots: &[UsedSnapshot]) -> Self {
        let has_nodes = snapshots.iter().any(|used| has_node(&used.table));
        let mut kinds = RecordKind::ALL.to_vec();
        kinds.retain(|kind| snapshots.iter().any(|used| is_made_of(&used.table, *kind)));
        Self { has_nodes, kinds }
    }

    /// The condition on the ledger's rows of messages whose rows a table of the question may have.
    pub(super) fn with_rows(&self) -> String {
        // As for `ops.ledger` itself: any message has a row there, whatever records it carries.
        if self.kinds.is_empty() { "true".to_owned() } else { self.of_kinds() }
    }

    /// The condition on the ledger's rows of messages that carry these records.
    pub(super) fn of_kinds(&self) -> String {
        // No loss of records takes a row from such a table; and `IN ()` is no SQL.
        if self.kinds.is_empty() {
            return "false".to_owned();
        }
        let names: Vec<String> = self.kinds.iter().map(|kind| format!("'{}'", kind.name())).collect();
        format!("kind IN ({})", names.join(", "))
    }
}

/// Whether the rows of a table name their node.
fn has_node(table: &str) -> bool {
    // A name without a namespace is no table of the registry, so it has no nodes.
    let (namespace, name) = table.split_once('.').unwrap_or_default();
    registry::find(namespace, name).is_some_and(|table| table.def.column("node").is_some())
}

fn is_made_of(table: &str, kind: RecordKind) -> bool {
    // `gold.op_minute` is aggregated from events: an event that is lost is missing from its counts too.
    table == silver::name(kind).to_string() || (table == "gold.op_minute" && kind == RecordKind::Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tables: &[&str]) -> Subject {
        let used = |table: &&str| UsedSnapshot { table: (*table).to_owned(), snapshot_id: None, committed_ms: None };
        Subject::of(&tables.iter().map(used).collect::<Vec<_>>())
    }

    #[test]
    fn a_statement_is_about_the_records_of_its_tables_and_about_nodes_only_where_a_table_has_them() {
        assert_eq!(of(&["silver.events", "bronze.messages"]), Subject::events());
        assert_eq!(of(&["gold.op_minute"]), Subject::events());
        assert_eq!(of(&["silver.nodes"]).of_kinds(), "kind IN ('session')");
        assert!(of(&["silver.nodes"]).has_nodes);
        let ledger = of(&["ops.ledger"]);
        assert_eq!(
            (ledger.has_nodes, ledger.of_kinds().as_str()),
            (true, "false"),
            "no loss makes the ledger incomplete"
        );
        assert!(!of(&["bronze.messages"]).has_nodes);
        assert!(!of(&[]).has_nodes, "SELECT 1");
    }
}
