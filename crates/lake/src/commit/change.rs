//! The next version of a table before it is written: made by an action, sent by the protocol.

use bytes::Bytes;
use iceberg::TableUpdate;
use iceberg::spec::ManifestFile;

use crate::table::attachments::Relisted;

/// What an action makes of a head.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) updates: Vec<TableUpdate>,
    /// Objects that the version names: location and content.
    pub(crate) objects: Vec<(String, Bytes)>,
    /// The manifest list of the snapshot it adds, so that the next commit need not read it back.
    pub(crate) list: Option<LastList>,
    /// Objects that no version needs once this one is the table's.
    pub(crate) obsolete: Vec<String>,
}

impl Change {
    /// Lists attachments anew, and deletes the files of those that leave once that has landed.
    pub(super) fn relist(&mut self, relisted: Relisted) {
        let Relisted { set, remove, dropped } = relisted;
        // Properties and `statistics` change in one version: readers never find one without the other.
        self.updates.push(TableUpdate::SetProperties { updates: set });
        self.updates.push(TableUpdate::RemoveProperties { removals: remove });
        for (snapshot_id, location) in dropped {
            self.updates.push(TableUpdate::RemoveStatistics { snapshot_id });
            self.obsolete.push(location);
        }
    }
}

/// A manifest list that was written.
#[derive(Debug)]
pub(crate) struct LastList {
    pub(crate) location: String,
    pub(crate) manifests: Vec<ManifestFile>,
}
