//! What a rewrite must keep, folded over its rows in any order: once over what is read, once over what was written and
//! read back. Each difference refuses the commit and names the column or the node.
//!
//! A row has a 64-bit hash over all its columns; hashes are added up, so that the sum does not depend on the order. The
//! columns have sums of their own, which say where a difference is. Columns that are null in all rows add nothing, so
//! that a file from before a column was added and one that has it as nulls agree.

mod columns;

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::error::ArrowError;
use tables::def::TableDef;
use tables::gold::op_minute;
use tables::hash::mix;

use columns::{Extremes, seed};

/// The column by whose values sums are kept apart, in tables that have it.
const NODE: &str = "node";

/// What a rewrite must keep.
#[derive(Debug, Clone)]
pub struct Kept {
    rows: u64,
    sums: Sums,
}

#[derive(Debug, Clone)]
enum Sums {
    /// Every row stays.
    Rows(Box<RowPrint>),
    /// Rows of one key are merged: what they add up to stays.
    Folded(op_minute::Conserved),
}

impl Kept {
    /// Of no rows yet. `folds`: rows of one key may be merged.
    pub fn new(def: &TableDef, folds: bool) -> Self {
        let sums = match folds {
            true => Sums::Folded(op_minute::Conserved::default()),
            false => Sums::Rows(Box::new(RowPrint::new(def))),
        };
        Self { rows: 0, sums }
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows in the columns and types of the table's definition.
    ///
    /// # Errors
    /// The rows have other columns.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += rows.num_rows() as u64;
        match &mut self.sums {
            Sums::Rows(print) => print.add(rows),
            Sums::Folded(conserved) => conserved.add(rows),
        }
    }

    /// Compares what was read (`self`) with what was written.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, written: &Self) -> Result<(), Difference> {
        match (&self.sums, &written.sums) {
            (Sums::Rows(_), Sums::Rows(_)) if self.rows != written.rows => {
                Err(Difference::Rows { read: self.rows, written: written.rows })
            }
            (Sums::Rows(read), Sums::Rows(written)) => read.compare(written),
            (Sums::Folded(read), Sums::Folded(written)) => match read.difference(written) {
                None => Ok(()),
                Some(op_minute::Difference { node, column }) => Err(Difference::Sum { node, column }),
            },
            // Both sides are made by the same rewriter, so that this is not taken.
            _ => Err(Difference::Kind),
        }
    }
}

