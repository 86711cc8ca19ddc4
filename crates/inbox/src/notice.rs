//! What a message of the queue says. Pure.
//!
//! Three forms are understood: event notifications of S3 (Amazon S3 User Guide, "Event message structure"), events of
//! EventBridge ("Amazon S3 event notifications: event message structure for EventBridge"), and either of them inside a
//! notification of SNS. Servers that are not AWS differ in small things: moto and AWS encode a space in a key as `+`,
//! LocalStack as `%20`; MinIO names events with `s3:` in front; moto sends no version and no sequencer.

use std::borrow::Cow;
use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// An object that was made in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// Name of the bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The entity tag without quotes; empty where the message has none.
    pub etag: String,
    /// The version, of a bucket that keeps versions.
    pub version: Option<String>,
    /// Bytes of the object.
    pub size_bytes: u64,
    /// Orders the events of one key: the greater one, compared as text after padding, is later. Not needed to land an
    /// object, whose content is named by its entity tag.
    pub sequencer: Option<String>,
}

/// What a message announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Names of the buckets that it is an event of; at least one.
    pub buckets: BTreeSet<String>,
    /// Objects that were made. None where S3 tests the queue, which it does when the notifications of a bucket are
    /// configured, or where something else happened to objects: deleted, tagged, restored.
    pub created: Vec<ObjectCreated>,
}

/// Why a message is no announcement of S3.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    #[error("the message is no JSON document")]
    Json(#[source] serde_json::Error),
    #[error("the message is no event of S3: it has neither `Records` of source aws:s3 nor `detail` of source aws.s3")]
    Foreign,
    #[error("an event of S3 names no bucket")]
    NoBucket,
    #[error("an event of S3 lacks a field, or has one of another type")]
    Field(#[source] serde_json::Error),
    #[error("the key {key:?} of an event of S3 is not UTF-8 once it is decoded")]
    Key { key: String },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Records")]
    records: Option<Vec<serde_json::Value>>,
    #[serde(rename = "Event")]
    test: Option<String>,
    /// Of a test.
    #[serde(rename = "Bucket")]
    bucket: Option<String>,
    #[serde(rename = "Type")]
    sns_type: Option<String>,
    #[serde(rename = "Message")]
    sns_message: Option<String>,
    source: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    detail: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    event: String,
    s3: Subject,
}

/// `s3` of a record, and `detail` of an event of EventBridge.
#[derive(Deserialize)]
struct Subject {
    bucket: Named,
    object: Object,
}

/// `detail` of an event that is not about the making of an object.
#[derive(Deserialize)]
struct Place {
    bucket: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    #[serde(default)]
    size: u64,
    #[serde(default, alias = "eTag")]
    etag: String,
    #[serde(alias = "versionId", alias = "version-id")]
    version: Option<String>,
    sequencer: Option<String>,
}

impl Notice {
    /// Reads the body of a message.
    ///
    /// # Errors
    /// It is no event of S3.
    pub fn read(body: &str) -> Result<Self, NoticeError> {
        let envelope: Envelope = serde_json::from_str(body).map_err(NoticeError::Json)?;
        let notice = match envelope {
            Envelope { sns_type: Some(kind), sns_message: Some(inner), .. } if kind == "Notification" => {
                // Once only: a notification inside a notification is none of S3.
                Self::of(serde_json::from_str(&inner).map_err(NoticeError::Json)?)?
            }
            envelope => Self::of(envelope)?,
        };
        // Without a bucket it may be the event of any.
        if notice.buckets.is_empty() { Err(NoticeError::NoBucket) } else { Ok(notice) }
    }

    fn of(envelope: Envelope) -> Result<Self, NoticeError> {
        if envelope.test.as_deref() == Some("s3:TestEvent") {
            return Ok(Self { buckets: envelope.bucket.into_iter().collect(), created: Vec::new() });
        }
        if let Some(records) = envelope.records {
            return Self::of_records(records);
        }
        match (envelope.source.as_deref(), envelope.detail) {
            (Some("aws.s3"), Some(detail)) => {
                if envelope.detail_type.as_deref() != Some("Object Created") {
                    let place: Place = serde_json::from_value(detail).map_err(NoticeError::Field)?;
                    return Ok(Self { buckets: BTreeSet::from([place.bucket.name]), created: Vec::new() });
                }
                let subject: Subject = serde_json::from_value(detail).map_err(NoticeError::Field)?;
                // EventBridge does not encode keys.
                let key = subject.object.key.clone();
                let buckets = BTreeSet::from([subject.bucket.name.clone()]);
                Ok(Self { buckets, created: vec![subject.created(key)] })
            }
            _ => Err(NoticeError::Foreign),
        }
    }

    fn of_records(records: Vec<serde_json::Value>) -> Result<Self, NoticeError> {
        let mut notice = Self { buckets: BTreeSet::new(), created: Vec::new() };
        for record in records {
            // `minio:s3` is what MinIO writes there.
            let source = record.get("eventSource").and_then(serde_json::Value::as_str);
            if !source.is_some_and(|source| ["aws:s3", "minio:s3"].contains(&source)) {
                return Err(NoticeError::Foreign);
            }
            let record: Record = serde_json::from_value(record).map_err(NoticeError::Field)?;
            notice.buckets.insert(record.s3.bucket.name.clone());
            let event = record.event.strip_prefix("s3:").unwrap_or(&record.event);
            if event.starts_with("ObjectCreated:") {
                let key = decode(&record.s3.object.key)?;
                notice.created.push(record.s3.created(key));
            }
        }
        Ok(notice)
    }
}

impl Subject {
    fn created(self, key: String) -> ObjectCreated {
        let Object { size, etag, version, sequencer, .. } = self.object;
        ObjectCreated {
            bucket: self.bucket.name,
            key,
            etag: etag.trim_matches('"').to_owned(),
            // A bucket whose versions were never on, or are suspended, has the version `null`.
            version: version.filter(|version| !version.is_empty() && version != "null"),
            size_bytes: size,
            sequencer,
        }
    }
}

/// A key as S3 encodes it in a notification: as the query of a URL, in which a plus sign is a space.
fn decode(key: &str) -> Result<String, NoticeError> {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| NoticeError::Key { key: key.to_owned() })
}

#[cfg(test)]
mod tests;
