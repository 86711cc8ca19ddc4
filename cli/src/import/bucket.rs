//! A back-fill: what lies below a prefix of a bucket is landed without any announcement.

use std::path::Path;

use futures::TryStreamExt;
use inbox::Temporary;
use inbox::config::BulkConfig;
use inbox::landing::{Landing, LandingError};
use inbox::status::{self, Status};
use objects::{Bucket, Dropped, S3Options};
use recordings::{DestinationError, Target, ToKafka};

use super::report::Outcome;
use super::{CLUSTER, Import, ImportError, open};
use crate::place::Place;

/// Objects whose rows land together: landing takes about a commit interval, however many they are.
const OBJECTS_AT_ONCE: usize = 100;

/// Objects whose rows were sent.
type Sent = Vec<(Dropped, u64)>;

impl Import<'_> {
    /// Imports `bucket/prefix`.
    pub(super) async fn bucket(&mut self, location: &str, outcomes: &mut Vec<Outcome>) -> Result<(), ImportError> {
        let parts = location.split_once('/').unwrap_or((location, ""));
        let (config, s3) = settings(self.place);
        let bucket = Bucket::open(parts.0, &s3)?;
        check_prefix(self.place, parts)?;
        bucket.check().await?;
        if self.target.is_none() {
            self.target = Some(open_landing(self.place, self.drain).await?);
        }
        let landing = Landing {
            bucket: bucket.clone(),
            cluster: if self.options.cluster == CLUSTER {
                config.cluster.clone()
            } else {
                self.options.cluster.to_owned()
            },
            temporary: Temporary::new(config.temporary_dir.as_deref(), config.temporary_limit.0),
            drain: self.drain.clone(),
            read_bytes: Default::default(),
        };
        let mut objects = bucket.list(parts.1);
        let mut sent = Sent::new();
        let mut found = 0_u64;
        while let Some(object) = objects.try_next().await? {
            // The place-holder of a folder, which consoles make, or an empty file: there is nothing to be landed.
            if object.size_bytes == 0 {
                continue;
            }
            found += 1;
            match self.object(&landing, &object).await? {
                Ok(rows) => sent.push((object, rows)),
                Err(outcome) => outcomes.push(outcome),
            }
            if sent.len() >= OBJECTS_AT_ONCE {
                self.land(&bucket, std::mem::take(&mut sent), outcomes).await?;
            }
        }
        if found == 0 {
            outcomes.push(Outcome::object(&format!("s3://{location}"), "there is nothing below it", None, &[]));
        }
        self.land(&bucket, sent, outcomes).await
    }

    /// Sends the rows of one object; the outcome where there is nothing to be sent.
    async fn object(&mut self, landing: &Landing, object: &Dropped) -> Result<Result<u64, Outcome>, ImportError> {
        let location = landing.bucket.location(&object.key);
        // Where tags may not be read, the rows are sent again, and land no second time.
        let tags = landing.bucket.tags(&object.key).await;
        if tags.is_ok_and(|tags| status::is_settled(&tags, &object.revision.etag)) {
            return Ok(Err(Outcome::object(&location, "dealt with before", None, &[])));
        }
        let Some(target) = &mut self.target else { return Err(DestinationError::Interrupted.into()) };
        match landing.send(object, target).await {
            Ok(rows) => Ok(Ok(rows)),
            Err(LandingError::Destination(error)) => Err(error.into()),
            Err(LandingError::Interrupted) => Err(DestinationError::Interrupted.into()),
            Err(error) => Ok(Err(Outcome::refused(Path::new(&location), &error))),
        }
    }

    /// Waits until objects have landed, and tags them.
    async fn land(&mut self, bucket: &Bucket, sent: Sent, outcomes: &mut Vec<Outcome>) -> Result<(), ImportError> {
        match &mut self.target {
            Some(target) if !sent.is_empty() => target.finish(self.drain).await?,
            _ => return Ok(()),
        }
        for (object, rows) in sent {
            let location = bucket.location(&object.key);
            let (outcome, notes) = match self.place {
                Place::Remote(remote) if remote.catalog.uri.is_empty() => (
                    "sent",
                    vec!["not tagged: the configuration names no catalog in which its landing shows".to_owned()],
                ),
                _ => ("landed", tag(bucket, &object).await.into_iter().collect()),
            };
            outcomes.push(Outcome::object(&location, outcome, Some(rows), &notes));
        }
        Ok(())
    }
}

/// Tags an object as landed; a remark where that cannot be done.
async fn tag(bucket: &Bucket, object: &Dropped) -> Option<String> {
    let tags = match bucket.tags(&object.key).await {
        Ok(tags) => tags,
        Err(error) => return Some(untagged(&error)),
    };
    match status::with(&tags, Status::Complete, &object.revision.etag) {
        Ok(tags) => bucket.set_tags(&object.key, &tags).await.err().map(|error| untagged(&error)),
        Err(error) => Some(untagged(&error)),
    }
}

fn untagged(error: &dyn std::error::Error) -> String {
    format!("not tagged: {}", service_kit::run::in_a_line(error))
}

/// Refuses a prefix that lies in the lake or the dead letters, or contains them. An embedded lake lies in a directory.
fn check_prefix(place: &Place, (bucket, prefix): (&str, &str)) -> Result<(), ImportError> {
    let Place::Remote(remote) = place else { return Ok(()) };
    match remote.bulk.reserved(&remote.store, bucket, prefix) {
        Some(reserved) => Err(ImportError::Reserved { asked: format!("{bucket}/{prefix}"), reserved }),
        None => Ok(()),
    }
}

/// How the bucket is read. For an embedded lake, which has no configuration, the environment says it (`AWS_…`).
fn settings(place: &Place) -> (BulkConfig, S3Options) {
    match place {
        Place::Embedded(_) => {
            let endpoint = std::env::var("AWS_ENDPOINT_URL").ok();
            let region = std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok();
            // Most servers that are not AWS have no names for buckets.
            let path_style = endpoint.is_some();
            (BulkConfig::default(), S3Options { endpoint, region, path_style, ..S3Options::default() })
        }
        Place::Remote(remote) => (remote.bulk.clone(), remote.bulk.s3_options(&remote.store)),
    }
}

/// A target that shows what has landed, where there is a catalog.
async fn open_landing(place: &Place, drain: &service_kit::run::Drain) -> Result<Target, ImportError> {
    match place {
        Place::Remote(remote) if !remote.catalog.uri.is_empty() => {
            let kafka = ToKafka::open(&remote.kafka, drain)?.landing_in(place.open().await?);
            Ok(Target::unread(Box::new(kafka)))
        }
        place => open(place, drain).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Remote;

    #[test]
    fn a_back_fill_of_the_lake_itself_is_refused_and_says_what_to_give() {
        let mut remote = Remote::default();
        remote.store.warehouse = "s3://lake/warehouse".to_owned();
        let place = Place::Remote(Box::new(remote));
        for prefix in ["", "warehouse", "/warehouse/silver/"] {
            let error = check_prefix(&place, ("lake", prefix)).unwrap_err().to_string();
            assert!(error.contains("s3://lake/warehouse or contains it") && error.contains("incoming/"), "{error}");
        }
        for (bucket, prefix) in [("lake", "incoming"), ("lake", "warehouse2"), ("other", "")] {
            assert!(check_prefix(&place, (bucket, prefix)).is_ok(), "{bucket}/{prefix}");
        }
    }
}
