//! What cannot be landed: a copy of the object under a prefix of its own, a message with the cause in a queue of its
//! own, and a tag. The object itself stays.

use objects::{Bucket, BucketError, Dropped, InvalidTags, Tags, UploadError};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use service_kit::run::{Drain, in_a_line};

use crate::format::FormatError;
use crate::notice::ObjectCreated;
use crate::packer::boot_id;
use crate::queue::{Queue, QueueError};
use crate::source::{Origin, Source, SourceError};
use crate::status::{self, Status, StatusError};

/// Characters of a value of a tag (Amazon S3 User Guide, "Categorizing your objects using tags").
const TAG_CHARS: usize = 256;
/// Characters of a reason: it is in the body of a message and in an attribute, and both share its 256 KiB.
const REASON_CHARS: usize = 2000;
/// Bytes of a key (Amazon S3 User Guide, "Naming Amazon S3 objects").
const KEY_BYTES_MAX: usize = 1024;

/// Why an object cannot be landed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Unfit(#[from] FormatError),
    /// There is nothing (any more) to be landed, or to be copied.
    #[error(transparent)]
    Absent(BucketError),
}

impl Cause {
    /// A short, stable word.
    fn word(&self) -> &'static str {
        match self {
            Self::Unfit(error) => error.cause(),
            Self::Absent(BucketError::Replaced { .. }) => "replaced",
            Self::Absent(BucketError::Key { .. }) => "bad_key",
            Self::Absent(_) => "gone",
        }
    }
}

/// Why an object could not be put to the dead letters. It is attempted again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoisonError {
    #[error("the object cannot be read for its copy")]
    Read(#[source] BucketError),
    #[error("the object cannot be copied below the prefix of dead letters")]
    Copy(#[from] UploadError),
    #[error("the queue of dead letters cannot be written")]
    Queue(#[from] QueueError),
    #[error("the object cannot be tagged")]
    Tag(#[from] StatusError),
    #[error("a tag cannot be made")]
    Tags(#[from] InvalidTags),
    #[error("interrupted")]
    Interrupted,
}

impl From<SourceError> for PoisonError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Bucket(error) => Self::Read(error),
            SourceError::Interrupted => Self::Interrupted,
        }
    }
}

/// Where dead letters go.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    pub(crate) bucket: Bucket,
    /// Ends with a slash.
    pub(crate) prefix: String,
    pub(crate) queue: Queue,
    pub(crate) drain: Drain,
}

impl DeadLetters {
    /// Puts an object there. Doing so again overwrites the copy, and sends another message.
    ///
    /// # Errors
    /// See [`PoisonError`]; nothing is deleted.
    pub(crate) async fn put(
        &self,
        announced: &ObjectCreated,
        found: Option<&Dropped>,
        cause: &Cause,
        message: &str,
    ) -> Result<(), PoisonError> {
        let text: String = in_a_line(cause).chars().take(REASON_CHARS).collect();
        let location = self.bucket.location(&announced.key);
        tracing::error!(location, cause = cause.word(), reason = text, "an object cannot be landed");
        let copied = match (cause, found) {
            // S3 takes no upload without a part.
            (Cause::Unfit(FormatError::Empty), _) => None,
            (Cause::Unfit(_), Some(found)) => Some(self.copy(found, cause, &text).await?),
            _ => None,
        };
        // Before the tag: by the tag a repetition of the message is passed over.
        let body = json!({
            "bucket": announced.bucket, "key": announced.key, "etag": announced.etag, "version": announced.version,
            "cause": cause.word(), "reason": text, "copy": copied, "message": message,
        });
        let attributes = [("cause", cause.word().to_owned()), ("reason", text)];
        self.queue.send(&body.to_string(), &attributes).await?;
        match (cause, found) {
            (Cause::Unfit(_), Some(found)) => Ok(status::set(&self.bucket, found, Status::Failed(cause.word())).await?),
            _ => Ok(()),
        }
    }

    /// The location of the copy.
    async fn copy(&self, found: &Dropped, cause: &Cause, text: &str) -> Result<String, PoisonError> {
        let key = copy_key(&self.prefix, self.bucket.name(), found);
        let reason = tag_text(text);
        let tags = [("processing_status", "failed"), ("processing_cause", cause.word()), ("reason", reason.as_str())];
        let tags = Tags::new(tags)?;
        let origin = Origin {
            bucket: self.bucket.clone(),
            object: found.clone(),
            drain: self.drain.clone(),
            read_bytes: Counter::default(),
        };
        // Written anew instead of `CopyObject`: that takes 5 GB at most, and would copy the newest content of the key.
        let mut source = Source::new(origin);
        let mut upload = self.bucket.upload(&key, &tags).await?;
        loop {
            match source.next().await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => upload = upload.write(bytes).await?,
                Err(error) => {
                    upload.abort().await;
                    return Err(error.into());
                }
            }
        }
        upload.finish().await?;
        Ok(self.bucket.location(&key))
    }
}

/// The key of the copy of an object.
fn copy_key(prefix: &str, bucket: &str, found: &Dropped) -> String {
    let etag = &found.revision.etag;
    // With the entity tag: a later bad upload of the same key must not overwrite the copy of this one.
    let key = format!("{prefix}{}.{etag}", found.key);
    if key.len() <= KEY_BYTES_MAX {
        return key;
    }
    // The object's identity is a hash of the same parts; the message of the dead letter has both keys.
    format!("{prefix}{}", boot_id(bucket, &found.key, etag))
}

/// A text in the characters that a tag may have.
fn tag_text(text: &str) -> String {
    let text: String = text.chars().map(tag_char).take(TAG_CHARS).collect();
    text.trim().to_owned()
}

fn tag_char(c: char) -> char {
    if c.is_alphanumeric() || " +-=._:/@".contains(c) { c } else { '_' }
}

#[cfg(test)]
mod tests {
    use objects::Revision;

    use super::*;

    fn key_of_copy(key: &str) -> String {
        let revision = Revision { etag: "e1".to_owned(), version: None };
        copy_key("dead-letter/", "b", &Dropped { key: key.to_owned(), size_bytes: 1, revision })
    }

    #[test]
    fn the_key_of_a_copy_fits_into_s3_and_differs_for_each_object() {
        assert_eq!(key_of_copy("incoming/a"), "dead-letter/incoming/a.e1");
        let longest = "k".repeat(KEY_BYTES_MAX - "dead-letter/.e1".len());
        assert_eq!(key_of_copy(&longest).len(), KEY_BYTES_MAX);
        let copies = [format!("{longest}a"), format!("{longest}b")].map(|key| key_of_copy(&key));
        assert_ne!(copies[0], copies[1]);
        for copy in copies {
            assert!(copy.starts_with("dead-letter/") && copy.len() <= KEY_BYTES_MAX, "{copy}");
        }
    }

    #[test]
    fn a_reason_fits_into_a_tag() {
        let text = tag_text(&format!(" line 3: unknown field `a\"b` (column 5), {}", "x".repeat(300)));
        assert!(text.starts_with("line 3: unknown field _a_b_ _column 5__ x"), "{text}");
        assert!(Tags::new([("reason", text)]).is_ok());
    }
}
