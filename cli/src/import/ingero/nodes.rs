//! Which node a row belongs to. Rows of newer schemas say so; snapshots, process names, stacks and cgroups never do, and in a
//! merged file they are told apart by the sessions and events around them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_schema::batch::Value;
use event_schema::identity::SEQS_MAX;
use event_schema::kind::RecordKind;

use super::{Row, TABLES, Table};
use crate::import::parcel::Digest;

/// Columns of `sessions` that a tracer writes once, when it starts: they say on which host it ran.
const HOST_COLUMNS: &[&str] = &["started_at", "cpu_model", "cpu_cores", "mem_total", "kernel"];

/// What the first reading of a file learns about its nodes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    names: BTreeSet<String>,
    sessions: Vec<Session>,
    /// For each column of `events` that names rows of other tables: value → first node to use it.
    named: HashMap<&'static str, BTreeMap<i64, String>>,
    /// Earliest event by node; the empty name stands for none.
    began_ns: BTreeMap<String, i64>,
    /// Of the first row of a table: what a file without names is named after.
    first: BTreeMap<u8, Digest>,
}

/// What a file says about its nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// The only node, or the first one, or that of a file that names none.
    fallback: String,
    is_one: bool,
    /// Whether no row names a node.
    pub(crate) is_unnamed: bool,
    sessions: Vec<Session>,
    named: HashMap<&'static str, BTreeMap<i64, String>>,
    began_ns: BTreeMap<String, i64>,
}

/// A run of the tracer on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    node: String,
    started_ns: i64,
    stopped_ns: i64,
    /// Of its beginning and its host.
    pub(crate) digest: Digest,
}

impl Survey {
    /// Takes in a row.
    pub(crate) fn note(&mut self, table: &'static Table, row: &Row) {
        let node = row.node.clone().unwrap_or_default();
        if !node.is_empty() {
            self.names.insert(node.clone());
        }
        // A session is the surest name, then an event, then any other row.
        let rank = match table.kind {
            RecordKind::Session => 0,
            RecordKind::Event => 1,
            _ => 2,
        };
        if table.kind == RecordKind::Session {
            self.note_session(table, row, &node);
        }
        self.first.entry(rank).or_insert_with(|| match table.kind {
            RecordKind::Session => host_digest(table, row),
            _ => Digest::of_row(table, &row.cells),
        });
        if table.kind == RecordKind::Event {
            self.note_event(table, row, node);
        }
    }

    fn note_session(&mut self, table: &Table, row: &Row, node: &str) {
        let time = |at: usize| if let Value::Long(ns) = row.cells[at] { Some(ns) } else { None };
        let Some(started_ns) = time(0) else { return };
        self.sessions.push(Session {
            node: node.to_owned(),
            started_ns,
            // A session that never stopped goes on.
            stopped_ns: time(1).unwrap_or(i64::MAX),
            digest: host_digest(table, row),
        });
    }

    fn note_event(&mut self, table: &Table, row: &Row, node: String) {
        if let Some(ns) = table.time_of(&row.cells) {
            let began_ns = self.began_ns.entry(node.clone()).or_insert(ns);
            *began_ns = ns.min(*began_ns);
        }
        if node.is_empty() {
            return;
        }
        for column in TABLES.iter().filter_map(|table| table.named_by).map(|(_, column)| column) {
            let Some(at) = table.columns.iter().position(|of| of.name == column) else { continue };
            if let Value::Long(key) = row.cells[at]
                && key != 0
            {
                let first = self.named.entry(column).or_default().entry(key).or_insert_with(|| node.clone());
                if node < *first {
                    first.clone_from(&node);
                }
            }
        }
    }

    /// What a whole file says. `given` is the user's `--node`.
    pub(crate) fn finish(self, given: Option<&str>) -> Nodes {
        let Self { names, mut sessions, named, began_ns, first } = self;
        let is_unnamed = names.is_empty();
        let is_one = names.len() <= 1;
        // A name that follows from the content: under another file name the rows belong to the same node.
        let unnamed = || {
            let digest = first.values().next().map(Digest::hex).unwrap_or_default();
            format!("recording-{}", digest.get(..8).unwrap_or("empty"))
        };
        let fallback = names.first().cloned().or_else(|| given.map(str::to_owned)).unwrap_or_else(unnamed);
        if is_one {
            for session in sessions.iter_mut().filter(|session| session.node.is_empty()) {
                session.node.clone_from(&fallback);
            }
        }
        sessions.retain(|session| !session.node.is_empty());
        sessions.sort_by_key(|session| session.started_ns);
        Nodes { fallback, is_one, is_unnamed, sessions, named, began_ns }
    }
}

/// What identifies a session: when it began, and on which host.
fn host_digest(table: &Table, row: &Row) -> Digest {
    let is_host = |column: &&str| HOST_COLUMNS.contains(column);
    let cells = table.columns.iter().map(|column| column.name).zip(&row.cells);
    Digest::of_cells("session", cells.filter(|(column, _)| is_host(column)))
}

impl Nodes {
    /// The only node of the file, if it has one.
    pub(crate) fn only(&self) -> Option<&str> {
        self.is_one.then_some(self.fallback.as_str())
    }

    /// The session in which something happened on a node; `None` before the first.
    pub(crate) fn session_of(&self, node: &str, time_ns: Option<i64>) -> Option<&Session> {
        let time_ns = time_ns?;
        self.sessions.iter().rev().find(|session| session.node == node && session.started_ns <= time_ns)
    }

    /// The node of a row: what it says, else the file's only node, else what the rows around it say.
    pub(crate) fn node_of<'a>(&'a self, table: &Table, row: &'a Row) -> &'a str {
        if let Some(node) = row.node.as_deref() {
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
        let started = || self.sessions.first().map(|session| session.started_ns);
        table.time_of(&row.cells).or_else(began).or_else(started).unwrap_or(0)
    }
}

/// The number the tracer gave an event: its id, or what stands behind the node in it.
pub(crate) fn event_number(id: &Value, node: &str) -> Option<i64> {
    let number = match id {
        Value::Long(number) => *number,
        Value::Text(id) => {
            let of_node = id.strip_prefix(node).and_then(|rest| rest.strip_prefix(':'));
            of_node.unwrap_or(id).parse().ok()?
        }
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
