//! Tags of objects: names and values beside the content that rules of a bucket act upon. `object_store` writes them and
//! can neither read nor change them; those two calls of S3 are made here.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use object_store::TagSet;
use object_store::client::HttpError;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::calls::{self, Call, CallError, Calls, XMLNS};
use crate::location::Outside;
use crate::tiers::COMPLETE;

/// Amazon S3 User Guide, "Categorizing your objects using tags".
const MAX_TAGS: usize = 10;
const MAX_NAME_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;
const OTHER_CHARS: &str = " +-=._:/@";

/// Tags of one object, as S3 takes them: at most ten; names of 1 to 128 and values of up to 256 letters, digits, spaces
/// and `+ - = . _ : / @`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

/// A set of tags that S3 does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTags {
    #[error("{count} tags: an object has 10 at most")]
    Count { count: usize },
    #[error(
        "tag {name:?} = {value:?}: a name has 1 to 128 and a value up to 256 letters, digits, spaces and + - = . _ : / @"
    )]
    Tag { name: String, value: String },
}

impl Tags {
    /// # Errors
    /// S3 does not take these tags.
    pub fn new<N: Into<String>, V: Into<String>>(tags: impl IntoIterator<Item = (N, V)>) -> Result<Self, InvalidTags> {
        let tags: BTreeMap<String, String> = tags.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        if tags.len() > MAX_TAGS {
            return Err(InvalidTags::Count { count: tags.len() });
        }
        match tags
            .iter()
            .find(|(name, value)| !is_valid(name, 1, MAX_NAME_CHARS) || !is_valid(value, 0, MAX_VALUE_CHARS))
        {
            Some((name, value)) => Err(InvalidTags::Tag { name: name.clone(), value: value.clone() }),
            None => Ok(Self(tags)),
        }
    }

    /// The tag of a file that a commit names: [`COMPLETE`].
    pub fn complete() -> Self {
        Self(BTreeMap::from([(COMPLETE.0.to_owned(), COMPLETE.1.to_owned())]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// For the header of a write.
    pub(crate) fn header(&self) -> TagSet {
        let mut set = TagSet::default();
        for (name, value) in &self.0 {
            set.push(name, value);
        }
        set
    }
}

fn is_valid(text: &str, least: usize, most: usize) -> bool {
    // Spaces at the ends do not survive XML everywhere.
    (least..=most).contains(&text.chars().count())
        && text.chars().all(|c| c.is_alphanumeric() || OTHER_CHARS.contains(c))
        && text.trim() == text
}

/// A warehouse whose objects have no tags.
#[derive(Debug, thiserror::Error)]
#[error("{location} lies in a directory, where objects have no tags: only a warehouse in S3 has them")]
pub struct TagsNotSupported {
    /// The location in the directory.
    pub location: String,
}

/// Why tags were not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    NotSupported(#[from] TagsNotSupported),
    #[error("cannot sign a request for the tags of {location}")]
    Sign { location: String, source: object_store::Error },
    #[error("cannot make a request for the tags of {location}")]
    Request { location: String, source: http::Error },
    #[error("S3 cannot be reached for the tags of {location}")]
    Unreachable { location: String, source: HttpError },
    #[error("{location} does not exist")]
    NotFound { location: String },
    #[error("S3 answers a request for the tags of {location} with {status}: {message}")]
    Refused { location: String, status: StatusCode, message: String },
    #[error("the tags of {location} cannot be written as XML")]
    Encode { location: String, source: quick_xml::SeError },
    #[error("the answer of S3 about the tags of {location} cannot be read")]
    Decode { location: String, source: quick_xml::DeError },
}

impl TagError {
    /// The same request may succeed later. Reading and replacing tags may be repeated without harm.
    pub fn is_transient(&self) -> bool {
        match self {
            // Signing fails when credentials cannot be fetched, for instance from the instance metadata service.
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
}

/// The body of `PutObjectTagging` and of the answer to `GetObjectTagging` (Amazon S3 API Reference).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "Tagging")]
struct Tagging {
    #[serde(rename = "@xmlns", default)]
    xmlns: String,
    #[serde(rename = "TagSet")]
    set: XmlTags,
}

#[derive(Debug, Serialize, Deserialize)]
struct XmlTags {
    #[serde(rename = "Tag", default)]
    tags: Vec<XmlTag>,
}

#[derive(Debug, Serialize, Deserialize)]
struct XmlTag {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value", default)]
    value: String,
}

/// Requests about the tags of objects.
#[derive(Debug)]
pub(crate) struct TagClient<'a>(pub(crate) &'a Calls);

impl TagClient<'_> {
    /// One signed request to the tags of an object; the body of its answer.
    async fn request(&self, method: Method, path: &Path, location: &str, body: String) -> Result<Vec<u8>, TagError> {
        let call = Call { method, path, query: Some("tagging"), body };
        let answer = self.0.send(call).await.map_err(|error| TagError::call(location, error))?;
        match answer.status {
            status if status.is_success() => Ok(answer.body),
            StatusCode::NOT_FOUND => Err(TagError::NotFound { location: location.to_owned() }),
            status => Err(TagError::Refused { location: location.to_owned(), status, message: answer.message() }),
        }
    }

    /// The tags of an object.
    pub(crate) async fn get(&self, path: &Path, location: &str) -> Result<Tags, TagError> {
        let body = self.request(Method::GET, path, location, String::new()).await?;
        let read = quick_xml::de::from_reader(body.as_slice());
        let tagging: Tagging = read.map_err(|source| TagError::Decode { location: location.to_owned(), source })?;
        // Not validated again: another program may have set them, and S3 has accepted them.
        Ok(Tags(tagging.set.tags.into_iter().map(|tag| (tag.key, tag.value)).collect()))
    }

    /// Replaces all tags of an object.
    pub(crate) async fn replace(&self, path: &Path, location: &str, tags: &Tags) -> Result<(), TagError> {
        if tags.is_empty() {
            // `DeleteObjectTagging`: not every server accepts an empty set.
            self.request(Method::DELETE, path, location, String::new()).await?;
            return Ok(());
        }
        let tags = tags.0.iter().map(|(name, value)| XmlTag { key: name.clone(), value: value.clone() }).collect();
        let body = quick_xml::se::to_string(&Tagging { xmlns: XMLNS.to_owned(), set: XmlTags { tags } });
        let body = body.map_err(|source| TagError::Encode { location: location.to_owned(), source })?;
        self.request(Method::PUT, path, location, body).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
