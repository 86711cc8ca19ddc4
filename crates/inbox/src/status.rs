//! The tags by which an object says that it was dealt with.

use objects::{Bucket, BucketError, Dropped, InvalidTags, TagError, Tags};

/// Rules of the bucket act upon it: what is `complete` may be moved to an archive.
const STATUS: &str = "processing_status";
/// The entity tag of the content that the status is of. Between a look at an object and its tagging another upload may
/// replace it; the new content must not pass for one that has landed.
const ETAG: &str = "processing_etag";
/// Why an object failed, in one word.
const CAUSE: &str = "processing_cause";

/// How an object was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its rows have landed.
    Complete,
    /// It cannot be landed, for this cause.
    Failed(&'static str),
}

/// Why an object was not tagged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// Whether content with this entity tag was dealt with.
pub fn is_settled(tags: &Tags, etag: &str) -> bool {
    let has_status = tags.get(STATUS).is_some_and(|status| ["complete", "failed"].contains(&status));
    has_status && tags.get(ETAG) == Some(etag)
}

/// The tags of an object with a status added.
///
/// # Errors
/// The object has too many tags already.
pub fn with(tags: &Tags, status: Status, etag: &str) -> Result<Tags, InvalidTags> {
    let kept = tags.iter().filter(|(name, _)| ![STATUS, ETAG, CAUSE].contains(name));
    let added = match status {
        Status::Complete => vec![(STATUS, "complete"), (ETAG, etag)],
        Status::Failed(cause) => vec![(STATUS, "failed"), (ETAG, etag), (CAUSE, cause)],
    };
    Tags::new(kept.chain(added))
}

/// Tags an object with a status, as long as its key has this content.
///
/// # Errors
/// See [`StatusError`]; an object that is gone or has other content is none.
pub(crate) async fn set(bucket: &Bucket, found: &Dropped, status: Status) -> Result<(), StatusError> {
    let tags = match bucket.tags(&found.key).await {
        Ok(tags) => tags,
        // Deleted since: there is nothing to be tagged.
        Err(TagError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Another upload of the key has tags of its own, and its own announcement.
    if !is_newest(found, bucket.head(&found.key, None).await)? {
        return Ok(());
    }
    match with(&tags, status, &found.revision.etag) {
        Ok(tags) => Ok(bucket.set_tags(&found.key, &tags).await?),
        Err(error) => {
            // Another attempt would meet the same tags.
            let location = bucket.location(&found.key);
            tracing::warn!(location, %error, "an object was dealt with and could not be tagged");
            Ok(())
        }
    }
}

/// Whether the newest content of a key is the one that was dealt with. Any failure but that of an object that is gone
/// leaves this open.
fn is_newest(found: &Dropped, newest: Result<Dropped, BucketError>) -> Result<bool, BucketError> {
    match newest {
        Ok(newest) => Ok(newest.revision.etag == found.revision.etag),
        Err(BucketError::Gone { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use objects::Revision;

    use super::*;

    fn dropped(etag: &str) -> Dropped {
        let revision = Revision { etag: etag.to_owned(), version: None };
        Dropped { key: "incoming/a".to_owned(), size_bytes: 1, revision }
    }

    #[test]
    fn a_look_that_fails_does_not_pass_for_a_replaced_object() {
        let location = "s3://b/incoming/a".to_owned();
        assert!(is_newest(&dropped("e1"), Ok(dropped("e1"))).unwrap());
        assert!(!is_newest(&dropped("e1"), Ok(dropped("e2"))).unwrap());
        assert!(!is_newest(&dropped("e1"), Err(BucketError::Gone { location: location.clone() })).unwrap());
        assert!(is_newest(&dropped("e1"), Err(BucketError::NoRevision { location })).is_err());
    }

    #[test]
    fn a_status_holds_for_the_content_that_it_was_set_for_and_other_tags_stay() {
        let tags = Tags::new([("owner", "ann"), (STATUS, "pending")]).unwrap();
        assert!(!is_settled(&tags, "e1"));
        let complete = with(&tags, Status::Complete, "e1").unwrap();
        assert!(is_settled(&complete, "e1") && !is_settled(&complete, "e2"));
        assert_eq!((complete.get("owner"), complete.get(STATUS)), (Some("ann"), Some("complete")));
        let failed = with(&complete, Status::Failed("damaged"), "e2").unwrap();
        assert!(is_settled(&failed, "e2") && !is_settled(&failed, "e1"));
        assert_eq!(failed.get(CAUSE), Some("damaged"));
        assert_eq!(with(&failed, Status::Complete, "e2").unwrap().get(CAUSE), None);
    }

    #[test]
    fn an_object_with_ten_tags_of_its_own_takes_none() {
        let tags = Tags::new((0..10).map(|at| (format!("t{at}"), "v"))).unwrap();
        assert!(matches!(with(&tags, Status::Complete, "e"), Err(InvalidTags::Count { count: 12 })));
    }
}
