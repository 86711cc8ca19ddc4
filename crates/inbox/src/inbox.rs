//! The bulk path as a task: it takes announcements from the queue until it is drained.

use std::collections::HashSet;
use std::time::Duration;

use lake::Lake;
use objects::{Bucket, BucketError, S3Options, StoreError};
use recordings::{DestinationError, Target, ToKafka};
use service_kit::admin::Condition;
use service_kit::run::{Drain, in_a_line};
use stream::kafka::KafkaConfig;

use crate::batch::{Batch, Taken};
use crate::config::BulkConfig;
use crate::handler::{Failed, Handler};
use crate::heartbeat::Heartbeat;
use crate::landing::Landing;
use crate::metrics::Metrics;
use crate::poison::DeadLetters;
use crate::queue::{Queue, QueueError, Received};
use crate::retry::Failures;
use crate::temporary::Temporary;

/// How long a request waits for the first message: the longest that SQS allows (long polling).
const POLL: Duration = Duration::from_secs(20);
/// Messages whose objects land together. Landing takes about a commit interval, however many they are.
const MESSAGES_MAX: usize = 100;
/// After this time another attempt is made at an object that could not be read, sent or tagged.
const RELEASE_AFTER: Duration = Duration::from_secs(30);

/// Why the bulk path cannot begin. Once it runs, errors are waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    #[error("bucket {bucket} of `bulk.bucket` cannot be opened")]
    Open {
        bucket: String,
        #[source]
        source: StoreError,
    },
    #[error("bucket {bucket} of `bulk.bucket` cannot be used")]
    Bucket {
        bucket: String,
        #[source]
        source: BucketError,
    },
    #[error("the queue of `{key}` cannot be used")]
    Queue {
        key: &'static str,
        #[source]
        source: QueueError,
    },
}

/// A queue that was found to be there.
async fn open_queue(key: &'static str, queue: Result<Queue, QueueError>) -> Result<Queue, InboxError> {
    let queue = queue.map_err(|source| InboxError::Queue { key, source })?;
    queue.check().await.map_err(|source| InboxError::Queue { key, source })?;
    Ok(queue)
}

/// What the bulk path works with.
#[derive(Debug)]
pub struct Surroundings {
    /// Where messages go.
    pub kafka: KafkaConfig,
    /// Where ingest lands them.
    pub lake: Lake,
    /// How the bucket is reached.
    pub s3: S3Options,
    /// Region of the queues.
    pub region: String,
    /// The counters, registered by the caller.
    pub metrics: Metrics,
    /// Unmet, with the reason, while queue, bucket or log cannot be used.
    pub condition: Condition,
    /// Ends the work; what was not finished is announced again.
    pub drain: Drain,
}

/// The bulk path, ready to run.
#[derive(Debug)]
pub struct Inbox {
    config: BulkConfig,
    queue: Queue,
    kafka: KafkaConfig,
    lake: Lake,
    handler: Handler,
    drain: Drain,
    failures: Failures,
}

impl Inbox {
    /// Opens bucket and queues, and asks each whether it is there.
    ///
    /// # Errors
    /// One of them does not exist, refuses, or does not answer.
    pub async fn open(config: BulkConfig, around: Surroundings) -> Result<Self, InboxError> {
        let Surroundings { kafka, lake, s3, region, metrics, condition, drain } = around;
        let name = config.bucket.clone();
        let bucket = Bucket::open(&name, &s3).map_err(|source| InboxError::Open { bucket: name.clone(), source })?;
        bucket.check().await.map_err(|source| InboxError::Bucket { bucket: name, source })?;
        let visibility = config.visibility.0;
        let queue = open_queue("bulk.queue", Queue::open(&config.queue, region.clone(), visibility, &bucket)).await?;
        let dead = Queue::open(&config.dead_letter_queue, region, visibility, &bucket);
        let dead = open_queue("bulk.dead_letter_queue", dead).await?;
        let temporary = Temporary::new(config.temporary_dir.as_deref(), config.temporary_limit.0);
        temporary.remove_stale();
        recordings::remove_stale();
        let dead_letters = DeadLetters {
            bucket: bucket.clone(),
            prefix: config.dead_letter_prefix.clone(),
            queue: dead,
            drain: drain.clone(),
        };
        let landing = Landing {
            bucket,
            cluster: config.cluster.clone(),
            temporary,
            drain: drain.clone(),
            read_bytes: metrics.read_bytes.clone(),
        };
        let prefix = config.prefix.clone();
        let handler = Handler { landing, dead_letters, metrics, prefix, untagged: HashSet::new() };
        Ok(Self { config, queue, kafka, lake, handler, drain, failures: Failures::new(condition) })
    }

