//! One object-store layer for `file://` and `s3://`, so that data files, manifests and table metadata go through the
//! same client with the same retries. Every path is confined to the warehouse. Objects are written once under unique
//! names with plain overwriting PUTs. A conditional PUT would decide nothing: the client retries it after a lost reply,
//! and the retry reports a conflict with the object that the first attempt wrote.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutOptions, RetryConfig};
use service_kit::config::Secret;
use service_kit::run::in_a_line;
use uuid::Uuid;

use crate::archive::{self, ArchiveError, RestoreOrder, Restoring, Storage};
use crate::calls::Calls;
use crate::checked::Checked;
use crate::checksum::{self, Damage};
use crate::config::S3Options;
use crate::durable::DurableDir;
use crate::list::{ListError, ObjectInfo};
use crate::location::{self, Outside};
use crate::tags::{TagClient, TagError, Tags, TagsNotSupported};
use crate::tiers::Tiers;

/// Why the object store could not be opened or did not serve a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("warehouse {0:?} is neither an absolute path, file:///path nor s3://bucket/prefix")]
    Warehouse(String),
    #[error("cannot make the warehouse directory {path}")]
    Directory { path: String, source: std::io::Error },
    #[error("there is no warehouse {path}: start ingest first, which makes it, or correct `store.warehouse`")]
    Absent { path: String },
    #[error("cannot configure the object store for {warehouse}")]
    Configure { warehouse: String, source: object_store::Error },
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    TagsNotSupported(#[from] TagsNotSupported),
    #[error("cannot write {location}")]
    Put { location: String, source: object_store::Error },
    #[error("cannot make {location} durable")]
    Sync { location: String, source: std::io::Error },
    #[error("cannot delete {location}")]
    Delete { location: String, source: object_store::Error },
    #[error("cannot read {location}")]
    Get { location: String, source: object_store::Error },
    #[error("{location} is damaged: {problem}")]
    Damaged { location: String, problem: Damage },
}

impl StoreError {
    /// The error of a failed read of an object.
    fn get(location: &str, source: object_store::Error) -> Self {
        let location = location.to_owned();
        // A failed checksum arrives inside a generic error of `object_store`. It is damage, which no repetition
        // repairs.
        match Damage::behind(&source).cloned() {
            Some(problem) => Self::Damaged { location, problem },
            None => Self::Get { location, source },
        }
    }

    /// The object is not there (as opposed to: could not be read now).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Get { source: object_store::Error::NotFound { .. }, .. })
    }

    /// The same request may succeed later, once a server is reachable again, or its permissions or its disk are
    /// repaired.
    pub fn is_transient(&self) -> bool {
        // An absent object stays absent, because names are never used twice: repeating the read would not help.
        matches!(self, Self::Put { .. } | Self::Sync { .. } | Self::Get { .. }) && !self.is_not_found()
    }
}

/// Size of the object that [`Store::check_writable`] writes: a disk may be full and have room for a few bytes.
const PROBE_BYTES: usize = 1 << 20;
/// Bytes of an object that are read and checked in one piece.
const VERIFIED_AT_ONCE: u64 = 8 << 20;

/// What comparing an object with its checksums showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Every byte is what was written.
    Sound,
    /// Another program wrote the object, or a version of this one that wrote no checksums.
    NoChecksum,
}

/// Whether what is read of an object is compared with checksums; `path` may be a location or any end of it.
pub fn has_checksums(path: &str) -> bool {
    checksum::Guard::of(path).is_some()
}

/// Puts checksums into a finished Parquet file. Returns its bytes, and `id` with the checksum in it for its name.
///
/// # Errors
/// The bytes are no Parquet file.
pub fn seal(id: Uuid, file: Vec<u8>) -> Result<(Uuid, Bytes), Damage> {
    let (bytes, checksum) = checksum::seal(file)?;
    Ok((checksum::stamp(id, checksum), bytes))
}

