//! Which node a row belongs to. Rows of newer schemas name it; snapshots, process names, stacks and cgroups never do,
//! and in a merged file they are distinguished by the sessions and events around them. A row that may be of several
//! nodes is left out: under the wrong node it would falsify that node's answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_schema::batch::Value;
use event_schema::identity::SEQS_MAX;
use event_schema::kind::RecordKind;

use super::{Row, TABLES, Table};
use crate::digest::Digest;

/// Columns of `sessions` that a tracer writes once, when it starts: they identify the host.
const HOST_COLUMNS: &[&str] = &["started_at", "cpu_model", "cpu_cores", "mem_total", "kernel"];
/// Aggregates are of a minute each.
const MINUTE_NS: i64 = 60_000_000_000;

/// What the first reading of a file collects about its nodes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    names: BTreeSet<String>,
    sessions: Vec<Session>,
    /// For each column of `events` that names rows of other tables: value → the node that uses it.
    named: HashMap<&'static str, BTreeMap<i64, User>>,
    /// Earliest and latest event by node; the empty name stands for none.
    spans_ns: BTreeMap<String, (i64, i64)>,
    /// The first session. A file without names is named after it, since tracers delete old events but no sessions.
    first_session: Option<Digest>,
    has_rows: bool,
    /// The earliest time of any row.
    earliest_ns: Option<i64>,
}

/// The nodes of a file, found by reading all of it.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// The only node, or the first one, or that of a file that names none.
    fallback: String,
    is_one: bool,
    /// Whether no row names a node.
    pub(crate) is_unnamed: bool,
    /// Of nodes that are known, in the order in which they began.
    sessions: Vec<Session>,
    /// When each node was recorded: first and last moment. The empty name stands for one that is not known.
    recorded: Vec<(String, i64, i64)>,
    named: HashMap<&'static str, BTreeMap<i64, User>>,
    spans_ns: BTreeMap<String, (i64, i64)>,
    earliest_ns: Option<i64>,
}

/// The node whose events use a number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    /// The first by name, when there are several.
    node: String,
    is_one: bool,
}

impl User {
    /// Takes notice that an event of a node uses the number.
    fn note(&mut self, node: &str) {
        if self.node == node {
            return;
        }
        self.is_one = false;
        // The first by name: the result does not depend on the order of the events.
        if node < self.node.as_str() {
            node.clone_into(&mut self.node);
        }
    }
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

impl Session {
    /// Whether it ran in the minute that begins at a time, unix nanoseconds.
    fn has_part_of(&self, minute_ns: i64) -> bool {
        self.started_ns < minute_ns + MINUTE_NS && self.stopped_ns >= minute_ns
    }
}

impl Survey {
    /// Records a row.
    pub(crate) fn note(&mut self, table: &'static Table, row: &Row) {
        let node = row.node.clone().unwrap_or_default();
        if !node.is_empty() {
            self.names.insert(node.clone());
        }
        self.has_rows = true;
        if let Some(ns) = table.time_of(&row.cells) {
            self.earliest_ns = Some(self.earliest_ns.map_or(ns, |earliest| earliest.min(ns)));
        }
        if table.kind == RecordKind::Session {
            // Rows come sorted by their beginning: the first is the earliest, in every later state of the file too.
            self.first_session.get_or_insert_with(|| host_digest(table, row));
            self.note_session(table, row, &node);
        }
        if table.kind == RecordKind::Event {
            self.note_event(table, row, node);
        }
    }

    fn note_session(&mut self, table: &Table, row: &Row, node: &str) {
        let Value::Long(started_ns) = row.cells[0] else { return };
        self.sessions.push(Session {
            node: node.to_owned(),
            started_ns,
            // The tracer writes the end when it stops: a session without one goes on, or its tracer was killed.
            stopped_ns: if let Value::Long(ns) = row.cells[1] { ns } else { i64::MAX },
            digest: host_digest(table, row),
        });
    }

    fn note_event(&mut self, table: &Table, row: &Row, node: String) {
        if let Some(ns) = table.time_of(&row.cells) {
            match self.spans_ns.get_mut(&node) {
                Some((first, last)) => {
                    *first = ns.min(*first);
                    *last = ns.max(*last);
                }
                None => drop(self.spans_ns.insert(node.clone(), (ns, ns))),
            }
        }
        if node.is_empty() {
            return;
        }
        // Only an event with a node is evidence of whose process, stack or cgroup a number is.
        for column in TABLES.iter().filter_map(|table| table.named_by).map(|(_, column)| column) {
            let Some(at) = table.columns.iter().position(|of| of.name == column) else { continue };
            if let Value::Long(key) = row.cells[at]
                // 0 stands for no stack and no cgroup, and as a process for the idle task of the kernel.
                && key != 0
            {
                let users = self.named.entry(column).or_default();
                users.entry(key).or_insert_with(|| User { node: node.clone(), is_one: true }).note(&node);
            }
        }
    }

