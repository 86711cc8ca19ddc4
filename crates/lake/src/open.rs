//! Opens the lake, ensures that a table exists, and provides the handle through which a writer uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use event_schema::position::{NextOffset, TopicPartition};
use iceberg::spec::DataFile;
use service_kit::config::SecretUri;
use tables::def::{TableDef, TableName};

use crate::catalog::memory::MemoryCatalog;
use crate::catalog::sql::homes::Homes;
use crate::catalog::sql::leases::Leases;
use crate::catalog::sql::{self, Database, SqlCatalog};
use crate::catalog::{Catalog, CatalogError, CreateError, Head, HeadError};
use crate::commit::{
    ActionOutcome, CommitOutcome, CommitRequest, Committer, Maintenance, Pin, PinSnapshot, RollBack, SetProperties,
    Warehouse, pin_key,
};
use crate::environment::Environment;
use crate::read::{FileAt, ManifestCache, ReadError, TableReader, read_file};
use crate::table::schema::{self, NewTableError, SchemaMismatch};
use crate::table::{TableIdent, Token};
use crate::write::{EncodedFile, FileWriter, MergeError, MergeOptions, SortedRows, WriteError};
use objects::{S3Options, Store, StoreError};

/// Statistics of manifests kept in memory, shared by all tables of a [`Lake`].
const MANIFEST_CACHE_BYTES: u64 = 128 << 20;

/// The address of a catalog in the memory of the process.
const MEMORY_CATALOG: &str = "memory:";

/// Where the lake is.
#[derive(Clone, Default)]
pub struct LakeOptions {
    /// `sqlite:///absolute/path/catalog.sqlite` (made when absent), `postgres://user:password@host/database`, or
    /// `memory:` for a catalog that ends with the process.
    pub catalog_uri: String,
    /// `/absolute/path`, `file:///absolute/path` or `s3://bucket/prefix`.
    pub warehouse: String,
    /// How to reach S3; only with an `s3://` warehouse.
    pub s3: Option<S3Options>,
}

impl fmt::Debug for LakeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password. Destructured, so that a new field cannot be left out unnoticed.
        let Self { catalog_uri, warehouse, s3 } = self;
        let catalog_uri = SecretUri::from(catalog_uri.clone());
        f.debug_struct("LakeOptions")
            .field("catalog_uri", &catalog_uri)
            .field("warehouse", warehouse)
            .field("s3", s3)
            .finish()
    }
}

/// Why the lake could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Why a table could not be made or is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnsureError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Mismatch(#[from] SchemaMismatch),
    #[error("the definition of table {table} cannot be made")]
    Definition { table: TableName, source: NewTableError },
    #[error("the definition of table {table} partitions or sorts by {names:?}, which are none of its columns")]
    UndefinedColumns { table: TableName, names: Vec<&'static str> },
    #[error("the catalog already has something under the name {0} that is not a table")]
    NameTaken(TableIdent),
}

/// An open lake: catalog and warehouse. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lake {
    catalog: Arc<dyn Catalog>,
    store: Store,
    /// The database of an SQL catalog.
    database: Option<Arc<Database>>,
    manifests: Arc<ManifestCache>,
    environment: Environment,
}

impl Lake {
    /// Opens the lake and makes the catalog's tables when they are absent.
    ///
    /// # Errors
    /// The options are malformed, or the catalog database cannot be reached.
    pub async fn open(options: LakeOptions) -> Result<Self, OpenError> {
        Self::open_with(options, Environment::default()).await
    }

    /// As [`Lake::open`], for programs that make no lake: an SQLite catalog and a warehouse on this machine must be
    /// there.
    ///
    /// # Errors
    /// As [`Lake::open`], and [`CatalogError::Absent`] and [`StoreError::Absent`].
    pub async fn open_existing(options: LakeOptions) -> Result<Self, OpenError> {
        // A catalog in memory begins empty: there is nothing that could be absent.
        if options.catalog_uri != MEMORY_CATALOG {
            sql::must_exist(&options.catalog_uri)?;
        }
        Store::must_exist(&options.warehouse)?;
        Self::open(options).await
    }

