//! An object as a stream of bytes. Ranges of it are fetched one after another, so that memory does not follow its size.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use objects::{Bucket, BucketError, Dropped};
use prometheus_client::metrics::counter::Counter;
use service_kit::run::Drain;
use tokio::runtime::Handle;

/// Bytes that are fetched by one request and kept in memory.
const RANGE_BYTES: u64 = 8 << 20;
/// How often the progress of a large object is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why an object was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("interrupted")]
    Interrupted,
}

/// Where the bytes come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) bucket: Bucket,
    pub(crate) object: Dropped,
    pub(crate) drain: Drain,
    /// Counts what is fetched.
    pub(crate) read_bytes: Counter,
}

/// One reading of an object. `Read` blocks the thread: it is called inside `tokio::task::block_in_place`.
#[derive(Debug)]
pub(crate) struct Source {
    origin: Origin,
    runtime: Handle,
    position: u64,
    fetched: Bytes,
    failed: Failure,
    logged: Instant,
}

/// Why a reading failed. Decoders wrap errors of what they read, and some keep their text alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<SourceError>>>);

impl Failure {
    /// The error of the reading, if it failed.
    pub(crate) fn take(&self) -> Option<SourceError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Source {
    pub(crate) fn new(origin: Origin) -> Self {
        let logged = Instant::now();
        let failed = Failure::default();
        Self { origin, runtime: Handle::current(), position: 0, fetched: Bytes::new(), failed, logged }
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failed.clone()
    }

    /// The next bytes; empty at the end.
    pub(crate) async fn next(&mut self) -> Result<Bytes, SourceError> {
        let Origin { bucket, object, drain, read_bytes } = &self.origin;
        let end = object.size_bytes.min(self.position + RANGE_BYTES);
        if self.position >= end {
            return Ok(Bytes::new());
        }
        let bytes = tokio::select! {
            biased;
            () = drain.cancelled() => return Err(SourceError::Interrupted),
            bytes = bucket.range(&object.key, &object.revision, self.position..end) => bytes?,
        };
        read_bytes.inc_by(bytes.len() as u64);
        self.position += bytes.len() as u64;
        if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            let location = bucket.location(&object.key);
            tracing::info!(location, read = self.position, of = object.size_bytes, "reading an object");
        }
        Ok(bytes)
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.fetched.is_empty() {
            let runtime = self.runtime.clone();
            match runtime.block_on(self.next()) {
                Ok(bytes) => self.fetched = bytes,
                Err(error) => {
                    let text = error.to_string();
                    *self.failed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let count = into.len().min(self.fetched.len());
        self.fetched.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
