//! A bucket that other programs write to. Its objects are read as they are: their names hold no checksums, their keys
//! are what their writers chose, and they may be replaced or deleted while they are read.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore};
use service_kit::config::Secret;

use crate::calls::Calls;
use crate::config::S3Options;
use crate::store::{S3Client, Store, StoreError};
use crate::tags::{TagClient, TagError, Tags};
use crate::upload::{Upload, UploadError};

/// Codes by which S3 refuses credentials and rights (Amazon S3 API Reference, "Error responses").
const REFUSALS: [&str; 6] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
];

/// A prefix under which nothing is expected.
const PROBE: &str = ".causeway-is-there";

/// The content of a key at one time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The entity tag, without quotes. Equal tags under one key mean equal bytes (Amazon S3 API Reference, `Object`).
    pub etag: String,
    /// The version in a bucket that keeps versions.
    pub version: Option<String>,
}

/// An object that another program dropped into the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the bucket.
    pub key: String,
    /// Bytes of its content.
    pub size_bytes: u64,
    /// Which content that is.
    pub revision: Revision,
}

/// Keys with which requests to the services of AWS are signed.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Names the keys; no secret.
    pub access_key_id: String,
    /// Signs requests.
    pub secret_access_key: Secret<String>,
    /// Of temporary credentials.
    pub session_token: Option<Secret<String>>,
}

/// Why an object of a bucket was not read, or the bucket not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    #[error("the key {key:?} has an empty, `.` or `..` segment, ends with a slash, or has a control character")]
    Key { key: String },
    #[error("there is no bucket {bucket}: create it, or correct its name, the region or the endpoint")]
    NoBucket {
        bucket: String,
        #[source]
        source: Error,
    },
    #[error("{location} does not exist (any more)")]
    Gone { location: String },
    #[error("{location} has other content by now: an upload of the same key replaced it")]
    Replaced { location: String },
    #[error("S3 refuses {location}: check the credentials, whether they have expired, and the policy of the bucket")]
    Refused {
        location: String,
        #[source]
        source: Error,
    },
    #[error("{location} cannot be read: check the region and the endpoint if this goes on")]
    Unavailable {
        location: String,
        #[source]
        source: Error,
    },
    #[error("{location} has no entity tag: the server names no revision of its objects")]
    NoRevision { location: String },
    #[error("no credentials for bucket {bucket}")]
    Credentials {
        bucket: String,
        #[source]
        source: Error,
    },
}

/// The bucket; see the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: Arc<str>,
    s3: AmazonS3,
    calls: Arc<Calls>,
    /// For what is written, which nothing else writes to.
    store: Store,
}

impl Bucket {
    /// Opens a bucket. No request is sent.
    ///
    /// # Errors
    /// The name is empty, or the options contradict one another.
    pub fn open(name: &str, options: &S3Options) -> Result<Self, StoreError> {
        let location = format!("s3://{name}");
        let store = Store::open(&location, Some(options))?;
        match Self::client(name, options) {
            Ok((s3, calls)) => Ok(Self { name: name.into(), s3, calls: Arc::new(calls), store }),
            Err(source) => Err(StoreError::Configure { warehouse: location, source }),
        }
    }

