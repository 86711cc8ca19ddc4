//! Objects in archive classes: in which class an object lies, and copies of archived objects (Amazon S3 API Reference,
//! `HeadObject` and `RestoreObject`).

use http::{HeaderMap, Method, StatusCode};
use object_store::client::HttpError;
use object_store::path::Path;

use crate::calls::{self, Answer, Call, CallError, Calls, XMLNS};
use crate::location::Outside;
use crate::tiers::{Speed, StorageClass};

/// The code of S3's error for a read of an archived object, and for restoring one that is not archived.
const NOT_READABLE: &str = "InvalidObjectState";

/// A copy of an archived object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// It is being made.
    Ongoing,
    /// It can be read until then, as S3 writes the time (RFC 9110, `HTTP-date`).
    Until(String),
}

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its storage class.
    pub class: StorageClass,
    /// The copy of an archived object, where one was asked for.
    pub copied: Option<Copied>,
}

impl Storage {
    /// Whether the object can be read now.
    pub fn is_readable(&self) -> bool {
        !self.class.is_archive() || matches!(self.copied, Some(Copied::Until(_)))
    }

    fn of(headers: &HeaderMap) -> Self {
        let class = StorageClass::of(text(headers, "x-amz-storage-class"));
        Self { class, copied: text(headers, "x-amz-restore").and_then(copied) }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `ongoing-request="true"`, or `ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"`.
fn copied(header: &str) -> Option<Copied> {
    if header.contains("ongoing-request=\"true\"") {
        return Some(Copied::Ongoing);
    }
    let until = header.split("expiry-date=\"").nth(1)?.split('"').next()?;
    Some(Copied::Until(until.to_owned()))
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOrder {
    /// How long the copy stays.
    pub days: u32,
    /// How soon it comes.
    pub speed: Speed,
}

/// What S3 answers to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoring {
    Started,
    /// An order of before is under way.
    Ongoing,
    /// The copy is there; it stays for as long as was asked for now.
    Restored,
}

/// Why it is not known where an object lies, or no copy was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error("{location} lies in a directory, which has no storage classes")]
    NotSupported { location: String },
    #[error("cannot sign a request about {location}")]
    Sign { location: String, source: object_store::Error },
    #[error("cannot make a request about {location}")]
    Request { location: String, source: http::Error },
    #[error("S3 cannot be reached about {location}")]
    Unreachable { location: String, source: HttpError },
    #[error("{location} does not exist")]
    NotFound { location: String },
    #[error("{location} is not archived: it can be read as it is")]
    NotArchived { location: String },
    #[error("S3 answers a request about {location} with {status}: {message}")]
    Refused { location: String, status: StatusCode, message: String },
}

impl ArchiveError {
    /// The same request may succeed later. Both may be repeated without harm.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Sign { .. } => true,
            Self::Refused { status, .. } => calls::is_transient(*status),
            _ => false,
        }
    }

    fn call(location: &str, error: CallError) -> Self {
        let location = location.to_owned();
        match error {
            CallError::Sign(source) => Self::Sign { location, source },
            CallError::Request(source) => Self::Request { location, source },
            CallError::Unreachable(source) => Self::Unreachable { location, source },
        }
    }

    fn answer(location: &str, answer: &Answer) -> Self {
        let location = location.to_owned();
        match answer.status {
            StatusCode::NOT_FOUND => Self::NotFound { location },
            StatusCode::FORBIDDEN if answer.message().contains(NOT_READABLE) => Self::NotArchived { location },
            status => Self::Refused { location, status, message: answer.message() },
        }
    }
}

/// Whether a read failed because the object is archived. `object_store` has no variant for it: its error holds what S3
/// has answered.
pub fn is_archived(error: &object_store::Error) -> bool {
    error.to_string().contains(NOT_READABLE)
}

/// In which class an object lies.
pub(crate) async fn storage(calls: &Calls, path: &Path, location: &str) -> Result<Storage, ArchiveError> {
    let call = Call { method: Method::HEAD, path, query: None, body: String::new() };
    let answer = calls.send(call).await.map_err(|error| ArchiveError::call(location, error))?;
    if answer.status.is_success() {
        return Ok(Storage::of(&answer.headers));
    }
    Err(ArchiveError::answer(location, &answer))
}

/// Asks for a copy of an archived object.
pub(crate) async fn restore(
    calls: &Calls,
    path: &Path,
    location: &str,
    RestoreOrder { days, speed }: RestoreOrder,
) -> Result<Restoring, ArchiveError> {
    let tier = speed.tier();
    let body = format!(
        "<RestoreRequest xmlns=\"{XMLNS}\"><Days>{days}</Days>\
         <GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
    );
    let call = Call { method: Method::POST, path, query: Some("restore"), body };
    let answer = calls.send(call).await.map_err(|error| ArchiveError::call(location, error))?;
    match answer.status {
        StatusCode::ACCEPTED => Ok(Restoring::Started),
        status if status.is_success() => Ok(Restoring::Restored),
        // `RestoreAlreadyInProgress`.
        StatusCode::CONFLICT => Ok(Restoring::Ongoing),
        _ => Err(ArchiveError::answer(location, &answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_about_copies_are_read() {
        let storage = |class: Option<&'static str>, restore: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let named = [("x-amz-storage-class", class), ("x-amz-restore", restore)];
            for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                headers.insert(name, value.parse().unwrap());
            }
            Storage::of(&headers)
        };
        let until = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2029 00:00:00 GMT\"";
        let copied = Some(Copied::Until("Fri, 21 Dec 2029 00:00:00 GMT".to_owned()));
        for (class, restore, expected, is_readable) in [
            (None, None, None, true),
            (Some("GLACIER_IR"), None, None, true),
            (Some("DEEP_ARCHIVE"), None, None, false),
            (Some("DEEP_ARCHIVE"), Some("ongoing-request=\"true\""), Some(Copied::Ongoing), false),
            (Some("DEEP_ARCHIVE"), Some(until), copied, true),
        ] {
            let found = storage(class, restore);
            assert_eq!((found.copied.clone(), found.is_readable()), (expected, is_readable), "{class:?} {restore:?}");
        }
    }
}
