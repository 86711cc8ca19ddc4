//! Files that a program keeps with a table, such as what ingest has seen of a log. They are Puffin files in the
//! `statistics` of the table's metadata (Iceberg spec, "Table Statistics"; Puffin spec), where programs that delete
//! orphan files look for live ones. Each blob belongs to a log and says up to which offset it holds; of each kind and
//! log the newest blob and the one before are kept.
//!
//! Which file holds what is in properties, `causeway.attached.<kind>.<topic>/<partition>` = `offset:snapshot …`: the
//! snapshot names the entry of `statistics`. `blob-metadata` there stays empty, because PyIceberg 0.12 reads no table
//! that lists a blob type other than those of the specification.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use event_schema::position::{NextOffset, TopicPartition};
use iceberg::io::{MemoryStorage, OutputFile, Storage};
use iceberg::puffin::{Blob, CompressionCodec, PuffinReader, PuffinWriter};
use iceberg::spec::{StatisticsFile, TableMetadata};
use uuid::Uuid;

use super::positions::{ATTACHED_PREFIX, parse_partition};

/// Properties of a blob: the log it belongs to, `topic/partition`.
const LOG: &str = "causeway.log";
/// The next offset behind what the blob holds.
const OFFSET: &str = "causeway.offset";
/// Blobs of one kind and log that are kept. Two: a table that is behind needs the older one.
const KEPT: usize = 2;
/// Behind the payload of a Puffin footer: its size, flags, magic (Puffin spec, "Footer structure").
const FOOTER_END_BYTES: u32 = 4 + 4 + 4;
/// In front of it: magic.
const FOOTER_BEGIN_BYTES: u32 = 4;

/// Content to be kept with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What it is; the blob's type.
    pub kind: &'static str,
    /// The log it belongs to.
    pub at: TopicPartition,
    /// It holds what the log has below this offset.
    pub next: NextOffset,
    /// The content.
    pub bytes: Bytes,
}

/// Content that is kept with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What it is.
    pub kind: String,
    /// The log it belongs to.
    pub at: TopicPartition,
    /// It holds what the log has below this offset.
    pub next: NextOffset,
    /// The Puffin file.
    pub location: String,
}

/// A blob of a kind and a log: up to where it holds, and the snapshot whose statistics file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    next: NextOffset,
    snapshot_id: i64,
}

/// Entries by kind and log, the newest first.
type Index = BTreeMap<(String, TopicPartition), Vec<Entry>>;

fn index(table: &TableMetadata) -> Index {
    let mut index = Index::new();
    for (key, value) in table.properties() {
        let Some((kind, log)) = key.strip_prefix(ATTACHED_PREFIX).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let Some(at) = parse_partition(log) else { continue };
        // An entry that another program has removed from `statistics` is ignored: that program has deleted its file.
        let entries = value.split(' ').filter_map(parse_entry);
        let listed = entries.filter(|entry| table.statistics_for_snapshot(entry.snapshot_id).is_some());
        index.insert((kind.to_owned(), at), listed.collect());
    }
    index
}

fn parse_entry(text: &str) -> Option<Entry> {
    let (next, snapshot) = text.split_once(':')?;
    Some(Entry { next: NextOffset(next.parse().ok()?), snapshot_id: snapshot.parse().ok()? })
}

fn property(kind: &str, at: &TopicPartition) -> String {
    format!("{ATTACHED_PREFIX}{kind}.{at}")
}

/// The attachments of a kind and a log, the newest first.
pub(crate) fn list(table: &TableMetadata, kind: &str, at: &TopicPartition) -> Vec<Attached> {
    let entries = index(table).remove(&(kind.to_owned(), at.clone())).unwrap_or_default();
    let mut attached = Vec::new();
    for Entry { next, snapshot_id } in entries {
        let Some(file) = table.statistics_for_snapshot(snapshot_id) else { continue };
        let location = file.statistics_path.clone();
        attached.push(Attached { kind: kind.to_owned(), at: at.clone(), next, location });
    }
    attached
}

/// What changes of a table's attachments with a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Relisted {
    pub(crate) set: HashMap<String, String>,
    pub(crate) remove: Vec<String>,
    /// Files that no property names any more: the snapshots that list them, and their locations.
    pub(crate) dropped: BTreeMap<i64, String>,
}

/// Adds attachments that come with a snapshot; those beyond the newest [`KEPT`] of their kind and log leave.
pub(crate) fn attach(table: &TableMetadata, added: &[Attachment], snapshot_id: i64) -> Relisted {
    let before = index(table);
    let mut after = before.clone();
    for new in added {
        let entries = after.entry((new.kind.to_owned(), new.at.clone())).or_default();
        entries.insert(0, Entry { next: new.next, snapshot_id });
        // The newest are in front.
        entries.truncate(KEPT);
    }
    relisted(table, &before, &after)
}

