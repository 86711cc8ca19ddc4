//! The embedded lake: one directory with catalog, warehouse and spool, and the rule for who lands its messages. Other
//! tools open it too: PyIceberg with `SqlCatalog("causeway", uri="sqlite:///DIR/catalog.sqlite")`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_schema::topics;
use ingest::{Ingest, IngestError, Metrics, Options, Parts, Summary, Until};
use lake::{Lake, LakeOptions, OpenError, sqlite_uri};
use service_kit::admin::Readiness;
use service_kit::clock::SystemClock;
use service_kit::durable::make_dir;
use service_kit::run::Drain;
use stream::log::LogSource;

/// Where the embedded lake is unless configured.
pub(crate) const DEFAULT_DIR: &str = "./causeway-data";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    #[error("the lake directory {} cannot be made", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no lake at {}: name its directory with --data, or make one with `causeway up` or `causeway import`", path.display())]
    Absent { path: PathBuf },
    #[error("the path of the lake directory {} is not UTF-8: the tables name their files by it", path.display())]
    Name { path: PathBuf },
    #[error("{} cannot be locked", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the lake at {} cannot be opened", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenError,
    },
}

/// A lake directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// Held by the process that lands the messages of the directory's spool: `up`, or an import when no `up` runs.
#[derive(Debug)]
pub(crate) struct LandingLock {
    _file: File,
}

/// Held by an import from the moment it reads what has landed until its own rows have landed.
#[derive(Debug)]
pub(crate) struct ImportLock {
    _file: File,
}

/// Locks a file, made when absent; `None` while another process has the lock.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    // flock(2): the kernel releases it when the process ends, in whatever way. A lock by the existence of a file would
    // stay.
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

impl DataDir {
    /// The directory, made when absent.
    pub(crate) fn create(path: &Path) -> Result<Self, EmbeddedError> {
        // Refused before the directory is made: nothing is left behind.
        if path.to_str().is_none() {
            return Err(EmbeddedError::Name { path: path.to_owned() });
        }
        // Absolute and without links: the tables keep this path, and later commands have other working directories.
        match make_dir(path) {
            Ok(root) => Self::named(root),
            Err(source) => Err(EmbeddedError::Make { path: path.to_owned(), source }),
        }
    }

    /// The directory of an existing lake.
    pub(crate) fn existing(path: &Path) -> Result<Self, EmbeddedError> {
        let Ok(root) = path.canonicalize() else { return Err(EmbeddedError::Absent { path: path.to_owned() }) };
        let found = Self::named(root)?;
        // Opening would make a catalog: a mistyped directory would pass for an empty lake.
        if found.catalog().exists() { Ok(found) } else { Err(EmbeddedError::Absent { path: path.to_owned() }) }
    }

    /// The catalog and the tables name files by their full path, as text.
    fn named(root: PathBuf) -> Result<Self, EmbeddedError> {
        if root.to_str().is_none() {
            return Err(EmbeddedError::Name { path: root });
        }
        Ok(Self { root })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    fn catalog(&self) -> PathBuf {
        self.root.join("catalog.sqlite")
    }

    /// The directory that stands in for Kafka.
    pub(crate) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Where catalog and warehouse are.
    pub(crate) fn lake_options(&self) -> LakeOptions {
        LakeOptions {
            catalog_uri: sqlite_uri(&self.catalog().display().to_string()),
            warehouse: self.root.join("warehouse").display().to_string(),
            s3: None,
        }
    }

    /// Opens catalog and warehouse, made when absent.
    pub(crate) async fn open(&self) -> Result<Lake, EmbeddedError> {
        let opened = Lake::open(self.lake_options()).await;
        opened.map_err(|source| EmbeddedError::Open { path: self.root.clone(), source })
    }

    /// As [`Self::open`], and makes no lake.
    pub(crate) async fn open_existing(&self) -> Result<Lake, EmbeddedError> {
        let opened = Lake::open_existing(self.lake_options()).await;
        opened.map_err(|source| EmbeddedError::Open { path: self.root.clone(), source })
    }

    /// The right to land messages; `None` while another process has it.
    pub(crate) fn try_lock(&self) -> Result<Option<LandingLock>, EmbeddedError> {
        Ok(self.try_lock_file("up.lock")?.map(|file| LandingLock { _file: file }))
    }

    /// The right to import; `None` while another process has it.
    pub(crate) fn try_lock_import(&self) -> Result<Option<ImportLock>, EmbeddedError> {
        Ok(self.try_lock_file("import.lock")?.map(|file| ImportLock { _file: file }))
    }

    fn try_lock_file(&self, name: &str) -> Result<Option<File>, EmbeddedError> {
        let path = self.root.join(name);
        try_lock(&path).map_err(|source| EmbeddedError::Lock { path, source })
    }

    /// A reader of the whole spool.
    pub(crate) fn source(&self) -> LogSource {
        LogSource::new(self.spool(), topics::READ)
    }

    /// Lands what the spool holds now, and returns.
    pub(crate) async fn land(&self, lake: &Lake, _lock: &LandingLock, drain: Drain) -> Result<Summary, IngestError> {
        // No port serves the metrics and the readiness of this run: they are dropped with it.
        let options = Options { until: Until::CaughtUp, ..Options::default() };
        let metrics = Metrics::new(&mut service_kit::telemetry::registry("ingest", service_kit::program::VERSION));
        let clock = Arc::new(SystemClock);
        let tables = tables::registry::all();
        let parts = Parts { lake, tables, kafka: None, clock, metrics, readiness: &Readiness::new() };
        let ingest = Ingest::open(parts, options).await?;
        ingest.run(Box::new(self.source()), drain).await
    }
}
