//! Which node a row belongs to. Rows of newer schemas say so; snapshots, process names, stacks and cgroups never do, and in a
//! merged file they are told apart by the sessions and events around them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_schema::batch::Value;

use super::{Database, IngeroError, Row, TABLES, Table};

/// What a file says about its nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// `--node`, for rows that name none.
    given: Option<String>,
    /// The only node, or the first one; the name of the file when no row names any.
    fallback: String,
    is_one: bool,
    sessions: Vec<Session>,
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
        let mut named: HashMap<&'static str, BTreeMap<i64, String>> = HashMap::new();
        let has_nodes = database.has_column("events", "node").await?;
        if has_nodes && database.has_column("sessions", "node").await? {
            let sql = "SELECT node, started_at, stopped_at FROM sessions WHERE node <> '' ORDER BY started_at";
            for (node, started_ns, stopped_ns) in database.triples("sessions", sql).await? {
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
        Ok(Self { given: given.map(str::to_owned), fallback, is_one, sessions, named, began_ns })
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

impl Session {
    fn distance_ns(&self, time_ns: i64) -> u64 {
        let before = self.started_ns.saturating_sub(time_ns);
        let after = time_ns.saturating_sub(self.stopped_ns);
        u64::try_from(before.max(after)).unwrap_or(0)
    }
}
