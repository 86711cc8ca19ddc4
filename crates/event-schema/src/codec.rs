//! The format of a message's payload. The message itself states it: by the bytes it begins with, or by its header
//! `content-type`. A further codec is a variant here and a module beside [`crate::wire`].

use crate::position::Message;
use crate::wire::{self, Decoded, WireError};

/// The header by which a message names the format of its payload.
pub const CONTENT_TYPE: &str = "content-type";

/// The format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// One Arrow record batch behind a Causeway header: [`crate::wire`].
    Causeway,
    /// None that this build reads.
    Unknown,
}

/// Why a message could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the message says that it is `{content_type}`, which this version does not read")]
    ContentType { content_type: String },
}

impl DecodeError {
    /// A short, stable word for counters and the dead-letter table.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.cause(),
            Self::ContentType { .. } => "content_type",
        }
    }
}

impl Codec {
    /// The format that a message states of its payload.
    pub fn of(message: &Message) -> Self {
        if wire::has_magic(&message.payload) { Self::Causeway } else { Self::Unknown }
    }

    /// The value of `bronze.messages.codec`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Causeway => "causeway.v1",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a message whose codec this is.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(self, message: &Message) -> Result<Decoded, DecodeError> {
        match (self, content_type(message)) {
            // Only of what is not ours: a header that a proxy set does not overrule the magic bytes.
            (Self::Unknown, Some(content_type)) => Err(DecodeError::ContentType { content_type }),
            // An unknown payload without a content type goes through the decoder for the precise error, such as
            // "truncated".
            _ => Ok(wire::decode(&message.payload)?),
        }
    }
}

fn content_type(message: &Message) -> Option<String> {
    // Kafka compares names of headers by case; HTTP, from which this one comes, does not. Of repetitions the first
    // counts.
    let (_, value) = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::TopicPartition;

    fn message(payload: &'static [u8], content_type: Option<&'static str>) -> Message {
        let headers = content_type.map(|text| ("Content-Type".to_owned(), Bytes::from_static(text.as_bytes())));
        Message {
            at: TopicPartition::new("t", 0),
            offset: 0,
            timestamp_ms: 0,
            key: None,
            payload: Bytes::from_static(payload),
            headers: headers.into_iter().collect(),
        }
    }

    #[test]
    fn the_bytes_a_message_begins_with_decide_and_its_content_type_explains_the_rest() {
        for (payload, content_type, codec, cause) in [
            (b"CSWY".as_slice(), None, Codec::Causeway, "truncated"),
            (b"CSWY", Some("text/plain"), Codec::Causeway, "truncated"),
            (b"{}", Some("application/json"), Codec::Unknown, "content_type"),
            (b"{}", None, Codec::Unknown, "truncated"),
            (b"{\"a\": 1, \"b\": 2, \"c\": 3}", None, Codec::Unknown, "bad_magic"),
        ] {
            let message = message(payload, content_type);
            let error = Codec::of(&message).decode(&message).unwrap_err();
            assert_eq!((Codec::of(&message), error.cause()), (codec, cause), "{payload:?} {content_type:?}");
        }
    }
}
