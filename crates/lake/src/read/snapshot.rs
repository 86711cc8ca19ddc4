//! One snapshot of a table, pinned: schema, manifests, offsets and properties as one catalog read returned them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceberg::spec::{ManifestFile, Snapshot, TableMetadata};

use super::batches::read_file;
use super::pruning::{BoundRange, manifest_may_match, matching};
use super::reachable::{self, Reached};
use super::{ColumnRange, ManifestCache, ReadError, ScanFile};
use crate::catalog::{Catalog, Head};
use crate::commit::{Conflict, Earlier, Pin, RollBack, pins_of};
use crate::table::days::day_field;
use crate::table::schema::{self, UnreadType};
use crate::table::{Attached, Refined, TableIdent, attachments, history, manifests, positions};
use objects::{Store, StoreError, Verified};

/// Manifests read at the same time.
const MANIFESTS_AT_ONCE: usize = 8;

/// Data files that one scan reads at the same time.
const FILES_AT_ONCE: usize = 8;

/// Rows of each batch of a scan.
const BATCH_ROWS: usize = 16_384;

/// A snapshot and the metadata location it was read from.
type Current = (Arc<str>, Arc<TableSnapshot>);

/// Reads one table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableReader {
    ident: TableIdent,
    catalog: Arc<dyn Catalog>,
    store: Store,
    manifests: Arc<ManifestCache>,
    current: Arc<Mutex<Option<Current>>>,
}

impl TableReader {
    pub(crate) fn new(
        ident: TableIdent,
        catalog: Arc<dyn Catalog>,
        store: Store,
        manifests: Arc<ManifestCache>,
    ) -> Self {
        Self { ident, catalog, store, manifests, current: Arc::default() }
    }

    pub fn ident(&self) -> &TableIdent {
        &self.ident
    }

    /// The table as it is now: one catalog lookup, and nothing else when no commit happened since the last call.
    ///
    /// # Errors
    /// The table is gone, or the catalog or the store cannot be read.
    pub async fn snapshot(&self) -> Result<Arc<TableSnapshot>, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        let known = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // By metadata location, which also changes with properties, schema and offsets.
        if let Some((_, snapshot)) = known.filter(|(location, _)| *location == head.location) {
            return Ok(snapshot);
        }
        let current = head.metadata.current_snapshot().cloned();
        let snapshot = Arc::new(self.pin(&head, current.as_deref()).await?);
        let newest = Some((head.location, Arc::clone(&snapshot)));
        // A slower reader may put an older snapshot here: the next call compares locations and reads again.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(snapshot)
    }

    /// A past snapshot by its id.
    ///
    /// # Errors
    /// The snapshot is unknown or expired, or as [`Self::snapshot`].
    pub async fn snapshot_by_id(&self, id: i64) -> Result<TableSnapshot, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        let found = head.metadata.snapshot_by_id(id).cloned();
        let found = found.ok_or_else(|| self.no_snapshot(format!("{id} (any more)")))?;
        self.pin(&head, Some(&found)).await
    }

    /// The snapshot that was current at a time (unix milliseconds), or of those that are still kept the last before it:
    /// of older times the table keeps one snapshot per minute, hour or day.
    ///
    /// # Errors
    /// [`ReadError::NoSnapshot`] when the table had no rows yet, [`ReadError::Expired`] when what it had is no longer
    /// kept, or as [`Self::snapshot`].
    pub async fn snapshot_as_of(&self, unix_ms: i64) -> Result<TableSnapshot, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        let found = history::as_of(&head.metadata, unix_ms);
        let found = found.ok_or_else(|| self.before_history(&head, unix_ms))?;
        self.pin(&head, Some(&found)).await
    }

    /// The snapshot that a branch or tag names.
    ///
    /// # Errors
    /// There is no such branch or tag, or as [`Self::snapshot`].
    pub async fn snapshot_of_ref(&self, name: &str) -> Result<TableSnapshot, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        let found = head.refs.get(name).and_then(|named| head.metadata.snapshot_by_id(named.snapshot_id)).cloned();
        let found = found.ok_or_else(|| ReadError::NoReference {
            table: self.ident.clone(),
            name: name.to_owned(),
            names: head.refs.keys().cloned().collect(),
        })?;
        self.pin(&head, Some(&found)).await
    }

    /// The next offset of every partition, read afresh.
    ///
    /// # Errors
    /// [`ReadError::OffsetsMissing`] when another program removed some, or as [`Self::snapshot`].
    pub async fn offsets(&self) -> Result<BTreeMap<TopicPartition, NextOffset>, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        match positions::offsets(&head.metadata) {
            (offsets, true) => Ok(offsets),
            (_, false) => Err(ReadError::OffsetsMissing { table: self.ident.clone() }),
        }
    }

    /// Names every object that the table needs, of all snapshots in its metadata: data and delete files, manifests,
    /// manifest lists, statistics files, the current metadata file and those that its log names. Each name is a full
    /// location. The head is read afresh. Of data files and manifests, those that `since` has named are left out.
    ///
    /// # Errors
    /// As [`Self::snapshot`]; what was named until then is not all.
    pub async fn reachable(&self, since: Option<&Reached>, name: impl FnMut(&str)) -> Result<Reached, ReadError> {
        let head = self.catalog.load(&self.ident).await?;
        reachable::walk(&self.store, &head, since, name).await
    }

    /// Where the table's files lie, without a slash at the end.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub async fn location(&self) -> Result<String, ReadError> {
        Ok(self.catalog.load(&self.ident).await?.metadata.location().trim_end_matches('/').to_owned())
    }

    fn before_history(&self, head: &Head, asked_ms: i64) -> ReadError {
        let kept = head.metadata.snapshots();
        // Sequence numbers count commits: fewer snapshots than that means that old ones expired.
        let is_whole = i64::try_from(kept.len()).is_ok_and(|kept| kept >= head.metadata.last_sequence_number());
        match kept.map(|snapshot| snapshot.timestamp_ms()).min().filter(|_| !is_whole) {
            Some(oldest_ms) => ReadError::Expired { table: self.ident.clone(), asked_ms, oldest_ms },
            None => self.no_snapshot(format!("as old as unix time {asked_ms} ms")),
        }
    }

    fn unread_type(&self, UnreadType { column, kind }: UnreadType) -> ReadError {
        ReadError::ColumnType { table: self.ident.clone(), column, kind }
    }

    fn no_snapshot(&self, what: String) -> ReadError {
        ReadError::NoSnapshot { table: self.ident.clone(), what }
    }

    async fn pin(&self, head: &Head, snapshot: Option<&Snapshot>) -> Result<TableSnapshot, ReadError> {
        let manifests = match snapshot {
            Some(snapshot) => manifests::load_list(&self.store, snapshot.manifest_list()).await?,
            None => Vec::new(),
        };
        // A schema change alone makes no snapshot; the current head is read by the current schema all the same.
        let is_current = snapshot.map(Snapshot::snapshot_id) == head.metadata.current_snapshot_id();
        let iceberg_schema = match snapshot.and_then(|s| s.schema(&head.metadata).ok()).filter(|_| !is_current) {
            Some(schema) => schema,
            None => Arc::clone(head.metadata.current_schema()),
        };
        Ok(TableSnapshot {
            ident: self.ident.clone(),
            schema: schema::arrow_schema(&iceberg_schema).map_err(|unread| self.unread_type(unread))?,
            snapshot: snapshot.cloned(),
            metadata_location: Arc::clone(&head.location),
            metadata: Arc::clone(&head.metadata),
            manifests,
            store: self.store.clone(),
            cache: Arc::clone(&self.manifests),
        })
    }
}