    /// The nodes of a whole file. `given` is the user's `--node`. `None` for a file that can only be named after an
    /// event: its tracer deletes the oldest events, and the file would be another node's each time.
    pub(crate) fn finish(self, given: Option<&str>) -> Option<Nodes> {
        let Self { names, mut sessions, named, spans_ns, first_session, has_rows, earliest_ns } = self;
        let is_unnamed = names.is_empty();
        let is_one = names.len() <= 1;
        let fallback = match (names.first(), given, first_session) {
            (Some(name), ..) => name.clone(),
            (None, Some(given), _) => given.to_owned(),
            // A name that follows from the content: under another file name the rows belong to the same node.
            (None, None, Some(digest)) => format!("recording-{}", digest.hex().get(..8).unwrap_or_default()),
            (None, None, None) if !has_rows => "recording-empty".to_owned(),
            (None, None, None) => return None,
        };
        // Before sorting and retaining below: in a file of several nodes a session without a name stays out.
        if is_one {
            for session in sessions.iter_mut().filter(|session| session.node.is_empty()) {
                session.node.clone_from(&fallback);
            }
        }
        sessions.sort_by_key(|session| session.started_ns);
        let mut recorded: Vec<_> =
            sessions.iter().map(|session| (session.node.clone(), session.started_ns, session.stopped_ns)).collect();
        // Without a session the events alone show when a node was recorded: from its first to its last.
        for (node, (first_ns, last_ns)) in &spans_ns {
            if !node.is_empty() && sessions.iter().all(|session| session.node != *node) {
                recorded.push((node.clone(), *first_ns, *last_ns));
            }
        }
        // After `recorded`, where a session of an unnamed node still makes its time ambiguous.
        sessions.retain(|session| !session.node.is_empty());
        Some(Nodes { fallback, is_one, is_unnamed, sessions, recorded, named, spans_ns, earliest_ns })
    }
}

/// What identifies a session: when it began, and on which host.
fn host_digest(table: &Table, row: &Row) -> Digest {
    let cells = table.columns.iter().map(|column| column.name).zip(&row.cells);
    Digest::of_cells("session", cells.filter(|(column, _)| HOST_COLUMNS.contains(column)))
}

impl Nodes {
    /// The only node of the file, if it has one.
    pub(crate) fn only(&self) -> Option<&str> {
        self.is_one.then_some(self.fallback.as_str())
    }

    /// The session in which something happened on a node; `None` before the first.
    pub(crate) fn session_of(&self, node: &str, time_ns: Option<i64>) -> Option<&Session> {
        let time_ns = time_ns?;
        // Sorted by beginning: from the end, the first match is the latest session that had begun.
        self.sessions.iter().rev().find(|session| session.node == node && session.started_ns <= time_ns)
    }

    /// The session of a row. A minute of aggregates belongs to the first session of which it has a part: a later
    /// session in the same minute changes nothing about what was imported before it.
    pub(crate) fn session_of_row(&self, table: &Table, row: &Row, node: &str) -> Option<&Session> {
        let time_ns = table.time_of(&row.cells);
        if table.kind == RecordKind::Aggregate
            && let Some(begin_ns) = time_ns
        {
            let first = self.sessions.iter().find(|session| session.node == node && session.has_part_of(begin_ns));
            return first.or_else(|| self.session_of(node, time_ns));
        }
        self.session_of(node, time_ns)
    }

    /// The node of a row: the one it names, else the file's only node, else the one node that the rows around it leave;
    /// `None` where they leave several.
    pub(crate) fn node_of<'a>(&'a self, table: &Table, row: &'a Row) -> Option<&'a str> {
        if let Some(node) = row.node.as_deref() {
            return Some(node);
        }
        if self.is_one {
            return Some(&self.fallback);
        }
        match table.kind {
            // The number of a stack is a hash of its content: it is the same stack on every node, and any of them may
            // have it.
            RecordKind::Stack => Some(self.user_of(table, row).map_or(self.fallback.as_str(), |user| &user.node)),
            // Its time cannot place it: the recordings of that time include its own, of an unknown node.
            RecordKind::Session => None,
            _ => self.only_recorded(table, row).or_else(|| {
                let user = self.user_of(table, row)?;
                user.is_one.then_some(user.node.as_str())
            }),
        }
    }

    /// The node that alone was recorded when a row happened.
    fn only_recorded(&self, table: &Table, row: &Row) -> Option<&str> {
        let first_ns = table.time_of(&row.cells)?;
        // An aggregate has the beginning of its minute: any node that was recorded within it may have made it.
        let last_ns = if table.kind == RecordKind::Aggregate { first_ns + MINUTE_NS - 1 } else { first_ns };
        let mut nodes = self.recorded.iter().filter(|(_, began, ended)| *began <= last_ns && *ended >= first_ns);
        let (only, ..) = nodes.next()?;
        // Several sessions of one node are one candidate; a session of an unnamed node makes the row ambiguous.
        (!only.is_empty() && nodes.all(|(node, ..)| node == only)).then_some(only)
    }

    /// Whose events use the number of a row.
    fn user_of(&self, table: &Table, row: &Row) -> Option<&User> {
        let (at, column) = table.named_by?;
        let Value::Long(key) = row.cells[at] else { return None };
        self.named.get(column)?.get(&key)
    }

    /// When a row happened. Rows without a time belong to the beginning of their node's recording; `None` where no row
    /// of the file has a time.
    pub(crate) fn time_of(&self, table: &Table, row: &Row, node: &str) -> Option<i64> {
        if let Some(time_ns) = table.time_of(&row.cells) {
            return Some(time_ns);
        }
        if let Some((first_ns, _)) = self.spans_ns.get(node) {
            return Some(*first_ns);
        }
        let session = self.sessions.iter().find(|session| session.node == node);
        session.map(|session| session.started_ns).or(self.earliest_ns)
    }
}

/// The number the tracer gave an event: its id, or what stands behind the node in it.
pub(crate) fn event_number(id: &Value, node: &str) -> Option<i64> {
    let number = match id {
        Value::Long(number) => *number,
        Value::Text(id) => {
            // A merged file has `node:number`. Behind another node's name the rest is no number, and the event is keyed
            // by content.
            let of_node = id.strip_prefix(node).and_then(|rest| rest.strip_prefix(':'));
            of_node.unwrap_or(id).parse().ok()?
        }
        _ => return None,
    };
    // A sequence number has 36 bits: a larger one would change the bits of its stream.
    (0..SEQS_MAX).contains(&number).then_some(number)
}
