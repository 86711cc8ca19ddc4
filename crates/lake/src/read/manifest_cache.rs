//! Manifests never change, so what was read from one is kept by its path, up to a number of bytes. The least recently
//! used are evicted first (LRU).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use iceberg::spec::{DataFile, DataFileFormat, ManifestEntry, ManifestFile, PartitionSpec};

use super::{ColumnStats, ManifestFiles, ReadError, ScanFile, Value};
use crate::table::days::{day_at, day_field};
use crate::table::manifests::load_entries;
use objects::Store;

/// Decoded statistics take about this many times the bytes of the Avro file.
const EXPANSION: u64 = 4;

/// Files by manifest path.
#[derive(Debug)]
pub(crate) struct ManifestCache {
    limit_bytes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    files: ManifestFiles,
    bytes: u64,
    used: u64,
}

impl ManifestCache {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, inner: Mutex::default() }
    }

    /// The live files of a manifest, from memory or from the store.
    pub(crate) async fn files(&self, store: &Store, manifest: &ManifestFile) -> Result<ManifestFiles, ReadError> {
        if let Some(files) = self.get(&manifest.manifest_path) {
            return Ok(files);
        }
        // Not locked while it reads: two readers may both load a manifest, and the second entry replaces the first.
        let (spec, entries) = load_entries(store, manifest).await?;
        let alive = entries.into_iter().filter(ManifestEntry::is_alive);
        let files: Result<Vec<_>, _> = alive.map(|entry| scan_file(store, &spec, &entry).map(Arc::new)).collect();
        let files: ManifestFiles = files?.into();
        let bytes = u64::try_from(manifest.manifest_length).unwrap_or(0).saturating_mul(EXPANSION);
        self.insert(&manifest.manifest_path, Arc::clone(&files), bytes);
        Ok(files)
    }

    fn get(&self, path: &str) -> Option<ManifestFiles> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // A logical clock: counts uses instead of reading the time.
        inner.clock += 1;
        let clock = inner.clock;
        let entry = inner.entries.get_mut(path)?;
        entry.used = clock;
        Some(Arc::clone(&entry.files))
    }

    fn insert(&self, path: &str, files: ManifestFiles, bytes: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let entry = Entry { files, bytes, used: inner.clock };
        inner.bytes += bytes;
        if let Some(old) = inner.entries.insert(path.to_owned(), entry) {
            // Cannot underflow: the bytes of each entry were added when it was inserted.
            inner.bytes -= old.bytes;
        }
        // One entry stays even if it exceeds the limit alone, because its reader holds it anyway. The search is linear:
        // each insertion has just read from the store, which takes far longer.
        while inner.bytes > self.limit_bytes && inner.entries.len() > 1 {
            let Some(oldest) = inner.entries.iter().min_by_key(|(_, e)| e.used).map(|(path, _)| path.clone()) else {
                break;
            };
            if let Some(gone) = inner.entries.remove(&oldest) {
                inner.bytes -= gone.bytes;
            }
        }
    }
}

fn scan_file(store: &Store, spec: &PartitionSpec, entry: &ManifestEntry) -> Result<ScanFile, ReadError> {
    let file = &entry.data_file;
    let location = file.file_path().to_owned();
    if file.file_format() != DataFileFormat::Parquet {
        return Err(ReadError::FileFormat { location, format: file.file_format().to_string() });
    }
    Ok(ScanFile {
        path: store.path(&location)?,
        location,
        size_bytes: file.file_size_in_bytes(),
        record_count: file.record_count(),
        day: day_field(spec).and_then(|(position, _)| day_at(file, position)),
        columns: column_stats(file),
        split_offsets: file.split_offsets().unwrap_or_default().to_vec(),
        sort_order_id: file.sort_order_id(),
        // Present after inheritance (`table::manifests::inherit`).
        sequence_number: entry.sequence_number().unwrap_or_default(),
        snapshot_id: entry.snapshot_id().unwrap_or_default(),
    })
}

fn column_stats(file: &DataFile) -> Vec<(i32, ColumnStats)> {
    let mut ids: Vec<i32> = file.value_counts().keys().chain(file.lower_bounds().keys()).copied().collect();
    // `ScanFile::column` searches by bisection.
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| (id, stats_of(file, id))).collect()
}

/// What a manifest entry records of one column.
fn stats_of(file: &DataFile, id: i32) -> ColumnStats {
    let lower = file.lower_bounds().get(&id).and_then(Value::from_datum);
    let upper = file.upper_bounds().get(&id).and_then(Value::from_datum);
    ColumnStats {
        exact: lower.as_ref().is_some_and(Value::bounds_are_exact),
        lower,
        upper,
        null_count: file.null_value_counts().get(&id).copied(),
        value_count: file.value_counts().get(&id).copied(),
        size_bytes: file.column_sizes().get(&id).copied(),
    }
}

#[cfg(test)]
mod tests;