/// One snapshot of one table. It never changes, whatever is committed meanwhile.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    ident: TableIdent,
    schema: SchemaRef,
    snapshot: Option<Snapshot>,
    metadata_location: Arc<str>,
    metadata: Arc<TableMetadata>,
    manifests: Vec<ManifestFile>,
    store: Store,
    cache: Arc<ManifestCache>,
}

impl TableSnapshot {
    pub fn ident(&self) -> &TableIdent {
        &self.ident
    }

    /// Names, types and nullability; each field carries its id under `tables::def::FIELD_ID_KEY`. Strings are `Utf8`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// `None`: nothing was committed yet.
    pub fn snapshot_id(&self) -> Option<i64> {
        self.snapshot.as_ref().map(Snapshot::snapshot_id)
    }

    /// Rises with every commit; 0 before the first.
    pub fn sequence_number(&self) -> i64 {
        self.snapshot.as_ref().map_or(0, Snapshot::sequence_number)
    }

    /// When the snapshot was committed, unix milliseconds.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.snapshot.as_ref().map(Snapshot::timestamp_ms)
    }

    /// The metadata file this was read from: two snapshots of a table with the same one are the same.
    pub fn metadata_location(&self) -> &str {
        &self.metadata_location
    }

    /// Rows of the snapshot, from its summary; `None` when another program left it out.
    pub fn total_records(&self) -> Option<u64> {
        self.summary().get("total-records").and_then(|count| count.parse().ok())
    }

    /// The snapshot's summary (`causeway.ranges`, `causeway.token`, `added-records`, …).
    pub fn summary(&self) -> &HashMap<String, String> {
        static EMPTY: std::sync::LazyLock<HashMap<String, String>> = std::sync::LazyLock::new(HashMap::new);
        self.snapshot.as_ref().map_or(&EMPTY, |s| &s.summary().additional_properties)
    }

    /// The table's properties as of the metadata this snapshot was read from.
    pub fn properties(&self) -> &HashMap<String, String> {
        self.metadata.properties()
    }

    /// The next offset of every partition, as of the metadata this snapshot was read from. For the current snapshot
    /// these are exactly the offsets its rows end at.
    pub fn offsets(&self) -> BTreeMap<TopicPartition, NextOffset> {
        positions::offsets(&self.metadata).0
    }

    /// What [`TableHandle::roll_back`](crate::TableHandle::roll_back) from [`Self::snapshot_id`] would set
    /// [`Self::offsets`] to.
    ///
    /// # Errors
    /// The table cannot go back to the snapshot.
    pub fn plan_roll_back(&self, to: i64) -> Result<Earlier, Conflict> {
        RollBack::earlier(to, &self.metadata, &positions::HeadFacts::of(&self.metadata))
    }

    /// Which versions of the code made the rows of the messages of a partition.
    pub fn refined(&self, at: &TopicPartition) -> Refined {
        Refined::of(&self.metadata, at)
    }

    /// The offsets in front of those that the log no longer held when they were to be read.
    pub fn gaps(&self) -> Vec<OffsetRange> {
        positions::gaps(&self.metadata)
    }

    /// Every snapshot still in the table's metadata, oldest first; without those that were rolled back.
    pub fn history(&self) -> Vec<PastSnapshot> {
        let mut past = Vec::new();
        let mut before: Option<Arc<Snapshot>> = None;
        for snapshot in history::current_history(&self.metadata) {
            past.push(PastSnapshot {
                snapshot_id: snapshot.snapshot_id(),
                committed_ms: snapshot.timestamp_ms(),
                operation: snapshot.summary().operation.as_str().to_owned(),
                summary: snapshot.summary().additional_properties.clone(),
                follows: history::follows(&snapshot, before.as_deref()),
            });
            before = Some(snapshot);
        }
        past
    }

    /// The pins of the table, in ascending order of snapshot and owner; those that have ended stay until the next
    /// commit of a batch.
    pub fn pins(&self) -> Vec<Pin> {
        pins_of(self.metadata.properties())
    }

    /// What is kept with the table of a kind and a log, the newest first.
    pub fn attachments(&self, kind: &str, at: &TopicPartition) -> Vec<Attached> {
        attachments::list(&self.metadata, kind, at)
    }

    /// Reads an attachment.
    ///
    /// # Errors
    /// Its file is gone or damaged, or the store cannot be read.
    pub async fn read_attachment(&self, attached: &Attached) -> Result<Bytes, ReadError> {
        let location = &attached.location;
        let file = self.store.get(location).await?;
        let content = attachments::read(file, attached).await;
        let content = content.map_err(|source| ReadError::Attachment { location: location.clone(), source })?;
        content.ok_or_else(|| ReadError::NoAttachment { location: location.clone(), log: attached.at.to_string() })
    }

    /// The object store the files lie in; paths are those of [`ScanFile::path`].
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The files that may hold rows fulfilling all conditions. Pruned by manifest, partition and file bounds.
    ///
    /// # Errors
    /// A condition names no column of the table, a manifest cannot be read, or the table has row-level deletes.
    pub async fn plan(&self, filters: &[ColumnRange]) -> Result<Vec<Arc<ScanFile>>, ReadError> {
        let ranges = self.bind(filters)?;
        // Refused, because the answer would contain rows that another program has deleted.
        if self.manifests.iter().any(manifests::holds_deletes) {
            return Err(ReadError::Deletes { table: self.ident.clone() });
        }
        let wanted = self.manifests.iter().filter(|manifest| {
            let spec = self.metadata.partition_spec_by_id(manifest.partition_spec_id);
            // An unknown spec prunes nothing.
            spec.is_none_or(|spec| manifest_may_match(manifest, spec, &ranges))
        });
        // Collected and boxed: a lazy stream of borrowing futures would keep this one from being sent to another
        // thread.
        let loads: Vec<_> = wanted.map(|manifest| self.files_of(manifest.clone(), &ranges).boxed()).collect();
        let files: Vec<Vec<_>> = stream::iter(loads).buffered(MANIFESTS_AT_ONCE).try_collect().await?;
        Ok(files.into_iter().flatten().collect())
    }

    /// The files of a manifest that may hold rows fulfilling all conditions.
    async fn files_of(&self, manifest: ManifestFile, ranges: &[BoundRange]) -> Result<Vec<Arc<ScanFile>>, ReadError> {
        let spec = self.metadata.partition_spec_by_id(manifest.partition_spec_id);
        let day_source = spec.and_then(|spec| day_field(spec)).map(|(_, source)| source);
        let files = self.cache.files(&self.store, &manifest).await?;
        Ok(matching(&files, day_source, ranges).collect())
    }

    /// The rows of the named columns (all when empty), in no order, strings as `Utf8`. `filters` only leave out whole
    /// files: rows that do not fulfil them come too.
    ///
    /// # Errors
    /// As [`Self::plan`]; a damaged file is a [`ReadError::CorruptFile`], after which the rows of others may still
    /// come.
    pub async fn scan_batches(
        &self,
        columns: &[&str],
        filters: &[ColumnRange],
    ) -> Result<BoxStream<'static, Result<arrow::array::RecordBatch, ReadError>>, ReadError> {
        let schema = self.project(columns)?;
        let files = self.plan(filters).await?;
        let store = self.store.clone();
        let rows = stream::iter(files).flat_map_unordered(FILES_AT_ONCE, move |file| {
            read_file(store.clone(), file.at(), Arc::clone(&schema), BATCH_ROWS)
        });
        Ok(rows.boxed())
    }

    /// The rows of one file that [`Self::plan`] gave, in the named columns (all when empty), strings as `Utf8`,
    /// and so many of them at once: rows with large values take much memory.
    ///
    /// # Errors
    /// There is no column of that name. The stream ends with an error when the file is damaged or the store fails.
    pub fn read_file(
        &self,
        file: &Arc<ScanFile>,
        columns: &[&str],
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<arrow::array::RecordBatch, ReadError>>, ReadError> {
        let schema = self.project(columns)?;
        Ok(read_file(self.store.clone(), file.at(), schema, batch_rows))
    }

    /// Reads every data file of the snapshot whole and compares it with its checksums. The manifests are compared on
    /// the way.
    ///
    /// # Errors
    /// As [`Self::plan`]; the stream ends with an error when the store does not answer. A damaged file is no error of
    /// the stream.
    pub async fn verify_files(&self) -> Result<BoxStream<'static, Result<VerifiedFile, ReadError>>, ReadError> {
        let files = self.plan(&[]).await?;
        let store = self.store.clone();
        let verified = stream::iter(files).map(move |file| verify_file(store.clone(), file));
        Ok(verified.buffer_unordered(FILES_AT_ONCE).boxed())
    }

    /// How many manifests the snapshot has.
    pub fn manifest_count(&self) -> usize {
        self.manifests.len()
    }

    fn project(&self, columns: &[&str]) -> Result<SchemaRef, ReadError> {
        if columns.is_empty() {
            return Ok(Arc::clone(&self.schema));
        }
        let mut fields = Vec::with_capacity(columns.len());
        for name in columns {
            fields.push(self.schema.field_with_name(name).cloned().map_err(|_| self.no_column(name))?);
        }
        Ok(Arc::new(arrow::datatypes::Schema::new(fields)))
    }

    fn bind(&self, filters: &[ColumnRange]) -> Result<Vec<BoundRange>, ReadError> {
        let mut bound = Vec::with_capacity(filters.len());
        for ColumnRange { column, min, max } in filters {
            let field = self.schema.field_with_name(column).map_err(|_| self.no_column(column))?;
            let id = schema::field_id(field).ok_or_else(|| self.no_column(column))?;
            bound.push(BoundRange { id, min: min.clone(), max: max.clone() });
        }
        Ok(bound)
    }

    fn no_column(&self, column: &str) -> ReadError {
        ReadError::NoColumn { table: self.ident.clone(), column: column.to_owned() }
    }
}

