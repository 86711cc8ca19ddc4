//! What cannot be landed: a copy of the object under a prefix of its own, a message with the cause in a queue of its
//! own, and a tag. The object itself stays.

use objects::{Bucket, BucketError, Dropped, InvalidTags, Tags, UploadError};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use service_kit::run::{Drain, in_a_line};

use crate::format::FormatError;
use crate::notice::ObjectCreated;
use crate::queue::{Queue, QueueError};
use crate::source::{Origin, Source, SourceError};
use crate::status::{self, Status, StatusError};

/// Characters of a value of a tag (Amazon S3 User Guide, "Categorizing your objects using tags").
const TAG_CHARS: usize = 256;

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
        let text = in_a_line(cause);
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
        // With the entity tag: a later bad upload of the same key must not overwrite the copy of this one.
        let key = format!("{}{}.{}", self.prefix, found.key, found.revision.etag);
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
    use super::*;

    #[test]
    fn a_reason_fits_into_a_tag() {
        let text = tag_text(&format!(" line 3: unknown field `a\"b` (column 5), {}", "x".repeat(300)));
        assert!(text.starts_with("line 3: unknown field _a_b_ _column 5__ x"), "{text}");
        assert!(Tags::new([("reason", text)]).is_ok());
    }
}
