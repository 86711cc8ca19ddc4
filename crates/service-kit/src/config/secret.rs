//! Values that must not be seen in logs, errors or `config show`.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// What is shown instead.
pub(super) const MASK: &str = "***";

/// A value that shows itself only to [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Do not log it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Also in `{:?}`, by which structs that hold a secret reach logs.
        f.write_str(MASK)
    }
}

impl<T> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// An address that may carry a password, `postgres://user:password@host/database`. It shows itself without.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretUri(String);

impl SecretUri {
    /// The address with its password. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretUri {
    fn from(uri: String) -> Self {
        Self(uri)
    }
}

impl fmt::Display for SecretUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for SecretUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&without_password(&self.0), f)
    }
}

impl Serialize for SecretUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&without_password(&self.0))
    }
}

/// Masks the password before the host and the one in the query (`?password=…`). What is no address is masked up to its
/// last `@`.
fn without_password(uri: &str) -> String {
    // Split at the last `@`, since a password that was not percent-encoded may hold one.
    let Some(mut url) = Url::parse(uri).ok().filter(Url::has_host) else {
        return uri.rsplit_once('@').map_or_else(|| uri.to_owned(), |(_, host)| format!("{MASK}@{host}"));
    };
    // libpq also takes the password as a parameter of the query.
    let in_query = url.query_pairs().any(|(key, _)| is_password(&key));
    // Returned as it was given: `Url` would normalise it.
    if url.password().is_none() && !in_query {
        return uri.to_owned();
    }
    if url.password().is_some() {
        // `Url` refuses a password only where there is no host, and there is one.
        let _ = url.set_password(Some(MASK));
    }
    if in_query {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in url.query_pairs() {
            let value = if is_password(&key) { MASK.to_owned() } else { value.into_owned() };
            pairs.push((key.into_owned(), value));
        }
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

fn is_password(key: &str) -> bool {
    key.eq_ignore_ascii_case("password")
}
