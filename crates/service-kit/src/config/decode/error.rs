//! The error that serde passes upwards. The value that it is about becomes known on the way.

use std::fmt;

use serde::de;

use crate::config::Place;

#[derive(Debug)]
pub(super) struct DecodeError {
    /// Key of the value, full once the error has come out; empty at first, or the name of a missing field.
    pub key: String,
    /// Where the value was set.
    pub place: Place,
    /// What is wrong; reads on after the key.
    pub what: String,
    /// A field without a default that no layer sets.
    pub is_missing: bool,
}

impl DecodeError {
    /// Adds the key and the place of the value, unless a value further in has set them.
    pub(super) fn or_at(mut self, key: &str, place: &Place) -> Self {
        if self.key.is_empty() {
            self.key = key.to_owned();
            self.place = place.clone();
        } else if self.is_missing && self.place == Place::Unset {
            // serde reports a missing field by its bare name, from within its section.
            self.key = joined(key, &self.key);
            self.place = place.clone();
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.place, self.key, self.what)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self { key: String::new(), place: Place::Unset, what: format!("is wrong: {what}"), is_missing: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { key: field.to_owned(), place: Place::Unset, what: "is required".to_owned(), is_missing: true }
    }
}

pub(super) fn joined(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}