    /// As [`Lake::open`], with another clock, randomness and time limit.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn open_with(options: LakeOptions, environment: Environment) -> Result<Self, OpenError> {
        let store = Store::open(&options.warehouse, options.s3.as_ref())?;
        if options.catalog_uri == MEMORY_CATALOG {
            return Ok(Self::over(Arc::new(MemoryCatalog::default()), store, environment));
        }
        let database = Arc::new(Database::open(&options.catalog_uri).await?);
        let catalog = SqlCatalog::new(Arc::clone(&database), store.clone(), environment);
        Ok(Self { database: Some(database), ..Self::over(Arc::new(catalog), store, environment) })
    }

    /// A lake over a catalog that keeps no homes.
    pub(crate) fn over(catalog: Arc<dyn Catalog>, store: Store, environment: Environment) -> Self {
        let manifests = Arc::new(ManifestCache::new(MANIFEST_CACHE_BYTES));
        Self { catalog, store, database: None, manifests, environment }
    }

    /// The warehouse.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time of this lake's clock, unix milliseconds.
    pub fn unix_ms(&self) -> i64 {
        (self.environment.unix_ms)()
    }

    /// Makes the table when it is absent, checks it against its definition, and returns a handle to write to it.
    ///
    /// # Errors
    /// The table has another schema ([`EnsureError::Mismatch`] names every column), or catalog or store failed.
    pub async fn ensure_table(&self, def: &TableDef) -> Result<TableHandle, EnsureError> {
        // First: the functions below leave out a name without a column, and would make a table that is not partitioned
        // or sorted.
        let undefined = schema::undefined_names(def);
        if !undefined.is_empty() {
            return Err(EnsureError::UndefinedColumns { table: def.name, names: undefined });
        }
        let ident = TableIdent::new(def.name.namespace, def.name.name);
        let head = match self.catalog.load(&ident).await {
            Err(HeadError::NotFound(_)) => self.create(def, &ident).await?,
            head => head?,
        };
        // Also after a creation: another process may have made the table first, from another definition.
        schema::verify(def, &ident, &head.metadata)?;
        Ok(TableHandle::new(self, ident, Arc::new(def.clone()), &head))
    }

    async fn create(&self, def: &TableDef, ident: &TableIdent) -> Result<Head, EnsureError> {
        let location = format!("{}/{}/{}", self.store().root(), ident.namespace, ident.name);
        let metadata = schema::new_table(def, &location, (self.environment.new_id)(), (self.environment.unix_ms)())
            .map_err(|source| EnsureError::Definition { table: def.name, source })?;
        let created = self.catalog.create(ident, &metadata).await?;
        match self.catalog.load(ident).await {
            // The name is taken and yet there is no table: an Iceberg view, for instance (`iceberg_type`).
            Err(HeadError::NotFound(_)) if !created => Err(EnsureError::NameTaken(ident.clone())),
            head => Ok(head?),
        }
    }

    /// A reader of a table; whether the table exists shows at the first read.
    pub fn table(&self, namespace: &str, name: &str) -> TableReader {
        self.reader(TableIdent::new(namespace, name))
    }

    fn reader(&self, ident: TableIdent) -> TableReader {
        TableReader::new(ident, Arc::clone(&self.catalog), self.store.clone(), Arc::clone(&self.manifests))
    }

    /// The homes of agents' runs; the catalog's table of them is made when it is absent. They lie beside the pointers
    /// of an SQL catalog; another catalog has none.
    ///
    /// # Errors
    /// The catalog cannot be reached, is no SQL catalog, or this user may not make a table there.
    pub async fn homes(&self) -> Result<Homes, CatalogError> {
        let database = self.database.as_ref().ok_or(CatalogError::NoHomes { name: MEMORY_CATALOG })?;
        Homes::open(Arc::clone(database)).await
    }

    /// The leases of work that several processes share; the catalog's table of them is made when it is absent. They lie
    /// beside the pointers of an SQL catalog; another catalog has none.
    ///
    /// # Errors
    /// The catalog cannot be reached, is no SQL catalog, or this user may not make a table there.
    pub async fn leases(&self) -> Result<Leases, CatalogError> {
        let database = self.database.as_ref().ok_or(CatalogError::NoLeases { name: MEMORY_CATALOG })?;
        Leases::open(Arc::clone(database)).await
    }

    /// Every table of the catalog.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list(&self) -> Result<Vec<TableIdent>, CatalogError> {
        self.catalog.list().await
    }
}

/// A writer's handle on one table. Cheap to clone; its commits are made one after another.
#[derive(Debug, Clone)]
pub struct TableHandle {
    def: Arc<TableDef>,
    reader: TableReader,
    writer: Arc<FileWriter>,
    committer: Arc<Committer>,
}

impl TableHandle {
    fn new(lake: &Lake, ident: TableIdent, def: Arc<TableDef>, head: &Head) -> Self {
        let writer = FileWriter::new(&def, &head.metadata, lake.store().clone(), lake.environment);
        let catalog = Arc::clone(&lake.catalog);
        let warehouse = Warehouse { catalog, store: lake.store.clone(), environment: lake.environment };
        let committer = Committer::new(ident.clone(), Arc::clone(&def), head, warehouse);
        let reader = lake.reader(ident);
        Self { def, reader, writer: Arc::new(writer), committer: Arc::new(committer) }
    }

    pub fn def(&self) -> &TableDef {
        &self.def
    }

    pub fn reader(&self) -> &TableReader {
        &self.reader
    }

