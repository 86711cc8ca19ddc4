//! The result of the import of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use event_schema::kind::RecordKind;

use crate::compare::Tally;
use crate::ingero::{Misfit, Table};
use crate::snapshot::Reading;

/// Cells of a column that do not fit.
#[derive(Debug, Clone)]
pub struct Misfits {
    /// How many.
    pub count: u64,
    /// The first: how its row is named, and what it holds.
    pub first: (String, Misfit),
}

/// Cells that do not fit, by table and column of the recording.
pub type Faults = BTreeMap<(&'static str, &'static str), Misfits>;

/// The result of a file that was imported.
#[derive(Debug)]
pub struct Imported {
    /// The file, as it was named.
    pub path: PathBuf,
    /// The version of its schema, `schema_info.version`, such as `0.9`.
    pub schema: String,
    /// How it was read.
    pub reading: Reading,
    /// No row names a node: the name was made of the content, or is the user's.
    pub is_unnamed: bool,
    /// The only node of the file; `None` when it has several.
    pub only_node: Option<String>,
    /// Nodes of the rows that were not left out.
    pub nodes: BTreeSet<String>,
    /// Rows that were not left out, by the name of their kind.
    pub rows: BTreeMap<&'static str, u64>,
    /// Of them: those that had not landed, and were sent.
    pub new_rows: u64,
    /// Cells that do not fit and were replaced with NULL.
    pub nulled: Faults,
    /// Rows that were left out because a cell does not fit, by that cell.
    pub skipped: Faults,
    /// Rows that were left out because they may be of several nodes, by table.
    pub unplaced: BTreeMap<&'static str, u64>,
    /// Events that had landed before, compared with those of the file.
    pub tally: Tally,
    /// Sessions whose events would have the keys of another recording's events, and take alternate keys.
    pub alternates: usize,
}

impl Imported {
    pub(crate) fn count(&mut self, kind: RecordKind, node: &str) {
        *self.rows.entry(kind.name()).or_default() += 1;
        // `insert` alone would allocate the name for every row.
        if !self.nodes.contains(node) {
            self.nodes.insert(node.to_owned());
        }
    }

    /// Rows of the file that were not left out.
    pub fn all_rows(&self) -> u64 {
        self.rows.values().sum()
    }
}

/// Counts a cell that does not fit.
pub(crate) fn count_fault(faults: &mut Faults, table: &Table, row: &str, misfit: Misfit) {
    let fault = faults.entry((table.name, misfit.column));
    // Only the first is retained: a file may have a fault in every row.
    fault.or_insert_with(|| Misfits { count: 0, first: (row.to_owned(), misfit) }).count += 1;
}