/// A snapshot of a table's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastSnapshot {
    /// Its id.
    pub snapshot_id: i64,
    /// When it was committed, unix milliseconds.
    pub committed_ms: i64,
    /// `append`, `replace`, `overwrite` or `delete` (Iceberg spec, "Snapshots").
    pub operation: String,
    /// The rest of its summary.
    pub summary: HashMap<String, String>,
    /// Nothing that was between it and the one before it has left the metadata; of the oldest: nothing was before it.
    pub follows: bool,
}

/// A data file that was compared with its checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedFile {
    /// Full location, as the manifests name the file.
    pub location: String,
    /// What is wrong with the file, when it is damaged or gone.
    pub outcome: Result<Verified, String>,
}

async fn verify_file(store: Store, file: Arc<ScanFile>) -> Result<VerifiedFile, ReadError> {
    let location = file.location.clone();
    let outcome = match store.verify(&location, file.size_bytes).await {
        Ok(verified) => Ok(verified),
        Err(StoreError::Damaged { problem, .. }) => Err(problem.to_string()),
        // Absent and damaged files are results, so that one run finds all of them. A store that does not answer ends
        // it.
        Err(error) if error.is_not_found() => Err("the store does not have it".to_owned()),
        Err(error) => return Err(error.into()),
    };
    Ok(VerifiedFile { location, outcome })
}