    /// Encodes rows to Parquet files in memory, one per day partition, and uploads them. The encoding runs on the
    /// calling thread. Files that are not committed afterwards are orphans and harmless.
    ///
    /// # Errors
    /// The rows do not fit the table, or the store failed.
    pub async fn write(&self, batches: &[RecordBatch]) -> Result<Vec<DataFile>, WriteError> {
        self.upload(self.encode(batches.to_vec())?).await
    }

    /// The first half of [`Self::write`]: pure computation, for a blocking thread. The rows are released as soon as
    /// they are copied.
    ///
    /// # Errors
    /// The rows do not fit the table.
    pub fn encode(&self, batches: Vec<RecordBatch>) -> Result<Vec<EncodedFile>, WriteError> {
        self.writer.encode(batches)
    }

    /// The second half of [`Self::write`]: uploads, all files at a time.
    ///
    /// # Errors
    /// The store failed; nothing is committed, the files may be uploaded again.
    pub async fn upload(&self, files: Vec<EncodedFile>) -> Result<Vec<DataFile>, WriteError> {
        self.writer.upload(files).await
    }

    /// Merges sorted inputs of one partition into data files, which are uploaded row group by row group; none when they
    /// have no rows. The merge computes on the calling task and takes about `memory_bytes` of the options, half of it
    /// for a batch of each input, and the parts that are being sent ([`objects::PART_BYTES`]); what the inputs hold
    /// themselves comes on top. The files are orphans until they are committed.
    ///
    /// # Errors
    /// An input failed, is not sorted or is of another day, the batches do not fit into the memory, or the store
    /// failed.
    pub async fn merge(&self, inputs: Vec<SortedRows>, options: MergeOptions) -> Result<Vec<DataFile>, MergeError> {
        self.writer.merge(inputs, options).await
    }

    /// The rows of one Parquet file in the columns and types of the table's definition, in the order of the file: of
    /// one that is committed, or of one that was just written. Its columns are found by field id. A row group of the
    /// file is in memory as it lies in the store, and a batch of `batch_rows` rows decoded.
    pub fn read_file(&self, location: &str, size_bytes: u64, batch_rows: usize) -> SortedRows {
        let file = FileAt { location: location.to_owned(), size_bytes };
        read_file(self.writer.store().clone(), file, Arc::clone(self.writer.schema()), batch_rows.max(1))
    }

    /// Rows in the sort order of the definition, with its columns and types: pure computation. Takes about three times
    /// the memory of the rows.
    ///
    /// # Errors
    /// The rows do not fit the table.
    pub fn sort(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, WriteError> {
        self.writer.sort(batches)
    }

    /// The id that manifests record of a file whose rows are in the sort order of the definition; `None` when the table
    /// has no such order.
    pub fn sort_order_id(&self) -> Option<i32> {
        self.writer.sort_order_id()
    }

    /// Lands a batch, exactly once. Whatever happens, it returns within the commit limit and the time that one request
    /// to the catalog and one to the store may take.
    pub async fn commit(&self, request: CommitRequest) -> CommitOutcome {
        self.committer.append(&request).await
    }

    /// Maintains the table beside its writers. The limits are those of [`Self::commit`]. `token` names this change:
    /// after [`ActionOutcome::Unknown`] apply the same action with the same token again.
    pub async fn maintain(&self, action: &Maintenance, token: Token) -> ActionOutcome {
        self.committer.maintain(action, token).await
    }

    /// Makes an older snapshot current again, with the offsets it ended at: what is taken out of the table is read from
    /// the log again. Writers that are running stop at their next commit and restart.
    /// [`TableSnapshot::plan_roll_back`](crate::TableSnapshot::plan_roll_back) shows it beforehand; `from` is the
    /// current snapshot as of the plan.
    pub async fn roll_back(&self, to: i64, from: Option<i64>, token: Token) -> ActionOutcome {
        self.maintain(&Maintenance::RollBack(RollBack { to, from }), token).await
    }

    /// Keeps a snapshot, and the files that it reads, until the pin ends or is removed. A pin of the same owner on the
    /// same snapshot is replaced. [`TableSnapshot::pins`](crate::TableSnapshot::pins) lists them.
    pub async fn pin(&self, pin: Pin, token: Token) -> ActionOutcome {
        self.maintain(&Maintenance::Pin(PinSnapshot { pin }), token).await
    }

    /// Removes the pin of an owner on a snapshot; it is no error that there is none.
    pub async fn unpin(&self, snapshot: i64, owner: &str, token: Token) -> ActionOutcome {
        let remove = [pin_key(snapshot, owner)].into();
        self.maintain(&Maintenance::SetProperties(SetProperties { remove, ..SetProperties::default() }), token).await
    }

    /// The next offset of every partition, read afresh from the table.
    ///
    /// # Errors
    /// The table is gone, or catalog or store cannot be read.
    pub async fn offsets(&self) -> Result<BTreeMap<TopicPartition, NextOffset>, ReadError> {
        self.reader.offsets().await
    }
}