/// How what was written differs from what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    #[error("{read} rows were read and {written} written")]
    Rows { read: u64, written: u64 },
    #[error("column {column} has {read} nulls in what was read and {written} in what was written")]
    Nulls { column: &'static str, read: u64, written: u64 },
    #[error("the least or greatest value of column {column} differs")]
    Bounds { column: &'static str },
    #[error("node {node} has {read} rows in what was read and {written} in what was written")]
    NodeRows { node: String, read: u64, written: u64 },
    #[error("values of column {column} differ")]
    Values { column: &'static str },
    #[error("values of node {node} belong to other rows")]
    Node { node: String },
    #[error("values belong to other rows")]
    Pairing,
    #[error("column {column} of node {node} does not add up to what was read")]
    Sum { node: String, column: &'static str },
    #[error("folded rows were compared with rows that are kept")]
    Kind,
    #[error("the manifests count {recorded} rows, and {read} were read")]
    Recorded { recorded: u64, read: u64 },
}

/// Sums over rows that are kept as they are.
#[derive(Debug, Clone)]
struct RowPrint {
    schema: SchemaRef,
    names: Vec<&'static str>,
    /// Of the hashes of all rows.
    checksum: u64,
    columns: Vec<ColumnPrint>,
    /// Least and greatest values of the columns that the table is sorted by, with their places.
    bounds: Vec<(usize, Option<Extremes>)>,
    node: Option<usize>,
    nodes: BTreeMap<String, NodePrint>,
    /// Hashes of the rows of one batch, kept for the next one.
    scratch: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ColumnPrint {
    seed: u64,
    nulls: u64,
    checksum: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct NodePrint {
    rows: u64,
    checksum: u64,
}

impl RowPrint {
    fn new(def: &TableDef) -> Self {
        Self {
            schema: def.arrow_schema(),
            names: def.columns.iter().map(|column| column.name).collect(),
            checksum: 0,
            // By field id: it stays when a column is renamed.
            columns: def.columns.iter().map(|c| ColumnPrint { seed: seed(c.id), ..ColumnPrint::default() }).collect(),
            bounds: def.sort.iter().filter_map(|name| position(def, name)).map(|at| (at, None)).collect(),
            // A word: the sums of a batch are kept by its key.
            node: position(def, NODE).filter(|at| def.columns.get(*at).is_some_and(|column| column.dictionary)),
            nodes: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        if rows.schema_ref().fields().len() != self.schema.fields().len() {
            return Err(ArrowError::SchemaError("rows do not have the columns of their table".to_owned()));
        }
        // The allocation of the batch before is used again.
        self.scratch.clear();
        self.scratch.resize(rows.num_rows(), 0);
        for (array, print) in rows.columns().iter().zip(&mut self.columns) {
            // What the decoder counts as null, values of a dictionary included.
            print.nulls += array.logical_null_count() as u64;
            print.checksum = print.checksum.wrapping_add(columns::add(array, print.seed, &mut self.scratch)?);
        }
        for (at, extremes) in &mut self.bounds {
            columns::extend(extremes, rows.column(*at))?;
        }
        // Once more mixed: the sum of the hashes of the columns alone would not show that values changed their rows.
        for hash in &mut self.scratch {
            *hash = mix(*hash);
        }
        self.checksum = self.scratch.iter().fold(self.checksum, |sum, hash| sum.wrapping_add(*hash));
        self.add_nodes(rows);
        Ok(())
    }

    fn add_nodes(&mut self, rows: &RecordBatch) {
        let node = self.node.and_then(|at| rows.column(at).as_dictionary_opt::<Int32Type>());
        let Some((node, names)) = node.and_then(|node| Some((node, node.values().as_string_opt::<i32>()?))) else {
            return;
        };
        let mut found = vec![NodePrint::default(); names.len()];
        for (key, hash) in node.keys().iter().zip(&self.scratch) {
            let Some(print) = key.and_then(|key| found.get_mut(usize::try_from(key).ok()?)) else { continue };
            print.rows += 1;
            print.checksum = print.checksum.wrapping_add(*hash);
        }
        // A dictionary may have words that no row uses, and one word twice.
        for (place, print) in found.into_iter().enumerate().filter(|(_, print)| print.rows > 0) {
            let held = self.nodes.entry(names.value(place).to_owned()).or_default();
            held.rows += print.rows;
            held.checksum = held.checksum.wrapping_add(print.checksum);
        }
    }

    fn compare(&self, written: &Self) -> Result<(), Difference> {
        let columns = self.names.iter().copied().zip(self.columns.iter().zip(&written.columns));
        for (column, (read, written)) in columns.clone() {
            if read.nulls != written.nulls {
                return Err(Difference::Nulls { column, read: read.nulls, written: written.nulls });
            }
        }
        for ((at, read), (_, written)) in self.bounds.iter().zip(&written.bounds) {
            if read != written {
                return Err(Difference::Bounds { column: self.names.get(*at).copied().unwrap_or_default() });
            }
        }
        // Rows of nodes before values: a node that lost rows says more than the columns that differ for it.
        self.compare_nodes(written, |read, written, node| match read.rows == written.rows {
            true => None,
            false => Some(Difference::NodeRows { node, read: read.rows, written: written.rows }),
        })?;
        for (column, (read, written)) in columns {
            if read != written {
                return Err(Difference::Values { column });
            }
        }
        self.compare_nodes(written, |read, written, node| (read != written).then_some(Difference::Node { node }))?;
        if self.checksum == written.checksum { Ok(()) } else { Err(Difference::Pairing) }
    }

    fn compare_nodes(
        &self,
        written: &Self,
        differ: impl Fn(NodePrint, NodePrint, String) -> Option<Difference>,
    ) -> Result<(), Difference> {
        for node in self.nodes.keys().chain(written.nodes.keys()) {
            let [ours, theirs] = [self, written].map(|side| side.nodes.get(node).copied().unwrap_or_default());
            if let Some(difference) = differ(ours, theirs, node.clone()) {
                return Err(difference);
            }
        }
        Ok(())
    }
}

fn position(def: &TableDef, name: &str) -> Option<usize> {
    def.columns.iter().position(|column| column.name == name)
}

#[cfg(test)]
mod tests;
