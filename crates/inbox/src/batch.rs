//! Messages that were received together, and how far each of their objects is.

use recordings::{DestinationError, Target};

use crate::handler::{Failed, Handler, Step};
use crate::notice::{Notice, ObjectCreated};
use crate::queue::Received;

/// What was received.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) batch: Batch,
    /// Id of each message that is no event of the bucket, and why.
    pub(crate) foreign: Vec<(String, String)>,
}

/// The announcements.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<Announcement>);

#[derive(Debug)]
struct Announcement {
    received: Received,
    objects: Vec<(ObjectCreated, Step)>,
}

impl Announcement {
    fn is_finished(&self) -> bool {
        self.objects.iter().all(|(_, step)| matches!(step, Step::Settled))
    }
}

impl Batch {
    /// Sorts out what is no event of the bucket.
    pub(crate) fn of(received: Vec<Received>, bucket: &str) -> Taken {
        let mut taken = Taken { batch: Self::default(), foreign: Vec::new() };
        for received in received {
            let notice = match Notice::read(&received.body) {
                Ok(notice) => notice,
                Err(error) => {
                    taken.foreign.push((received.id, service_kit::run::in_a_line(&error)));
                    continue;
                }
            };
            // Also where it announces no object: what another bucket says is for the consumer of that bucket.
            if let Some(other) = notice.buckets.iter().find(|named| *named != bucket) {
                taken.foreign.push((received.id, format!("an event of bucket {other}, expected {bucket}")));
                continue;
            }
            let objects = notice.created.into_iter().map(|object| (object, Step::Announced)).collect();
            taken.batch.0.push(Announcement { received, objects });
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Receipts of all messages.
    pub(crate) fn handles(&self) -> Vec<String> {
        self.0.iter().map(|announcement| announcement.received.handle.clone()).collect()
    }

    /// Receipts of the messages whose objects are all settled; also of those that announce none.
    pub(crate) fn finished(&self) -> Vec<String> {
        self.handles_where(true)
    }

    /// Receipts of the others.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        self.handles_where(false)
    }

    fn handles_where(&self, finished: bool) -> Vec<String> {
        let found = self.0.iter().filter(|announcement| announcement.is_finished() == finished);
        found.map(|announcement| announcement.received.handle.clone()).collect()
    }

    pub(crate) fn has_sent(&self) -> bool {
        self.objects().any(|step| matches!(step, Step::Sent(..)))
    }

    fn objects(&self) -> impl Iterator<Item = &Step> {
        self.0.iter().flat_map(|announcement| &announcement.objects).map(|(_, step)| step)
    }

    /// Records that what was sent has landed.
    pub(crate) fn landed(&mut self) {
        for (_, step) in self.0.iter_mut().flat_map(|announcement| &mut announcement.objects) {
            if let Step::Sent(found, rows) = step {
                *step = Step::Landed(found.clone(), *rows);
            }
        }
    }

    /// Sends each object to the log.
    ///
    /// # Errors
    /// The log cannot be written: no other object can be sent either.
    pub(crate) async fn send(&mut self, handler: &Handler, target: &mut Target) -> Result<(), DestinationError> {
        for announcement in &mut self.0 {
            for (object, step) in &mut announcement.objects {
                *step = handler.send(object, &announcement.received.body, target).await?;
            }
        }
        Ok(())
    }

    /// Tags what has landed. Returns what failed.
    pub(crate) async fn settle(&mut self, handler: &mut Handler) -> Vec<Failed> {
        let mut failed = Vec::new();
        for (_, step) in self.0.iter_mut().flat_map(|announcement| &mut announcement.objects) {
            if let Step::Landed(found, rows) = step {
                *step = handler.tag(found, *rows).await;
            }
            match std::mem::replace(step, Step::Announced) {
                Step::Failed(error) => {
                    handler.deferred();
                    failed.push(error);
                }
                other => *step = other,
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(id: &str, bucket: &str) -> Received {
        let body = format!(
            r#"{{"Records":[{{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},
               "object":{{"key":"incoming/a","eTag":"e"}}}}}}]}}"#
        );
        Received { id: id.to_owned(), handle: format!("h{id}"), body }
    }

    fn of(body: &str) -> Received {
        Received { id: "t".to_owned(), handle: "ht".to_owned(), body: body.to_owned() }
    }

    #[test]
    fn only_events_of_the_bucket_are_taken() {
        let messages = vec![
            received("1", "ours"),
            received("2", "theirs"),
            of("hello"),
            of(r#"{"Event":"s3:TestEvent","Bucket":"ours"}"#),
            of(r#"{"Event":"s3:TestEvent","Bucket":"theirs"}"#),
            of(r#"{"Event":"s3:TestEvent"}"#),
            Received { body: received("", "theirs").body.replace("Created:Put", "Removed:Delete"), ..of("") },
        ];
        let Taken { batch, foreign } = Batch::of(messages, "ours");
        assert_eq!(batch.handles(), ["h1", "ht"]);
        let ids: Vec<&str> = foreign.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["2", "t", "t", "t", "t"]);
        assert!(foreign[0].1.contains("bucket theirs, expected ours") && foreign[1].1.contains("no JSON"));
        let reasons = ["bucket theirs", "names no bucket", "bucket theirs"];
        for ((_, found), expected) in foreign[2..].iter().zip(reasons) {
            assert!(found.contains(expected), "{found}");
        }
        // What announces nothing needs no more work.
        assert_eq!((batch.finished(), batch.unfinished()), (vec!["ht".to_owned()], vec!["h1".to_owned()]));
    }

    #[test]
    fn a_message_is_finished_when_each_of_its_objects_is() {
        let Taken { mut batch, .. } = Batch::of(vec![received("1", "b"), received("2", "b")], "b");
        let object = batch.0[0].objects[0].0.clone();
        batch.0[0].objects.push((object, Step::Settled));
        batch.0[1].objects[0].1 = Step::Settled;
        assert_eq!((batch.finished(), batch.unfinished()), (vec!["h2".to_owned()], vec!["h1".to_owned()]));
        batch.0[0].objects[0].1 = Step::Settled;
        assert_eq!(batch.finished(), ["h1", "h2"]);
    }
}
