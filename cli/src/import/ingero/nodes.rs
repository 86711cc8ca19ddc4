//! Which node a row belongs to. Rows of newer schemas say so; snapshots, process names, stacks and cgroups never do, and in a
//! merged file they are told apart by the sessions and events around them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_schema::batch::Value;
use event_schema::identity::SEQS_MAX;
use event_schema::kind::RecordKind;

use super::{Database, IngeroError, Row, TABLES, Table};
use crate::import::parcel::{ParcelKey, Part};

/// What a file says about its nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// `--node`, for rows that name none.
    given: Option<String>,
    /// The only node, or the first one; the name of the file when no row names any.
    fallback: String,
    is_one: bool,
    sessions: Vec<Session>,
    /// When each node's sessions began, in order; under no name those of a file that tells of one node without naming it.
    starts_ns: BTreeMap<String, Vec<i64>>,
    /// For each column of `events` that names rows of other tables: value → first node to use it.
    named: HashMap<&'static str, BTreeMap<i64, String>>,
    /// Earliest event by node: the time of rows that have none of their own.
    began_ns: BTreeMap<String, i64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Session {
    node: String,
    started_ns: i64,
    stopped_ns: i64,
}

impl Nodes {
    /// Surveys a file. `given` is the user's `--node`, `stem` the name of the file without its ending.
    pub(crate) async fn of(database: &mut Database, given: Option<&str>, stem: &str) -> Result<Self, IngeroError> {
        let mut names = BTreeSet::new();
        let mut sessions = Vec::new();
        let mut starts_ns: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut named: HashMap<&'static str, BTreeMap<i64, String>> = HashMap::new();
        let has_nodes = database.has_column("events", "node").await?;
        if database.has_column("sessions", "started_at").await? {
            let node = if has_nodes && database.has_column("sessions", "node").await? { "node" } else { "''" };
            let sql = format!("SELECT {node}, started_at, stopped_at FROM sessions ORDER BY started_at");
            for (node, started_ns, stopped_ns) in database.triples("sessions", &sql).await? {
                starts_ns.entry(node.clone()).or_default().push(started_ns);
                if node.is_empty() {
                    continue;
                }
                names.insert(node.clone());
                // A session that never stopped goes on.
                let stopped_ns = if stopped_ns == 0 { i64::MAX } else { stopped_ns };
                sessions.push(Session { node, started_ns, stopped_ns });
            }
        }
        let node = if has_nodes { "node" } else { "''" };
        let began = format!("SELECT {node}, min(timestamp), count(*) FROM events GROUP BY 1 ORDER BY 1");
        let mut began_ns = BTreeMap::new();
        for (node, first, _) in database.triples("events", &began).await? {
            if !node.is_empty() {
                names.insert(node.clone());
            }
            began_ns.insert(node, first);
        }
        let is_one = names.len() <= 1;
        if !is_one {
            for column in TABLES.iter().filter_map(|table| table.named_by).map(|(_, column)| column) {
                if database.has_column("events", column).await? {
                    let sql = format!(
                        "SELECT min(node), {column}, count(*) FROM events WHERE node <> '' AND {column} <> 0 GROUP BY {column}"
                    );
                    let pairs = database.triples("events", &sql).await?.into_iter().map(|(node, key, _)| (key, node));
                    named.insert(column, pairs.collect());
                }
            }
        }
        let fallback = names.into_iter().next().unwrap_or_else(|| stem.to_owned());
        Ok(Self { given: given.map(str::to_owned), fallback, is_one, sessions, starts_ns, named, began_ns })
    }

    /// The parcel of a row, and the row's own number in it where it has one.
    pub(crate) fn place(&self, table: &Table, row: &Row) -> (ParcelKey, Option<i64>) {
        let node = self.node_of(table, row);
        let (part, number) = self.part_of(table, row, node);
        (ParcelKey { node: node.to_owned(), kind: table.kind, part }, number)
    }

    fn part_of(&self, table: &Table, row: &Row, node: &str) -> (Part, Option<i64>) {
        let time_ns = table.time_of(&row.cells);
        match table.kind {
            RecordKind::Event => match (event_number(&row.cells[0], node), self.session_of(node, time_ns)) {
                (Some(number), Some(started_ns)) => (Part::Session(started_ns), Some(number)),
                _ => (Part::Whole, None),
            },
            // As an agent of ours tells them: once when they begin, and once more when they have ended.
            RecordKind::Session => match (&row.cells[0], &row.cells[1]) {
                (Value::Long(started_ns), Value::Long(stopped_ns)) => {
                    (Part::Session(*started_ns), Some(i64::from(*stopped_ns != 0)))
                }
                _ => (Part::Whole, None),
            },
            RecordKind::System | RecordKind::Aggregate => {
                (time_ns.map_or(Part::Whole, |ns| Part::Minute(ns.div_euclid(60_000_000_000))), None)
            }
            _ => (Part::Whole, None),
        }
    }

    /// When the session began in which something happened on a node; `None` before the first.
    fn session_of(&self, node: &str, time_ns: Option<i64>) -> Option<i64> {
        let unnamed = || self.starts_ns.get("").filter(|_| self.is_one);
        let starts_ns = self.starts_ns.get(node).or_else(unnamed)?;
        let begun = starts_ns.partition_point(|started_ns| time_ns.is_some_and(|ns| *started_ns <= ns));
        starts_ns.get(begun.checked_sub(1)?).copied()
    }

    /// The node of a row: what it says, else `--node`, else what the rows around it say.
    pub(crate) fn node_of<'a>(&'a self, table: &Table, row: &'a Row) -> &'a str {
        if let Some(node) = row.node.as_deref().or(self.given.as_deref()) {
            return node;
        }
        if self.is_one {
            return &self.fallback;
        }
        let time = table.time_of(&row.cells);
        let within = || self.sessions.iter().find(|s| time.is_some_and(|t| (s.started_ns..=s.stopped_ns).contains(&t)));
        let by_name = || {
            let (at, column) = table.named_by?;
            let Value::Long(key) = row.cells[at] else { return None };
            self.named.get(column)?.get(&key).map(String::as_str)
        };
        let nearest = || self.sessions.iter().min_by_key(|s| time.map_or(0, |t| s.distance_ns(t)));
        within()
            .map(|s| s.node.as_str())
            .or_else(by_name)
            .or_else(|| time.and_then(|_| nearest()).map(|s| s.node.as_str()))
            .unwrap_or(&self.fallback)
    }

    /// When a row happened. Rows without a time belong to the beginning of their node's recording.
    pub(crate) fn time_of(&self, table: &Table, row: &Row, node: &str) -> i64 {
        let began = || self.began_ns.get(node).or(self.began_ns.values().min()).copied();
        table.time_of(&row.cells).or_else(began).unwrap_or(0)
    }
}

/// The number the tracer gave an event: its id, or what stands behind the node in it.
fn event_number(id: &Value, node: &str) -> Option<i64> {
    let number = match id {
        Value::Long(number) => *number,
        Value::Text(id) => id.strip_prefix(node)?.strip_prefix(':')?.parse().ok()?,
        _ => return None,
    };
    (0..SEQS_MAX).contains(&number).then_some(number)
}

impl Session {
    fn distance_ns(&self, time_ns: i64) -> u64 {
        let before = self.started_ns.saturating_sub(time_ns);
        let after = time_ns.saturating_sub(self.stopped_ns);
        u64::try_from(before.max(after)).unwrap_or(0)
    }
}
