//! Access of serde to the items of a list and the fields of a section.

use serde::de::{self, DeserializeSeed, IntoDeserializer};

use super::{DecodeError, Value};

/// The items of a list, each an own value.
pub(super) struct Items<'a>(std::vec::IntoIter<Value<'a>>);

impl<'a> Items<'a> {
    pub(super) fn of(items: Vec<Value<'a>>) -> Self {
        Self(items.into_iter())
    }
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        // What an earlier turn has found wrong is passed over, as if it were not set.
        let Some(value) = self.0.by_ref().find(|value| !value.is_left_out()) else { return Ok(None) };
        let key = value.key.clone();
        let place = value.place();
        seed.deserialize(value).map(Some).map_err(|error| error.or_at(&key, &place))
    }
}

/// The fields of a section, each an own value.
pub(super) struct Fields<'a, K> {
    fields: std::vec::IntoIter<(K, Value<'a>)>,
    /// The value of the field whose name was asked for last.
    value: Option<Value<'a>>,
}

impl<'a, K> Fields<'a, K> {
    pub(super) fn of(fields: Vec<(K, Value<'a>)>) -> Self {
        Self { fields: fields.into_iter(), value: None }
    }
}

impl<'de, K: AsRef<str>> de::MapAccess<'de> for Fields<'de, K> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some((name, value)) = self.fields.by_ref().find(|(_, value)| !value.is_left_out()) else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(IntoDeserializer::<DecodeError>::into_deserializer(name.as_ref())).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let value = self.value.take().ok_or_else(|| <DecodeError as de::Error>::custom("it has no value"))?;
        let key = value.key.clone();
        let place = value.place();
        // Before the value is decoded: `validate` may reject an option that decodes, and the problem has this place.
        value.pass.places.borrow_mut().insert(key.clone(), place.clone());
        seed.deserialize(value).map_err(|error| error.or_at(&key, &place))
    }
}
