//! Puts rows that were made anew from their messages in the place of the former ones, in one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use event_schema::position::OffsetRange;
use iceberg::TableUpdate;
use iceberg::spec::{DataFile, Operation, TableMetadata};

use super::files::{Located, locate};
use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::manifests::{Builder, Removal};
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::snapshot::{self, Counts, NewSnapshot};
use crate::table::positions::{SUMMARY_REMADE, format_ranges, rewriting, rewritten};
use crate::table::refined;

/// Takes the files with the former rows of some messages away and adds those with the new ones. Rows of other messages
/// that the inputs hold are in the outputs too.
///
/// It may land on every head that lists each input once, has no row-level deletes, and in which the rows of these
/// messages are those that the change was planned on: appends bring other messages and rewrites keep rows, while a roll
/// back and another remake are recorded in `causeway.rewritten`. Offsets are those of the head it lands on.
#[derive(Debug, Clone)]
pub struct Remake {
    /// The sequence number of the snapshot that the change was planned on.
    pub planned_on: i64,
    /// Locations of every file that holds former rows of the messages; none when they had left no rows.
    pub inputs: BTreeSet<String>,
    /// The new files, made by [`crate::TableHandle::write`].
    pub outputs: Vec<DataFile>,
    /// The messages whose rows were made anew: several ranges of a partition where it has gaps.
    pub ranges: Vec<OffsetRange>,
    /// The version of the code that made them.
    pub refine_version: u32,
}

#[async_trait]
impl Action for Remake {
    type Refusal = Conflict;
    type Found = Located;

    fn problem(&self) -> Option<String> {
        if self.inputs.is_empty() && self.outputs.is_empty() {
            return Some("the change has neither inputs nor outputs".to_owned());
        }
        // Data files are immutable: older snapshots still read the input under its name.
        let output = self.outputs.iter().map(DataFile::file_path).find(|path| self.inputs.contains(*path))?;
        Some(format!("the file {output} is input and output"))
    }

    fn adds(&self) -> Option<&[DataFile]> {
        Some(&self.outputs)
    }

    async fn check(&self, base: &Base<'_>) -> Result<Checked<Located, Conflict>, CommitError> {
        // Inputs that are live do not show a roll back whose rows were read again, nor another remake of messages that
        // had left no rows.
        let sequence = rewritten(&base.head.metadata);
        if sequence > self.planned_on {
            return Ok(Checked::Refused(Conflict::Rewritten { sequence }));
        }
        Ok(checked(locate(base, &self.inputs).await?))
    }

    async fn apply(&self, base: &Base<'_>, found: Located) -> Result<Change, CommitError> {
        let table = &base.head.metadata;
        let removed = Counts::of(found.entries(&self.inputs).map(|entry| entry.data_file()));
        let removal = Removal { paths: &self.inputs, touched: found.touched };
        let manifests = Builder::new(base).rewrite(found.manifests, removal, &self.outputs).await?;
        let parent = table.current_snapshot();
        let previous = parent.map(|s| &s.summary().additional_properties);
        let mut summary = snapshot::summary(previous, Counts::of(&self.outputs), removed);
        summary.insert(SUMMARY_REMADE.to_owned(), format_ranges(&self.ranges));
        // So that the table can go back to this snapshot when those behind it have left the metadata.
        summary.extend(snapshot::standing(base.facts));
        // Rows may differ (Iceberg spec, "Snapshots"): incremental readers must not skip this snapshot.
        let new = NewSnapshot {
            operation: Operation::Overwrite,
            parent: parent.map(|s| s.snapshot_id()),
            manifests,
            summary,
        };
        let mut change = snapshot::add(base, new);
        let mut properties = BTreeMap::from([rewriting(table)]);
        properties.extend(self.refined(table));
        change.updates.push(TableUpdate::SetProperties { updates: properties.into_iter().collect() });
        Ok(change)
    }
}

impl Remake {
    /// The properties that record which version made the rows.
    fn refined(&self, table: &TableMetadata) -> Vec<(String, String)> {
        let logs: BTreeSet<_> = self.ranges.iter().map(|range| &range.at).collect();
        let changed = logs.into_iter().map(|at| {
            let of_log = self.ranges.iter().filter(|range| range.at == *at);
            refined::changed(table, at, |versions| {
                of_log.for_each(|range| versions.remake(range.start, range.end, self.refine_version));
            })
        });
        changed.flatten().collect()
    }
}
