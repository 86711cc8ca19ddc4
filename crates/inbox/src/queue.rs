//! An SQS queue. The only module that knows the SDK of AWS. Requests go through the HTTP client of this workspace, and
//! are signed with the credentials of the bucket.

use std::error::Error;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Config, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageAttributeValue, QueueAttributeName,
};
use objects::Bucket;

mod http;
mod keys;

/// Most messages of one request (Amazon SQS API Reference, `ReceiveMessage`, `DeleteMessageBatch`).
const BATCH_MAX: usize = 10;
/// Codes by which SQS says that there is no such queue, in its JSON protocol and in the older one.
const NO_QUEUE: [&str; 3] =
    ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "com.amazonaws.sqs#QueueDoesNotExist"];

/// Why a queue was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    #[error("{url} is no URL of a queue")]
    Url {
        url: String,
        #[source]
        source: url::ParseError,
    },
    #[error("no HTTP client can be made for the queue")]
    Http(#[source] reqwest::Error),
    #[error("there is no queue {url}: correct its URL and the region, or create it")]
    NoQueue { url: String },
    #[error(
        "SQS refuses to {action} {url}: {code}{}; check the credentials, whether they have expired, and the policy of the queue",
        message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    Refused { action: &'static str, url: String, code: String, message: Option<String> },
    #[error("cannot {action} {url}")]
    Unreachable {
        action: &'static str,
        url: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("SQS did not {action} {count} message(s) of {url}: {code}")]
    Partly { action: &'static str, url: String, count: usize, code: String },
    #[error("a request to {action} cannot be made")]
    Request {
        action: &'static str,
        #[source]
        source: BuildError,
    },
}

/// A message that was received and is hidden from other receivers for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) id: String,
    /// Names this receipt of the message, for hiding it longer and deleting it.
    pub(crate) handle: String,
    pub(crate) body: String,
}

/// A queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    client: Client,
    url: String,
    visibility: Duration,
}

impl Queue {
    /// No request is sent. Messages that are received are hidden for `visibility`.
    ///
    /// # Errors
    /// The URL is none, or there can be no HTTP client.
    pub(crate) fn open(url: &str, region: String, visibility: Duration, keys: &Bucket) -> Result<Self, QueueError> {
        let parsed = url::Url::parse(url).map_err(|source| QueueError::Url { url: url.to_owned(), source })?;
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            // The origin of the queue's own URL: other servers than AWS have no address that follows from the region.
            .endpoint_url(parsed.origin().ascii_serialization())
            .http_client(http::Http::new().map_err(QueueError::Http)?)
            .credentials_provider(keys::Keys::of(keys.clone()))
            // The provider renews temporary credentials; a cache before it would keep them after they have expired.
            .identity_cache(IdentityCache::no_cache())
            // It measures how a body is polled, which `http` does not do: a long poll would count as stalled.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self { client: Client::from_conf(config), url: url.to_owned(), visibility })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Shows that the queue exists and may be used.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(crate) async fn check(&self) -> Result<(), QueueError> {
        let request =
            self.client.get_queue_attributes().queue_url(&self.url).attribute_names(QueueAttributeName::QueueArn);
        request.send().await.map(drop).map_err(|error| self.error("inspect", error))
    }