/// Removes attachments that hold more than the table has landed after it was rolled back.
pub(crate) fn take_back(table: &TableMetadata, offsets: &BTreeMap<TopicPartition, NextOffset>) -> Relisted {
    let before = index(table);
    let mut after = before.clone();
    for ((_, at), entries) in &mut after {
        let landed = offsets.get(at).copied().unwrap_or_default();
        // An attachment that is ahead of the table would make rows that are read again look like duplicates.
        entries.retain(|entry| entry.next <= landed);
    }
    relisted(table, &before, &after)
}

fn relisted(table: &TableMetadata, before: &Index, after: &Index) -> Relisted {
    let mut relisted = Relisted::default();
    for ((kind, at), entries) in after {
        if before.get(&(kind.clone(), at.clone())) == Some(entries) {
            continue;
        }
        if entries.is_empty() {
            relisted.remove.push(property(kind, at));
        } else {
            let texts: Vec<_> = entries.iter().map(|e| format!("{}:{}", e.next, e.snapshot_id)).collect();
            relisted.set.insert(property(kind, at), texts.join(" "));
        }
    }
    // A file holds blobs of several logs: it stays while one of them is listed.
    let named: BTreeSet<i64> = after.values().flatten().map(|entry| entry.snapshot_id).collect();
    for entry in before.values().flatten().filter(|entry| !named.contains(&entry.snapshot_id)) {
        if let Some(file) = table.statistics_for_snapshot(entry.snapshot_id) {
            relisted.dropped.insert(entry.snapshot_id, file.statistics_path.clone());
        }
    }
    relisted
}

/// A Puffin file to be listed and written.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) statistics: StatisticsFile,
    pub(crate) bytes: Bytes,
}

/// The snapshot that attachments come with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfSnapshot {
    pub(crate) id: i64,
    pub(crate) sequence_number: i64,
}

/// Writes attachments into one Puffin file.
pub(crate) async fn write(
    table: &TableMetadata,
    attachments: &[Attachment],
    snapshot: OfSnapshot,
    id: Uuid,
) -> Result<NewFile, iceberg::Error> {
    let memory = MemoryStorage::new();
    let output = OutputFile::new(Arc::new(memory.clone()), "memory:/attachments".to_owned());
    let mut writer = PuffinWriter::new(&output, created_by(), false).await?;
    for attachment in attachments {
        let properties =
            [(LOG.to_owned(), attachment.at.to_string()), (OFFSET.to_owned(), attachment.next.to_string())];
        let blob = Blob::builder()
            .r#type(attachment.kind.to_owned())
            .fields(Vec::new())
            .snapshot_id(snapshot.id)
            .sequence_number(snapshot.sequence_number)
            .data(attachment.bytes.to_vec())
            .properties(properties.into())
            .build();
        writer.add(blob, CompressionCodec::None).await?;
    }
    writer.close().await?;
    let bytes = memory.read(output.location()).await?;
    // The location holds the checksum, so the file is written in memory first.
    let name = objects::stamp(id, &bytes);
    let directory = table.location().trim_end_matches('/');
    let statistics = StatisticsFile {
        snapshot_id: snapshot.id,
        statistics_path: format!("{directory}/metadata/{}-{name}.stats", snapshot.id),
        file_size_in_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        file_footer_size_in_bytes: footer_bytes(&bytes),
        key_metadata: None,
        blob_metadata: Vec::new(),
    };
    Ok(NewFile { statistics, bytes })
}

fn created_by() -> HashMap<String, String> {
    [(iceberg::puffin::CREATED_BY_PROPERTY.to_owned(), "causeway".to_owned())].into()
}

/// The size of a Puffin file's footer (Puffin spec, "Footer structure").
fn footer_bytes(file: &[u8]) -> i64 {
    // The writer has just written this footer: the fallbacks of 0 are not taken.
    let at = file.len().saturating_sub(FOOTER_END_BYTES as usize);
    let payload = file.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map_or(0, u32::from_le_bytes);
    i64::from(payload) + i64::from(FOOTER_BEGIN_BYTES + FOOTER_END_BYTES)
}

/// Takes the content of an attachment out of its Puffin file; `None` when the file does not hold it.
pub(crate) async fn read(file: Bytes, wanted: &Attached) -> Result<Option<Bytes>, iceberg::Error> {
    let memory = MemoryStorage::new();
    let output = OutputFile::new(Arc::new(memory), "memory:/attachments".to_owned());
    output.write(file).await?;
    let reader = PuffinReader::new(output.to_input_file());
    let log = wanted.at.to_string();
    let offset = wanted.next.to_string();
    for blob in reader.file_metadata().await?.blobs() {
        let properties = blob.properties();
        // By offset too: the file may be the wrong one, if another program has replaced the entry of this snapshot.
        let is_wanted = blob.blob_type() == wanted.kind
            && properties.get(LOG) == Some(&log)
            && properties.get(OFFSET) == Some(&offset);
        if is_wanted {
            return Ok(Some(Bytes::copy_from_slice(reader.blob(blob).await?.data())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
