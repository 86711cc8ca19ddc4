//! Puts rewritten files in the place of others, without changing the content of the table: compaction, sorting, folding
//! of partial aggregates.

use std::collections::BTreeSet;

use async_trait::async_trait;
use iceberg::spec::{DataFile, Operation, TableMetadata};

use super::files::{Located, locate};
use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::manifests::{Builder, Removal};
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::snapshot::{self, Counts, NewSnapshot};
use crate::table::days::{day_at, day_field};
use crate::table::positions::SUMMARY_REWROTE;

/// What a rewrite does to the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowCount {
    /// The outputs hold the rows of the inputs.
    Kept,
    /// Rows were merged that mean the same together, such as partial aggregates of one key.
    Folded,
}

/// Takes the inputs away and adds the outputs, in one snapshot.
///
/// It may land on every head that lists each input once and has no row-level deletes. Rows that others have appended
/// meanwhile stay, offsets are those of the head it lands on.
#[derive(Debug, Clone)]
pub struct Replace {
    /// Locations of the files that were read.
    pub inputs: BTreeSet<String>,
    /// The files written of them, made by [`crate::TableHandle::write`].
    pub outputs: Vec<DataFile>,
    /// Whether both hold the same number of rows.
    pub rows: RowCount,
}

#[async_trait]
impl Action for Replace {
    type Refusal = Conflict;
    type Found = Located;

    fn problem(&self) -> Option<String> {
        if self.inputs.is_empty() {
            return Some("a replacement needs at least one input".to_owned());
        }
        // Data files are immutable: older snapshots still read the input under its name.
        let output = self.outputs.iter().map(DataFile::file_path).find(|path| self.inputs.contains(*path))?;
        Some(format!("the file {output} is input and output"))
    }

    fn adds(&self) -> Option<&[DataFile]> {
        Some(&self.outputs)
    }

    async fn check(&self, base: &Base<'_>) -> Result<Checked<Located, Conflict>, CommitError> {
        let located = locate(base, &self.inputs).await?;
        Ok(checked(located.and_then(|located| self.same_rows(located))))
    }

    async fn apply(&self, base: &Base<'_>, found: Located) -> Result<Change, CommitError> {
        let table = &base.head.metadata;
        let removed = Counts::of(found.entries(&self.inputs).map(|entry| entry.data_file()));
        let removal = Removal { paths: &self.inputs, touched: found.touched };
        let manifests = Builder::new(base).rewrite(found.manifests, removal, &self.outputs).await?;
        let parent = table.current_snapshot();
        let previous = parent.map(|s| &s.summary().additional_properties);
        let mut summary = snapshot::summary(previous, Counts::of(&self.outputs), removed);
        summary.extend(snapshot::standing(base.facts));
        summary.extend(self.newest_day(table).map(|day| (SUMMARY_REWROTE.to_owned(), day.to_string())));
        let new = NewSnapshot {
            // The content is the same (Iceberg spec, "Snapshots"): incremental readers may skip this snapshot.
            operation: Operation::Replace,
            parent: parent.map(|s| s.snapshot_id()),
            manifests,
            summary,
        };
        Ok(snapshot::add(base, new))
    }
}

impl Replace {
    /// The newest day partition among the outputs; `None` when one is of no day. The history of the table prefers the
    /// snapshot that closes a day (`retention::thin`).
    fn newest_day(&self, table: &TableMetadata) -> Option<i32> {
        let (position, _) = day_field(table.default_partition_spec())?;
        let days: Option<Vec<i32>> = self.outputs.iter().map(|file| day_at(file, position)).collect();
        days?.into_iter().max()
    }

    fn same_rows(&self, located: Located) -> Result<Located, Conflict> {
        // Counted from the manifests of this head and not from what the rewrite has read.
        let inputs: u64 = located.entries(&self.inputs).map(|entry| entry.data_file().record_count()).sum();
        let outputs: u64 = self.outputs.iter().map(DataFile::record_count).sum();
        match self.rows {
            RowCount::Kept if inputs != outputs => Err(Conflict::RowCount { inputs, outputs }),
            RowCount::Kept | RowCount::Folded => Ok(located),
        }
    }
}