    /// Up to ten messages; waits for the first as long as `wait`, of 20 s at most.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(crate) async fn receive(&self, wait: Duration) -> Result<Vec<Received>, QueueError> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .visibility_timeout(seconds(self.visibility))
            .wait_time_seconds(seconds(wait));
        let received = request.send().await.map_err(|error| self.error("receive from", error))?;
        let messages = received.messages.unwrap_or_default();
        // Always there (Amazon SQS API Reference, `Message`); without a receipt there is nothing to be done with it.
        let received = messages.into_iter().filter_map(|message| {
            let handle = message.receipt_handle?;
            let [id, body] = [message.message_id, message.body].map(Option::unwrap_or_default);
            Some(Received { id, handle, body })
        });
        Ok(received.collect())
    }

    /// Hides messages for as long as a receipt does, from now on.
    ///
    /// # Errors
    /// See [`QueueError`]; the other messages are hidden.
    pub(crate) async fn keep(&self, handles: &[String]) -> Result<(), QueueError> {
        self.hide(handles, self.visibility).await
    }

    /// Gives messages to other receivers after a time.
    ///
    /// # Errors
    /// See [`QueueError`]; they are given to them once their time of visibility is over.
    pub(crate) async fn release(&self, handles: &[String], after: Duration) -> Result<(), QueueError> {
        self.hide(handles, after).await
    }

    async fn hide(&self, handles: &[String], time: Duration) -> Result<(), QueueError> {
        let mut outcome = Ok(());
        // All of them, whatever becomes of one: what is not hidden goes to other receivers while it is worked on.
        for handles in handles.chunks(BATCH_MAX) {
            outcome = outcome.and(self.hide_batch(handles, time).await);
        }
        outcome
    }

    async fn hide_batch(&self, handles: &[String], time: Duration) -> Result<(), QueueError> {
        const ACTION: &str = "change the visibility of messages of";
        let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
        for (at, handle) in handles.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(at.to_string())
                .receipt_handle(handle)
                .visibility_timeout(seconds(time))
                .build();
            request = request.entries(entry.map_err(|source| QueueError::Request { action: ACTION, source })?);
        }
        let reply = request.send().await.map_err(|error| self.error(ACTION, error))?;
        self.all_of(ACTION, reply.failed())
    }

    /// Deletes messages for good.
    ///
    /// # Errors
    /// See [`QueueError`], the first one; the other messages are deleted. Deleting a message again is no error.
    pub(crate) async fn delete(&self, handles: &[String]) -> Result<(), QueueError> {
        let mut outcome = Ok(());
        // All of them, whatever becomes of one: what is not deleted is announced again.
        for handles in handles.chunks(BATCH_MAX) {
            outcome = outcome.and(self.delete_batch(handles).await);
        }
        outcome
    }

    async fn delete_batch(&self, handles: &[String]) -> Result<(), QueueError> {
        const ACTION: &str = "delete messages of";
        let mut request = self.client.delete_message_batch().queue_url(&self.url);
        for (at, handle) in handles.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(handle);
            let entry = entry.build().map_err(|source| QueueError::Request { action: ACTION, source })?;
            request = request.entries(entry);
        }
        let reply = request.send().await.map_err(|error| self.error(ACTION, error))?;
        self.all_of(ACTION, reply.failed())
    }

    /// Appends a message with attributes.
    ///
    /// # Errors
    /// See [`QueueError`]; the message may be there all the same.
    pub(crate) async fn send(&self, body: &str, attributes: &[(&str, String)]) -> Result<(), QueueError> {
        const ACTION: &str = "send to";
        let mut request = self.client.send_message().queue_url(&self.url).message_body(body);
        for (name, value) in attributes {
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            let value = value.map_err(|source| QueueError::Request { action: ACTION, source })?;
            request = request.message_attributes(*name, value);
        }
        request.send().await.map(drop).map_err(|error| self.error(ACTION, error))
    }

    /// A reply to a batch counts as a success although some of its entries failed.
    fn all_of(&self, action: &'static str, failed: &[BatchResultErrorEntry]) -> Result<(), QueueError> {
        match failed.first() {
            None => Ok(()),
            Some(first) => {
                let code = first.code().to_owned();
                Err(QueueError::Partly { action, url: self.url.clone(), count: failed.len(), code })
            }
        }
    }

    fn error<E>(&self, action: &'static str, error: SdkError<E>) -> QueueError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let url = self.url.clone();
        match error.code() {
            Some(code) if NO_QUEUE.contains(&code) => QueueError::NoQueue { url },
            Some(code) => {
                let [code, message] = [Some(code), error.message()].map(|text| text.map(str::to_owned));
                QueueError::Refused { action, url, code: code.unwrap_or_default(), message }
            }
            None => QueueError::Unreachable { action, url, source: Box::new(error) },
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> i32 {
    // At most 12 hours, by the rule of `bulk.visibility`.
    i32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}
