//! What is done with one object: looked at, sent, put to the dead letters, tagged.

use std::collections::HashSet;
use std::error::Error;

use objects::{BucketError, Dropped};
use recordings::{DestinationError, Target};

use crate::landing::{Landing, LandingError};
use crate::metrics::{Metrics, Outcome};
use crate::notice::ObjectCreated;
use crate::poison::{Cause, DeadLetters};
use crate::status::{self, Status};

/// Contents that are kept in memory because they could not be tagged. Beyond that they are sent again.
const UNTAGGED_MAX: usize = 10_000;

/// A failure of one object.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// How far an object is.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing was done.
    Announced,
    /// Its rows are in the log.
    Sent(Dropped, u64),
    /// Its rows are in the tables.
    Landed(Dropped, u64),
    /// Nothing is left to be done.
    Settled,
    /// Another attempt is made later.
    Failed(Failed),
}

/// Deals with objects.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) landing: Landing,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) metrics: Metrics,
    /// Objects below it are landed. Ends with a slash.
    pub(crate) prefix: String,
    /// Contents that landed and could not be tagged yet, as key and entity tag: they are not sent again.
    pub(crate) untagged: HashSet<(String, String)>,
}

impl Handler {
    /// Whether an object of this key is to be landed. A key that ends with a slash is the place-holder of a folder.
    fn is_incoming(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && !key.ends_with('/')
    }

    /// Counts an object of which another attempt is made.
    pub(crate) fn deferred(&self) {
        self.metrics.count(Outcome::Deferred);
    }

    /// Reads an object and sends its rows, unless that was done.
    pub(crate) async fn send(
        &self,
        object: &ObjectCreated,
        body: &str,
        target: &mut Target,
    ) -> Result<Step, DestinationError> {
        if !self.is_incoming(&object.key) {
            self.metrics.count(Outcome::PassedOver);
            return Ok(Step::Settled);
        }
        let found = match self.find(object).await {
            Ok(Found::Settled) => {
                self.metrics.count(Outcome::Repeated);
                return Ok(Step::Settled);
            }
            Ok(Found::Untagged(found)) => return Ok(Step::Landed(found, 0)),
            Ok(Found::New(found)) => found,
            Err(Miss::Absent(error)) => return Ok(self.bury(object, None, Cause::Absent(error), body).await),
            Err(Miss::Later(error)) => return Ok(Step::Failed(error)),
        };
        match self.landing.send(&found, target).await {
            Ok(rows) => Ok(Step::Sent(found, rows)),
            Err(LandingError::Unfit(error)) => Ok(self.bury(object, Some(&found), error.into(), body).await),
            Err(LandingError::Bucket(error)) if is_absent(&error) => {
                Ok(self.bury(object, Some(&found), Cause::Absent(error), body).await)
            }
            Err(LandingError::Destination(error)) => Err(error),
            Err(LandingError::Interrupted) => Err(DestinationError::Interrupted),
            Err(error) => Ok(Step::Failed(Box::new(error))),
        }
    }

    /// What the bucket has of an object that was announced.
    async fn find(&self, object: &ObjectCreated) -> Result<Found, Miss> {
        let bucket = &self.landing.bucket;
        let newest = match bucket.head(&object.key, None).await {
            // The announced version may be there although the key was deleted.
            Err(BucketError::Gone { .. }) if object.version.is_some() => None,
            Err(error) => return Err(error.into()),
            Ok(found) => Some(found),
        };
        // An announcement without an entity tag is of what the key has now.
        let found = match newest.filter(|found| object.etag.is_empty() || found.revision.etag == object.etag) {
            Some(found) => {
                let etag = &found.revision.etag;
                if self.untagged.contains(&(object.key.clone(), etag.clone())) {
                    return Ok(Found::Untagged(found));
                }
                // Tags belong to the newest content, and are asked for of that alone. Where they may not be read, the
                // object is sent again, and its rows land no second time.
                if bucket.tags(&object.key).await.is_ok_and(|tags| status::is_settled(&tags, etag)) {
                    return Ok(Found::Settled);
                }
                found
            }
            None => match &object.version {
                Some(version) => bucket.head(&object.key, Some(version)).await?,
                // Its own announcement brings the new content.
                None => return Err(BucketError::Replaced { location: bucket.location(&object.key) }.into()),
            },
        };
        Ok(Found::New(found))
    }

    async fn bury(&self, object: &ObjectCreated, found: Option<&Dropped>, cause: Cause, body: &str) -> Step {
        match self.dead_letters.put(object, found, &cause, body).await {
            Ok(()) => {
                self.metrics.count(Outcome::Failed);
                Step::Settled
            }
            Err(error) => Step::Failed(Box::new(error)),
        }
    }

    /// Tags an object whose rows have landed.
    pub(crate) async fn tag(&mut self, found: &Dropped, rows: u64) -> Step {
        let key = (found.key.clone(), found.revision.etag.clone());
        match status::set(&self.landing.bucket, found, Status::Complete).await {
            Ok(()) => {
                self.untagged.remove(&key);
                self.metrics.rows.inc_by(rows);
                self.metrics.count(Outcome::Landed);
                let location = self.landing.bucket.location(&found.key);
                tracing::info!(location, rows, bytes = found.size_bytes, "an object has landed");
                Step::Settled
            }
            Err(error) => {
                if self.untagged.len() >= UNTAGGED_MAX {
                    self.untagged.clear();
                }
                self.untagged.insert(key);
                Step::Failed(Box::new(error))
            }
        }
    }
}

/// What is there of an object.
enum Found {
    /// It has landed, or is a dead letter.
    Settled,
    /// It has landed, and is not tagged.
    Untagged(Dropped),
    New(Dropped),
}

/// Why it cannot be looked at.
enum Miss {
    /// It never can.
    Absent(BucketError),
    Later(Failed),
}

impl From<BucketError> for Miss {
    fn from(error: BucketError) -> Self {
        if is_absent(&error) { Self::Absent(error) } else { Self::Later(Box::new(error)) }
    }
}

/// Whether no later attempt can find the object either.
fn is_absent(error: &BucketError) -> bool {
    matches!(error, BucketError::Gone { .. } | BucketError::Replaced { .. } | BucketError::Key { .. })
}