    fn client(name: &str, options: &S3Options) -> object_store::Result<(AmazonS3, Calls)> {
        let S3Client { s3, region, client } = S3Client::open(name, options)?;
        let calls = Calls::new(s3.clone(), Path::default(), region, &client)?;
        Ok((s3, calls))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `s3://bucket/key`.
    pub fn location(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// Shows that the bucket exists and may be listed.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::Refused`], or the server does not answer.
    pub async fn check(&self) -> Result<(), BucketError> {
        // Of a prefix that nothing has: `object_store` refuses a listing with a key that is no path of its own, such as
        // `a//b`.
        let listed = self.s3.list(Some(&Path::from(PROBE))).try_next().await;
        listed.map(drop).map_err(|source| self.error("", source))
    }

    /// What the bucket has under a key now, or at a version.
    ///
    /// # Errors
    /// See [`BucketError`].
    pub async fn head(&self, key: &str, version: Option<&str>) -> Result<Dropped, BucketError> {
        let path = path(key)?;
        let options = GetOptions { head: true, version: version.map(str::to_owned), ..GetOptions::default() };
        let found = match self.s3.get_opts(&path, options).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => {
                // An answer to HEAD has no body that names the reason: a listing shows whether it is the bucket or the
                // object that is missing.
                self.check().await?;
                return Err(BucketError::Gone { location: self.location(key) });
            }
            Err(error) => return Err(self.error(key, error)),
        };
        self.dropped(key, &found.meta)
    }

    fn dropped(&self, key: &str, meta: &ObjectMeta) -> Result<Dropped, BucketError> {
        let Some(etag) = meta.e_tag.as_deref() else {
            return Err(BucketError::NoRevision { location: self.location(key) });
        };
        // `null` is the version of what was written while the bucket kept none.
        let version = meta.version.clone().filter(|version| version != "null");
        let revision = Revision { etag: etag.trim_matches('"').to_owned(), version };
        Ok(Dropped { key: key.to_owned(), size_bytes: meta.size, revision })
    }

    /// Bytes of one revision of an object; `range` is not empty and lies within it.
    ///
    /// # Errors
    /// [`BucketError::Replaced`] when the key has another content by now; see [`BucketError`].
    pub async fn range(&self, key: &str, revision: &Revision, range: Range<u64>) -> Result<Bytes, BucketError> {
        let options = GetOptions {
            // Also with a version: some servers know no versions and pass over the parameter.
            if_match: Some(format!("\"{}\"", revision.etag)),
            version: revision.version.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let got = self.s3.get_opts(&path(key)?, options).await.map_err(|source| self.error(key, source))?;
        got.bytes().await.map_err(|source| self.error(key, source))
    }

    /// The objects below a prefix, which ends at a slash; all of the bucket for an empty one. The stream ends at its
    /// first error.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Dropped, BucketError>> {
        let below = match prefix.trim_matches('/') {
            "" => None,
            prefix => match path(prefix) {
                Ok(path) => Some(path),
                Err(error) => return futures::stream::once(std::future::ready(Err(error))).boxed(),
            },
        };
        let bucket = self.clone();
        let found = self.s3.list(below.as_ref()).map(move |found| match found {
            Ok(meta) => bucket.dropped(meta.location.as_ref(), &meta),
            Err(source) => Err(bucket.error("", source)),
        });
        found.boxed()
    }

    /// The tags of the newest content of a key.
    ///
    /// # Errors
    /// The object is absent, or S3 did not answer or refused.
    pub async fn tags(&self, key: &str) -> Result<Tags, TagError> {
        let location = self.location(key);
        match path(key) {
            Ok(path) => TagClient(&self.calls).get(&path, &location).await,
            Err(_) => Err(TagError::NotFound { location }),
        }
    }

    /// Replaces all tags of the newest content of a key.
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub async fn set_tags(&self, key: &str, tags: &Tags) -> Result<(), TagError> {
        let location = self.location(key);
        match path(key) {
            Ok(path) => TagClient(&self.calls).replace(&path, &location, tags).await,
            Err(_) => Err(TagError::NotFound { location }),
        }
    }

    /// Begins to write an object with tags.
    ///
    /// # Errors
    /// As [`Store::upload`].
    pub async fn upload(&self, key: &str, tags: &Tags) -> Result<Upload, UploadError> {
        self.store.upload(&self.location(key), tags).await
    }

    /// The credentials of the requests to this bucket; temporary ones are renewed before they expire.
    ///
    /// # Errors
    /// There are none, or their service does not answer.
    pub async fn credentials(&self) -> Result<Credentials, BucketError> {
        let found = self.s3.credentials().get_credential().await;
        let found = found.map_err(|source| BucketError::Credentials { bucket: self.name.to_string(), source })?;
        Ok(Credentials {
            access_key_id: found.key_id.clone(),
            secret_access_key: Secret::new(found.secret_key.clone()),
            session_token: found.token.clone().map(Secret::new),
        })
    }

    fn error(&self, key: &str, source: Error) -> BucketError {
        let location = self.location(key);
        match source {
            // The body of the answer is part of the error's text: `NoSuchBucket` and `NoSuchKey` have one status, and a
            // refusal may have another status than 403.
            source if source.to_string().contains("NoSuchBucket") => {
                BucketError::NoBucket { bucket: self.name.to_string(), source }
            }
            Error::NotFound { .. } => BucketError::Gone { location },
            Error::Precondition { .. } => BucketError::Replaced { location },
            source @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
                BucketError::Refused { location, source }
            }
            source if REFUSALS.iter().any(|code| source.to_string().contains(code)) => {
                BucketError::Refused { location, source }
            }
            source => BucketError::Unavailable { location, source },
        }
    }
}

/// The path of a key, which has exactly its characters.
fn path(key: &str) -> Result<Path, BucketError> {
    // `Path::parse` drops slashes at both ends, and with them would name another object.
    match Path::parse(key) {
        Ok(path) if path.as_ref() == key && !key.is_empty() => Ok(path),
        _ => Err(BucketError::Key { key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_characters_or_refused() {
        for key in ["a", "incoming/a b+c%20d.jsonl", "incoming/ä/é", "a/b=c/d"] {
            assert_eq!(path(key).unwrap().as_ref(), key);
        }
        for key in ["", "/a", "a/", "a//b", "a/../b", "a/./b", "a\nb"] {
            assert!(matches!(path(key), Err(BucketError::Key { .. })), "{key:?}");
        }
    }
}