/// The id with the checksum of an object in it, for the object's name.
pub fn stamp(id: Uuid, object: &[u8]) -> Uuid {
    checksum::stamp(id, crc32c::crc32c(object))
}

/// The warehouse: an object store whose paths are relative to, and cannot leave, one prefix.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Arc<str>,
    /// Local file systems only: `object_store` renames without `fsync`.
    durable: Option<Arc<DurableDir>>,
    /// S3 only.
    calls: Option<Arc<Calls>>,
    tiers: Tiers,
}

impl Store {
    /// Opens the warehouse: `/path`, `file:///path` (made when absent) or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// The warehouse is malformed, its directory cannot be made, or the S3 options contradict one another. No request
    /// is sent.
    pub fn open(warehouse: &str, s3: Option<&S3Options>) -> Result<Self, StoreError> {
        let warehouse = warehouse.trim_end_matches('/');
        if let Some(rest) = warehouse.strip_prefix("s3://") {
            return Self::open_s3(warehouse, rest, s3.unwrap_or(&S3Options::default()));
        }
        match local_path(warehouse) {
            Some(path) => Self::open_local(path),
            None => Err(StoreError::Warehouse(warehouse.to_owned())),
        }
    }

    /// For programs that make no warehouse: a directory on this machine must be there.
    ///
    /// # Errors
    /// [`StoreError::Absent`].
    pub fn must_exist(warehouse: &str) -> Result<(), StoreError> {
        match local_path(warehouse) {
            Some(path) if !std::path::Path::new(path).is_dir() => Err(StoreError::Absent { path: path.to_owned() }),
            _ => Ok(()),
        }
    }

    fn open_local(path: &str) -> Result<Self, StoreError> {
        let durable = DurableDir::create(path.as_ref())
            .map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
        // The canonical path: locations recorded in tables do not depend on the symbolic link through which they were
        // opened.
        let path = durable.root().display().to_string();
        // `#` and `?` end the path of a URL (RFC 3986): PyIceberg and others would open a shorter path. They read a
        // location without a scheme to its end.
        let root = if path.contains(['#', '?']) { path } else { format!("file://{path}") };
        let objects = LocalFileSystem::new_with_prefix(durable.root())
            .map_err(|source| StoreError::Configure { warehouse: root.clone(), source })?;
        Ok(Self {
            objects: Arc::new(Checked::new(objects)),
            root: root.into(),
            durable: Some(Arc::new(durable)),
            calls: None,
            tiers: Tiers::default(),
        })
    }

