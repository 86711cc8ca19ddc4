//! Lands a batch of the log: its files and its offsets, in one snapshot.

mod decide;
mod landed;

use std::collections::BTreeMap;

use async_trait::async_trait;
use event_schema::position::OffsetRange;
use iceberg::TableUpdate;
use iceberg::spec::{DataFile, Operation, TableMetadata};

pub use decide::{BatchFacts, Decision, Next, after, decide};
pub use landed::advance;

use super::{Action, Checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::manifests::{Builder, metadata_error};
use crate::commit::outcome::CommitError;
use crate::commit::reply::{Attempt, StopReason};
use crate::commit::snapshot::{self, Counts, NewSnapshot};
use crate::table::attachments::{self, NewFile, OfSnapshot};
use crate::table::positions::is_free_property;
use crate::table::{Attachment, Token, refined};

/// One batch to land in one table.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The offsets of the log that the files hold, at most one range per partition; a range behind a gap may be empty.
    /// Empty for batches that do not come from the log: then only the token prevents that they land twice.
    pub ranges: Vec<OffsetRange>,
    /// Offsets in front of `ranges` that the log does not hold (retention, compaction, first attach): landed as
    /// explained.
    pub gaps: Vec<OffsetRange>,
    /// The same on every attempt.
    pub token: Token,
    /// Files made by [`crate::TableHandle::write`]; may be empty, the offsets advance all the same.
    pub files: Vec<DataFile>,
    /// Further table properties to set, such as the identity of the log. Keys begin with
    /// `causeway.` and are none of the committer's own.
    pub properties: BTreeMap<String, String>,
    /// Content to be kept with the table from this commit on; it replaces older content of its kind and log.
    pub attachments: Vec<Attachment>,
    /// Version of the code that made the rows, recorded for the messages of `ranges`; unknown when absent.
    pub refine_version: Option<u32>,
}

impl CommitRequest {
    /// A batch without gaps and further properties, made by an unknown version.
    pub fn new(ranges: Vec<OffsetRange>, token: Token, files: Vec<DataFile>) -> Self {
        Self {
            ranges,
            gaps: Vec::new(),
            token,
            files,
            properties: BTreeMap::new(),
            attachments: Vec::new(),
            refine_version: None,
        }
    }
}

/// Lands a batch. It may land on every head of the same table whose offsets it continues.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    pub(crate) request: &'a CommitRequest,
}

/// Why a batch is not to land on a head.
#[derive(Debug)]
pub(crate) enum AppendRefusal {
    /// Only these ranges are not in the table yet.
    Trim(Vec<OffsetRange>),
    /// All of it is in the table, or another owner is further on.
    Drop,
    /// The table misses offsets in front of the batch.
    Stop(StopReason),
}

#[async_trait]
impl Action for Append<'_> {
    type Refusal = AppendRefusal;
    type Found = ();

    fn problem(&self) -> Option<String> {
        let key = self.request.properties.keys().find(|key| !is_free_property(key))?;
        Some(format!("the property {key} may not be set by the caller"))
    }

    fn adds(&self) -> Option<&[DataFile]> {
        Some(&self.request.files)
    }

    async fn check(&self, base: &Base<'_>) -> Result<Checked<(), AppendRefusal>, CommitError> {
        Ok(match decide(base.facts, &self.facts(base)) {
            Decision::Land => Checked::Valid(()),
            Decision::Trim(keep) => Checked::Refused(AppendRefusal::Trim(keep)),
            Decision::Drop => Checked::Refused(AppendRefusal::Drop),
            Decision::Stop(reason) => Checked::Refused(AppendRefusal::Stop(reason)),
        })
    }

    async fn apply(&self, base: &Base<'_>, (): ()) -> Result<Change, CommitError> {
        let request = self.request;
        let manifests = Builder::new(base).append(base.manifests().await?, &request.files).await?;
        let parent = base.head.metadata.current_snapshot();
        let previous = parent.map(|s| &s.summary().additional_properties);
        let mut summary = snapshot::summary(previous, Counts::of(&request.files), Counts::default());
        summary.extend(landed::summary(base.facts, &request.ranges));
        let new =
            NewSnapshot { operation: Operation::Append, parent: parent.map(|s| s.snapshot_id()), manifests, summary };
        let mut change = snapshot::add(base, new);
        let mut properties = landed::properties(base.facts, &self.facts(base));
        // No key occurs twice: `problem` refuses those of the protocol.
        properties.extend(request.properties.iter().map(|(key, value)| (key.clone(), value.clone())));
        properties.extend(self.refined(&base.head.metadata));
        change.updates.push(TableUpdate::SetProperties { updates: properties });
        self.attach(base, &mut change).await?;
        Ok(change)
    }
}

impl Append<'_> {
    /// The properties that record which version made the rows. They change only where another version did before, so
    /// that the usual commit sets none.
    fn refined(&self, table: &TableMetadata) -> Vec<(String, String)> {
        let version = self.request.refine_version.unwrap_or_default();
        let with_messages = self.request.ranges.iter().filter(|range| !range.is_empty());
        let changed = with_messages.map(|OffsetRange { at, start, .. }| {
            refined::changed(table, at, |versions| versions.append(*start, version))
        });
        changed.flatten().collect()
    }

    /// Lists the attachments of the batch, and no longer those that they replace.
    async fn attach(&self, base: &Base<'_>, change: &mut Change) -> Result<(), CommitError> {
        let attachments = &self.request.attachments;
        if attachments.is_empty() {
            return Ok(());
        }
        let table = &base.head.metadata;
        let snapshot = OfSnapshot { id: base.token.snapshot_id(), sequence_number: table.next_sequence_number() };
        let new = attachments::write(table, attachments, snapshot, (base.environment.new_id)()).await;
        let NewFile { statistics, bytes } = new.map_err(metadata_error("write a statistics file"))?;
        change.objects.push((statistics.statistics_path.clone(), bytes));
        // Listed in `statistics`, where programs that delete orphan files look for live ones (ADR 33).
        change.updates.push(TableUpdate::SetStatistics { statistics });
        change.relist(attachments::attach(table, attachments, snapshot.id));
        Ok(())
    }

    fn facts(&self, base: &Base<'_>) -> BatchFacts {
        BatchFacts {
            // `resolve` has compared this head with the highest sequence number that was seen.
            attempt: Attempt { table: base.facts.table, seen_sequence: base.facts.sequence, token: self.request.token },
            ranges: self.request.ranges.clone(),
            gaps: self.request.gaps.clone(),
        }
    }
}