    /// Lands what is announced, until drained. Returns once nothing is worked on any more.
    pub async fn run(mut self) {
        tracing::info!(queue = self.queue.url(), bucket = self.handler.landing.bucket.name(), "bulk path open");
        // Both queues and the bucket have answered. The first poll may last 20 s.
        self.failures.over();
        while !self.drain.is_cancelled() {
            self.poll().await;
        }
    }

    /// Waits for announcements, and lands them.
    async fn poll(&mut self) {
        let received = tokio::select! {
            biased;
            () = self.drain.cancelled() => return,
            received = self.queue.receive(POLL) => received,
        };
        match received {
            Ok(received) if received.is_empty() => self.failures.idle(),
            Ok(received) => self.take(received).await,
            Err(error) => {
                self.failures.note("receiving announcements", &error, Duration::ZERO);
                self.failures.pause(&self.drain).await;
            }
        }
    }

    /// Lands what these messages announce, and what else is in the queue now.
    async fn take(&mut self, mut received: Vec<Received>) {
        while received.len() < MESSAGES_MAX {
            // Without a wait: more messages share the landing, but none waits for another.
            match self.queue.receive(Duration::ZERO).await {
                Ok(more) if !more.is_empty() => received.extend(more),
                _ => break,
            }
        }
        let Taken { batch, foreign } = Batch::of(received, self.handler.landing.bucket.name());
        for (id, reason) in &foreign {
            // Not deleted: a queue that is another consumer's has them for that consumer.
            self.handler.metrics.foreign.inc();
            tracing::error!(
                id,
                reason,
                queue = self.queue.url(),
                "a message of the queue is no event of the bucket; it is left"
            );
        }
        self.handler.metrics.held.set(i64::try_from(batch.len()).unwrap_or(i64::MAX));
        let _heartbeat = Heartbeat::start(self.queue.clone(), batch.handles(), self.config.visibility.0);
        self.land(batch).await;
        self.handler.metrics.held.set(0);
    }

    async fn land(&mut self, mut batch: Batch) {
        let mut failures: Vec<(&str, Failed)> = Vec::new();
        match self.send_and_land(&mut batch).await {
            Ok(()) | Err(DestinationError::Interrupted) => {}
            Err(error) => failures.push(("landing objects", Box::new(error))),
        }
        failures.extend(batch.settle(&mut self.handler).await.into_iter().map(|error| ("landing an object", error)));
        // Last: what an announcement is of has landed and is tagged.
        if let Err(error) = self.queue.delete(&batch.finished()).await {
            failures.push(("deleting announcements", Box::new(error)));
        }
        self.release(&batch.unfinished()).await;
        for (doing, error) in &failures {
            self.failures.note(doing, &**error, RELEASE_AFTER * 2);
        }
        match failures.is_empty() {
            true => self.failures.over(),
            false => self.failures.pause(&self.drain).await,
        }
    }

    /// Gives messages back for another attempt.
    async fn release(&self, handles: &[String]) {
        // At once where this process ends: another one may take them.
        let after = if self.drain.is_cancelled() { Duration::ZERO } else { RELEASE_AFTER };
        if let Err(error) = self.queue.release(handles, after).await {
            tracing::debug!(reason = in_a_line(&error), "messages stay hidden for the time of their visibility");
        }
    }

    /// Sends every object of a batch, and waits until they have landed.
    async fn send_and_land(&mut self, batch: &mut Batch) -> Result<(), DestinationError> {
        let drain = self.drain.clone();
        // A producer for each batch: after a failure it would go on waiting for acknowledgements that do not come.
        let kafka = ToKafka::open(&self.kafka, &drain)?.landing_in(self.lake.clone());
        let mut target = Target::unread(Box::new(kafka));
        batch.send(&self.handler, &mut target).await?;
        if !batch.has_sent() {
            return Ok(());
        }
        loop {
            match target.finish(&drain).await {
                Ok(()) => break,
                // The catalog or the store is away: the messages are in the log, and are waited for.
                Err(error @ DestinationError::Read(_)) if !drain.is_cancelled() => {
                    self.failures.note("waiting until objects have landed", &error, RELEASE_AFTER);
                    self.failures.pause(&drain).await;
                }
                Err(error) => return Err(error),
            }
        }
        batch.landed();
        Ok(())
    }
}