    fn open_s3(warehouse: &str, rest: &str, s3: &S3Options) -> Result<Self, StoreError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(StoreError::Warehouse(warehouse.to_owned()));
        }
        let configure = |source| StoreError::Configure { warehouse: warehouse.to_owned(), source };
        let tiers = s3.tiers;
        let S3Client { s3, region, client } = S3Client::open(bucket, s3).map_err(configure)?;
        let prefix = Path::parse(prefix).map_err(|e| configure(e.into()))?;
        // `PrefixStore` confines the paths below; the signed requests bypass it and add the prefix themselves.
        let calls = Calls::new(s3.clone(), prefix.clone(), region, &client).map_err(configure)?;
        let objects =
            if prefix.as_ref().is_empty() { Checked::new(s3) } else { Checked::new(PrefixStore::new(s3, prefix)) };
        Ok(Self {
            objects: Arc::new(objects),
            root: warehouse.into(),
            durable: None,
            calls: Some(Arc::new(calls)),
            tiers,
        })
    }

    /// The warehouse's location, without a trailing slash: the prefix of every location in the lake.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The object store itself; its paths are those of [`Store::path`] and are relative to the warehouse. What it reads
    /// of the lake's own objects is checked; [`Damage::behind`] finds a failed check in its errors.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// The path of a location (`file://…`, `s3://…`) inside the warehouse. Objects are compared by it: other programs write
    /// the location of a local file in another form, `file:/…`.
    ///
    /// # Errors
    /// The location lies outside the warehouse or climbs out of it.
    pub fn path(&self, location: &str) -> Result<Path, StoreError> {
        Ok(self.inside(location)?)
    }

    pub(crate) fn inside(&self, location: &str) -> Result<Path, Outside> {
        location::below(&self.root, location)
    }

    /// Writes a whole object and returns when it will survive a crash of the machine (local) or is acknowledged (S3).
    ///
    /// # Errors
    /// The location is outside the warehouse, or the write failed: the object may or may not exist then.
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.put_tagged(location, bytes, &Tags::default()).await
    }

    /// As [`Store::put`], with tags.
    ///
    /// # Errors
    /// As [`Store::put`], and when objects of this warehouse have no tags.
    pub async fn put_tagged(&self, location: &str, bytes: Bytes, tags: &Tags) -> Result<(), StoreError> {
        let path = self.inside(location)?;
        // First: a directory would store the object and ignore its tags (`PutOptions::tags`).
        self.check_tags(location, tags)?;
        let options = PutOptions { tags: tags.header(), ..PutOptions::default() };
        let put = self.objects.put_opts(&path, bytes.into(), options).await;
        put.map_err(|source| StoreError::Put { location: location.to_owned(), source })?;
        // Before the write is reported: what names the object must not survive a power cut that the object does not
        // survive.
        self.sync(&path).await.map_err(|source| StoreError::Sync { location: location.to_owned(), source })
    }

    /// Returns when a written object will survive a crash of the machine.
    pub(crate) async fn sync(&self, path: &Path) -> std::io::Result<()> {
        let Some(durable) = self.durable.clone() else { return Ok(()) };
        let relative = path.to_string();
        // `fsync` may block for seconds, which a thread of the async runtime must not.
        tokio::task::spawn_blocking(move || durable.sync(&relative)).await.map_err(std::io::Error::other)?
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// The location is outside the warehouse, absent, or could not be read, or the object is damaged.
    pub async fn get(&self, location: &str) -> Result<Bytes, StoreError> {
        let path = self.inside(location)?;
        let found = self.objects.get(&path).await.map_err(|source| StoreError::get(location, source))?;
        found.bytes().await.map_err(|source| StoreError::get(location, source))
    }

    /// Reads all of an object of `size_bytes` in pieces, so that its checksums are compared.
    ///
    /// # Errors
    /// As [`Store::get`]; the object also counts as damaged when it has another size.
    pub async fn verify(&self, location: &str, size_bytes: u64) -> Result<Verified, StoreError> {
        // First: objects of other programs have no checksums, but the manifests record their size.
        let found = self.size(location).await?;
        if found != size_bytes {
            let problem =
                Damage::new(format!("it has {found} bytes instead of the {size_bytes} that the table records"));
            return Err(StoreError::Damaged { location: location.to_owned(), problem });
        }
        if checksum::Guard::of(location).is_none() {
            return Ok(Verified::NoChecksum);
        }
        let mut start = 0;
        while start < size_bytes {
            // Pieces bound the memory. They are multiples of a block of checksums, so that no block is read twice.
            let end = size_bytes.min(start + VERIFIED_AT_ONCE);
            self.get_ranges(location, std::slice::from_ref(&(start..end))).await?;
            start = end;
        }
        Ok(Verified::Sound)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The location is outside the warehouse, or the store refused.
    pub async fn delete(&self, location: &str) -> Result<(), StoreError> {
        let path = self.inside(location)?;
        self.objects.delete(&path).await.map_err(|source| StoreError::Delete { location: location.to_owned(), source })
    }

    /// Writes an object and deletes it again: tests whether permissions and free space allow writing.
    ///
    /// # Errors
    /// The store did not accept the object.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let location = format!("{}/{}.probe", self.root, Uuid::now_v7());
        self.put(&location, Bytes::from_static(&[0; PROBE_BYTES])).await?;
        // The store is writable, which was the question. Deleting is a separate permission in S3.
        if let Err(error) = self.delete(&location).await {
            tracing::warn!(
                reason = in_a_line(&error),
                "the object that was written to test write access was not deleted"
            );
        }
        Ok(())
    }

    /// Some object of the warehouse, which a request of its own has shown to exist; `None` when there is none.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub async fn any_object(&self) -> Result<Option<String>, StoreError> {
        let found = self.first_listed().await;
        found.map_err(|source| StoreError::Get { location: self.root.to_string(), source })
    }

    async fn first_listed(&self) -> object_store::Result<Option<String>> {
        let Some(found) = self.objects.list(None).try_next().await? else {
            return Ok(None);
        };
        // In S3, listing and reading are separate permissions: HEAD needs `s3:GetObject`.
        self.objects.head(&found.location).await?;
        Ok(Some(found.location.to_string()))
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn size(&self, location: &str) -> Result<u64, StoreError> {
        Ok(self.head(location).await?.size_bytes)
    }

    /// What the store reports of an object without reading its content.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn head(&self, location: &str) -> Result<ObjectInfo, StoreError> {
        let path = self.inside(location)?;
        let meta = self.objects.head(&path).await;
        let meta = meta.map_err(|source| StoreError::Get { location: location.to_owned(), source })?;
        // `PrefixStore` leaves the prefix in the answer to HEAD: the location is the one that was asked for.
        Ok(ObjectInfo::new(location.to_owned(), &meta))
    }

    /// Reads several ranges of an object, coalescing close ones.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_ranges(&self, location: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let path = self.inside(location)?;
        self.objects.get_ranges(&path, ranges).await.map_err(|source| StoreError::get(location, source))
    }

    /// All objects below a location, in no order; below the root: all of the warehouse. `…/data` does not have what
    /// lies in `…/data2`. Objects written while the stream is read may be missing. The stream ends at its first error.
    ///
    /// # Errors
    /// The location is outside the warehouse; the stream's items fail when the store does.
    pub fn list(&self, below: &str) -> Result<BoxStream<'static, Result<ObjectInfo, ListError>>, ListError> {
        let below = below.trim_end_matches('/');
        // The root itself has no path below the root, so that `inside` would refuse it.
        let prefix = if below == self.root() { None } else { Some(self.inside(below)?) };
        let root = self.root().to_owned();
        let below = below.to_owned();
        let found = self.objects().list(prefix.as_ref()).map(move |found| match found {
            Ok(meta) => Ok(ObjectInfo::new(format!("{root}/{}", meta.location), &meta)),
            Err(source) => Err(ListError::List { prefix: below.clone(), source }),
        });
        Ok(found.boxed())
    }

    /// The tags of an object.
    ///
    /// # Errors
    /// The location is outside the warehouse, the object is absent, the warehouse is a directory, or S3 did not answer.
    pub async fn tags(&self, location: &str) -> Result<Tags, TagError> {
        let (client, path) = self.tagged(location)?;
        client.get(&path, location).await
    }

    /// Replaces all tags of an object.
    ///
    /// # Errors
    /// As [`Store::tags`].
    pub async fn set_tags(&self, location: &str, tags: &Tags) -> Result<(), TagError> {
        let (client, path) = self.tagged(location)?;
        client.replace(&path, location, tags).await
    }

    /// Tags an object that a commit names as complete. Where the server does not answer, it is tried again for about two
    /// minutes. Setting the tag twice does no harm.
    ///
    /// # Errors
    /// As [`Store::tags`].
    pub async fn complete(&self, location: &str) -> Result<(), TagError> {
        let tags = Tags::complete();
        let mut pause = FIRST_TAG_PAUSE;
        for _ in 1..TAG_ATTEMPTS {
            match self.set_tags(location, &tags).await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
                done => return done,
            }
            pause *= 2;
        }
        self.set_tags(location, &tags).await
    }

    fn tagged(&self, location: &str) -> Result<(TagClient<'_>, Path), TagError> {
        let path = self.inside(location)?;
        match self.calls.as_deref() {
            Some(calls) => Ok((TagClient(calls), path)),
            None => Err(TagsNotSupported { location: location.to_owned() }.into()),
        }
    }

    /// In which storage class an object lies, and whether a copy of it is being restored or can be read.
    ///
    /// # Errors
    /// The location is outside the warehouse, the object is absent, the warehouse is a directory, or S3 did not answer.
    pub async fn storage(&self, location: &str) -> Result<Storage, ArchiveError> {
        let path = self.inside(location)?;
        archive::storage(self.archive(location)?, &path, location).await
    }

    /// Asks for a copy of an archived object that can be read for some days. The copy comes hours later
    /// ([`Store::storage`]).
    ///
    /// # Errors
    /// As [`Store::storage`], and when the object is not archived.
    pub async fn restore(&self, location: &str, order: RestoreOrder) -> Result<Restoring, ArchiveError> {
        let path = self.inside(location)?;
        archive::restore(self.archive(location)?, &path, location, order).await
    }

    /// When the rule of the bucket moves objects, and what classes cost. Without a bucket nothing moves.
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    fn archive(&self, location: &str) -> Result<&Calls, ArchiveError> {
        self.calls.as_deref().ok_or_else(|| ArchiveError::NotSupported { location: location.to_owned() })
    }

    /// Whether objects can have these tags: any in S3, none in a directory.
    pub(crate) fn check_tags(&self, location: &str, tags: &Tags) -> Result<(), TagsNotSupported> {
        if tags.is_empty() || self.calls.is_some() {
            return Ok(());
        }
        Err(TagsNotSupported { location: location.to_owned() })
    }

    /// Whether the objects of this warehouse can have tags.
    pub fn supports_tags(&self) -> bool {
        self.calls.is_some()
    }
}

