//! Objects that are written as a stream: parts are sent while the next ones are made, and the object appears whole or
//! not at all.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload};
use tokio::task::JoinSet;

use crate::location::Outside;
use crate::store::Store;
use crate::tags::{Tags, TagsNotSupported};

/// Bytes of each part but the last: S3 takes 5 MiB to 5 GiB and 10,000 parts ("Amazon S3 multipart upload limits"), so
/// that an object may have 80 GB. All parts have one size because some stores that are not AWS, such as Cloudflare R2,
/// require it.
pub const PART_BYTES: usize = 8 << 20;
/// Parts that are sent at the same time. With the part that is being filled they bound what an upload keeps in memory.
pub const PARTS_AT_ONCE: usize = 2;

/// Why an object was not uploaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    TagsNotSupported(#[from] TagsNotSupported),
    #[error("cannot begin the upload of {location}")]
    Begin { location: String, source: object_store::Error },
    #[error("cannot upload a part of {location}")]
    Part { location: String, source: object_store::Error },
    #[error("a part of {location} was not sent because its task ended")]
    Task { location: String, source: tokio::task::JoinError },
    #[error("cannot complete the upload of {location}")]
    Complete { location: String, source: object_store::Error },
    #[error("cannot make {location} durable")]
    Sync { location: String, source: std::io::Error },
}

impl UploadError {
    /// The same object may be uploaded later, under another name. After a failed completion this one may exist.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Begin { .. } | Self::Part { .. } | Self::Complete { .. } | Self::Sync { .. } => true,
            // A task that panicked is a defect of this program: repeating the upload would meet it again.
            Self::Outside(_) | Self::TagsNotSupported(_) | Self::Task { .. } => false,
        }
    }
}

/// An object that is being written. A step that fails aborts the upload and consumes it, so that the store keeps no
/// parts. An upload that is dropped, or whose process ends, leaves parts in S3 which only a rule of the bucket deletes
/// (`AbortIncompleteMultipartUpload`).
#[derive(Debug)]
pub struct Upload {
    store: Store,
    location: String,
    path: Path,
    parts: Box<dyn MultipartUpload>,
    sent: JoinSet<object_store::Result<()>>,
    /// Less than one part.
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    size_bytes: u64,
}

impl Store {
    /// Begins to write an object with these tags.
    ///
    /// # Errors
    /// The location is outside the warehouse, its objects have no tags, or the store refused.
    pub async fn upload(&self, location: &str, tags: &Tags) -> Result<Upload, UploadError> {
        let path = self.inside(location)?;
        self.check_tags(location, tags)?;
        // S3 takes the tags when the upload begins (`CreateMultipartUpload`).
        let options = PutMultipartOptions { tags: tags.header(), ..PutMultipartOptions::default() };
        let begun = self.objects().put_multipart_opts(&path, options).await;
        let parts = begun.map_err(|source| UploadError::Begin { location: location.to_owned(), source })?;
        Ok(Upload {
            store: self.clone(),
            location: location.to_owned(),
            path,
            parts,
            sent: JoinSet::new(),
            buffered: Vec::new(),
            buffered_bytes: 0,
            size_bytes: 0,
        })
    }
}

impl Upload {
    /// Appends bytes. Waits while [`PARTS_AT_ONCE`] parts are on their way.
    ///
    /// # Errors
    /// A part could not be sent. The upload is aborted.
    pub async fn write(mut self, bytes: Bytes) -> Result<Self, UploadError> {
        match self.append(bytes).await {
            Ok(()) => Ok(self),
            Err(error) => Err(self.fail(error).await),
        }
    }

    /// Completes the object and returns its size in bytes when it will survive a crash of the machine (local) or is
    /// acknowledged (S3).
    ///
    /// # Errors
    /// A part could not be sent, or the store did not confirm the object: it may or may not exist then.
    pub async fn finish(mut self) -> Result<u64, UploadError> {
        if let Err(error) = self.complete().await {
            return Err(self.fail(error).await);
        }
        // The object is complete: from here on there is nothing to abort.
        let synced = self.store.sync(&self.path).await;
        synced.map_err(|source| UploadError::Sync { location: self.location.clone(), source })?;
        Ok(self.size_bytes)
    }

    /// Ends the upload without an object.
    pub async fn abort(mut self) {
        // First: a part that is still in progress may succeed after the abort and stay in the store
        // (`AbortMultipartUpload`).
        self.sent.shutdown().await;
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(location = self.location, %error, "the parts of an aborted upload are left in the store");
        }
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        self.size_bytes += bytes.len() as u64;
        while self.buffered_bytes + bytes.len() >= PART_BYTES {
            // Within the length, because the loop condition says that the part gets full. `Bytes` are split without
            // copying.
            self.buffered.push(bytes.split_to(PART_BYTES - self.buffered_bytes));
            // Backpressure: a slow store slows the writer down instead of filling the memory.
            self.wait_below(PARTS_AT_ONCE).await?;
            self.send();
        }
        if !bytes.is_empty() {
            self.buffered_bytes += bytes.len();
            self.buffered.push(bytes);
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), UploadError> {
        if !self.buffered.is_empty() {
            self.send();
        }
        // `CompleteMultipartUpload` lists the parts, so each must have been acknowledged.
        self.wait_below(1).await?;
        let completed = self.parts.complete().await;
        completed.map_err(|source| UploadError::Complete { location: self.location.clone(), source })?;
        Ok(())
    }

    fn send(&mut self) {
        let part: PutPayload = std::mem::take(&mut self.buffered).into_iter().collect();
        self.buffered_bytes = 0;
        // `put_part` numbers the part here and not when the task runs: the order of the tasks does not matter.
        self.sent.spawn(self.parts.put_part(part));
    }

    /// Waits until fewer than `limit` parts are on their way.
    async fn wait_below(&mut self, limit: usize) -> Result<(), UploadError> {
        while self.sent.len() >= limit {
            match self.sent.join_next().await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(source))) => return Err(UploadError::Part { location: self.location.clone(), source }),
                Some(Err(source)) => return Err(UploadError::Task { location: self.location.clone(), source }),
            }
        }
        Ok(())
    }

    async fn fail(self, error: UploadError) -> UploadError {
        self.abort().await;
        error
    }
}

#[cfg(test)]
mod tests;