/// How often a tag is tried to be set. The last pause makes it about two minutes.
const TAG_ATTEMPTS: u32 = 8;
const FIRST_TAG_PAUSE: Duration = Duration::from_secs(1);

/// A client of one bucket.
pub(crate) struct S3Client {
    pub(crate) s3: AmazonS3,
    pub(crate) region: String,
    pub(crate) client: ClientOptions,
}

impl S3Client {
    /// Sends no request.
    pub(crate) fn open(bucket: &str, s3: &S3Options) -> object_store::Result<Self> {
        let options = [
            (AmazonS3ConfigKey::Endpoint, s3.endpoint.as_ref()),
            (AmazonS3ConfigKey::AccessKeyId, s3.access_key_id.as_ref()),
            (AmazonS3ConfigKey::SecretAccessKey, s3.secret_access_key.as_ref().map(Secret::expose)),
        ];
        let plain_http = s3.endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
        let client = ClientOptions::new()
            // The second limit covers a request with its body. A part of 8 MiB passes in this time at 1.1 Mbit/s.
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(60))
            .with_allow_http(plain_http);
        // Signature Version 4 includes the region, so there must be one also for servers that have none.
        let region = s3.region.as_deref().unwrap_or("us-east-1");
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(!s3.path_style)
            .with_client_options(client.clone())
            .with_retry(RetryConfig {
                // Exponential backoff with random pauses: eight of them may last one second only. So the attempts are
                // bounded by time, and this number is high enough never to end them first.
                max_retries: 32,
                retry_timeout: Duration::from_secs(60),
                ..RetryConfig::default()
            });
        // After `from_env`: the configuration takes precedence over the environment.
        for (key, value) in options {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
        Ok(Self { s3: builder.build()?, region: region.to_owned(), client })
    }
}

/// The directory that a warehouse on this machine is; `None` of one in S3, and of what is no warehouse.
fn local_path(warehouse: &str) -> Option<&str> {
    let warehouse = warehouse.trim_end_matches('/');
    // A URL with a host (`file://host/path`, RFC 8089) has no leading slash left and is refused.
    let path = warehouse.strip_prefix("file://").unwrap_or(warehouse);
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests;
