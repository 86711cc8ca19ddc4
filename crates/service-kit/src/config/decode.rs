//! Decodes the layers into settings. serde stops at the first error, so a value that does not decode is recorded with
//! its place, left out, and everything is decoded again, until all problems have been found.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::layers::{Layers, Override};
use super::tree::{Entry, Raw};
use super::{Place, Problem, Sections};

mod access;
mod error;
mod names;

use access::{Fields, Items};
use error::{DecodeError, joined};
use names::{field_of, nearest, unknown};

/// What decoding found.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    /// `None` when the settings have a field without a default that is missing or wrong.
    pub settings: Option<T>,
    /// Place of each option that some layer sets, by full key.
    pub places: BTreeMap<String, Place>,
    /// All that is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
}

pub(super) fn decode<T: DeserializeOwned>(layers: &Layers<'_>) -> Outcome<T> {
    let pass = Pass { sections: layers.sections, ..Pass::default() };
    loop {
        let overrides = layers.overrides.iter().map(Named::of).collect();
        let root = Value { pass: &pass, key: String::new(), file: layers.file.as_ref(), overrides };
        let error = match T::deserialize(root) {
            Ok(settings) => return pass.into_outcome(Some(settings)),
            Err(error) => error,
        };
        // Each turn leaves out one key more, so that the loop ends.
        let is_new = pass.left_out.borrow_mut().insert(error.key.clone());
        let section = error.key.rsplit_once('.').map(|(section, _)| section.to_owned());
        if is_new {
            pass.note(Problem { place: error.place, key: error.key, what: error.what });
        }
        // A field without a default stays missing however often it is asked for: its section is left out too, so that
        // the problems of other sections are found.
        let is_stuck = !is_new || error.is_missing;
        if is_stuck && !section.is_some_and(|section| pass.left_out.borrow_mut().insert(section)) {
            return pass.into_outcome(None);
        }
    }
}

/// What all values of one decoding share.
#[derive(Default)]
struct Pass {
    /// Sections that the file may have.
    sections: Sections,
    problems: RefCell<Vec<Problem>>,
    places: RefCell<BTreeMap<String, Place>>,
    left_out: RefCell<BTreeSet<String>>,
}

impl Pass {
    fn note(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn into_outcome<T>(self, settings: Option<T>) -> Outcome<T> {
        Outcome { settings, places: self.places.into_inner(), problems: self.problems.into_inner() }
    }
}

/// An override on its way down: `rest` is what the fields so far have left of its name.
#[derive(Clone, Copy)]
struct Named<'a> {
    rest: &'a str,
    text: &'a str,
    place: &'a Place,
}

impl<'a> Named<'a> {
    fn of(given: &'a Override) -> Self {
        Self { rest: &given.name, text: &given.value, place: &given.place }
    }
}

/// One value, from the layers that set it.
struct Value<'a> {
    pass: &'a Pass,
    key: String,
    file: Option<&'a Entry>,
    overrides: Vec<Named<'a>>,
}

/// The value that wins: text from a variable or flag, or an entry of the file.
enum Winner<'a> {
    Text(&'a str),
    File(&'a Raw),
}

impl<'a> Value<'a> {
    fn exact(&self) -> Option<&Named<'a>> {
        // The last one has precedence: overrides are in rising order.
        self.overrides.iter().rev().find(|named| named.rest.is_empty())
    }

    fn place(&self) -> Place {
        let named = self.exact().map(|named| named.place);
        let set = named.or(self.file.map(|entry| &entry.place));
        // A name that continues behind the value is all that there is of it then.
        set.or(self.overrides.last().map(|stray| stray.place)).cloned().unwrap_or_default()
    }

    /// The value of an option that has no fields. Names that go on behind it name nothing.
    fn winner(&self) -> Result<Winner<'a>, DecodeError> {
        let winner = self.exact().map(|named| Winner::Text(named.text));
        let winner = winner.or(self.file.map(|entry| Winner::File(&entry.value)));
        if winner.is_some() {
            // For example `KAFKA_BROKERS_X`, where `kafka.brokers` is a value.
            for stray in self.overrides.iter().filter(|named| !named.rest.is_empty()) {
                self.pass.note(unknown(stray.place, "", ""));
            }
        }
        winner.ok_or_else(|| de::Error::custom("it has no option of this name"))
    }

    /// The values of the fields that some layer sets; everything else is unknown.
    fn fields(&self, names: &'static [&'static str]) -> Result<BTreeMap<&'static str, Value<'a>>, DecodeError> {
        let of_file = match self.file.map(|entry| &entry.value) {
            None => None,
            Some(Raw::Table(table)) => Some(table),
            Some(_) => return Err(de::Error::custom("it is a section, not a value")),
        };
        if self.overrides.iter().any(|named| named.rest.is_empty()) {
            return Err(de::Error::custom("it has several options: set them one by one"));
        }
        let mut fields: BTreeMap<&'static str, Value<'a>> = BTreeMap::new();
        for (key, entry) in of_file.into_iter().flatten() {
            match names.iter().find(|name| *name == key) {
                Some(name) => self.field(&mut fields, name).file = Some(entry),
                // A section of another program, which reads the same file (ADR 43).
                None if self.is_root() && self.pass.sections.contains(&key.as_str()) => {}
                None => {
                    self.pass.note(unknown(&entry.key_place, &joined(&self.key, key), nearest(key, self.known(names))))
                }
            }
        }
        for named in &self.overrides {
            match field_of(named.rest, names) {
                Some((name, rest)) => {
                    self.field(&mut fields, name).overrides.push(Named { rest, ..*named });
                }
                // Likewise for variables.
                None if self.is_root() && field_of(named.rest, self.pass.sections).is_some() => {}
                None => self.note_unknown(named, names),
            }
        }
        Ok(fields)
    }

    /// Notes an override that names none of the fields.
    fn note_unknown(&self, named: &Named<'a>, names: &'static [&'static str]) {
        // Below the root the rest is one option; at the root a section comes first.
        let word = if self.is_root() { named.rest.split('_').next() } else { None };
        let near = nearest(&word.unwrap_or(named.rest).to_lowercase(), self.known(names));
        self.pass.note(unknown(named.place, "", near));
    }

    /// Whether names go on behind this value while its fields are not known here: a map, or an enum that serde buffers.
    fn is_free_section(&self) -> bool {
        let is_section = self.file.is_none_or(|entry| matches!(entry.value, Raw::Table(_)));
        is_section && self.exact().is_none() && !self.overrides.is_empty()
    }

    /// The file's keys, and behind them one key per name: what is left of it, in lower case.
    fn free_section(&self) -> Vec<(String, Value<'a>)> {
        let of_file = match self.file.map(|entry| &entry.value) {
            Some(Raw::Table(table)) => Some(table),
            _ => None,
        };
        let of_file = of_file.into_iter().flatten().map(|(key, entry)| (key.clone(), self.child(key, Some(entry))));
        let mut fields: BTreeMap<String, Value<'a>> = of_file.collect();
        for named in &self.overrides {
            // The keys of a map are not known: a variable cannot give the case of a letter.
            let key = named.rest.to_lowercase();
            let value = fields.entry(key.clone()).or_insert_with(|| self.child(&key, None));
            value.overrides.push(Named { rest: "", ..*named });
        }
        fields.into_iter().collect()
    }

    /// Whether an earlier round found it wrong.
    fn is_left_out(&self) -> bool {
        self.pass.left_out.borrow().contains(&self.key)
    }

    fn is_root(&self) -> bool {
        self.key.is_empty()
    }

    fn known(&self, names: &'static [&'static str]) -> Vec<&'static str> {
        let sections = if self.is_root() { self.pass.sections } else { &[] };
        names.iter().chain(sections).copied().collect()
    }

    fn field<'m>(&self, fields: &'m mut BTreeMap<&'static str, Value<'a>>, name: &'static str) -> &'m mut Value<'a> {
        fields.entry(name).or_insert_with(|| self.child(name, None))
    }

    fn child(&self, name: &str, file: Option<&'a Entry>) -> Value<'a> {
        Value { pass: self.pass, key: joined(&self.key, name), file, overrides: Vec::new() }
    }

    /// An entry of a map that came as text.
    fn pair(&self, pair: &'a str) -> Result<(String, Value<'a>), DecodeError> {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(de::Error::custom("write it as `key=value,key=value`"));
        };
        Ok((key.to_owned(), self.part(key, text)))
    }

    /// A part of a text that came by name.
    fn part(&self, name: &str, text: &'a str) -> Value<'a> {
        let part = self.exact().map(|named| Named { text, ..*named });
        Value { overrides: part.into_iter().collect(), ..self.child(name, None) }
    }
}

impl<'de> de::Deserializer<'de> for Value<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_free_section() {
            return self.deserialize_map(visitor);
        }
        match self.winner()? {
            Winner::Text(text) => visitor.visit_str(text),
            Winner::File(Raw::Text(text)) => visitor.visit_str(text),
            Winner::File(Raw::Integer(n)) => visitor.visit_i64(*n),
            Winner::File(Raw::Float(n)) => visitor.visit_f64(*n),
            Winner::File(Raw::Bool(value)) => visitor.visit_bool(*value),
            Winner::File(Raw::List(_)) => self.deserialize_seq(visitor),
            Winner::File(Raw::Table(_)) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.winner()? {
            // A variable or flag has no type: its text is parsed as the field requires. A value of the file keeps the
            // type that TOML gives it.
            Winner::Text("true" | "1") => visitor.visit_bool(true),
            Winner::Text("false" | "0") => visitor.visit_bool(false),
            Winner::Text(text) => Err(de::Error::custom(format!("`{text}` is neither `true` nor `false`"))),
            Winner::File(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.winner()? {
            Winner::Text(text) => match text.trim().parse() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => Err(de::Error::custom(format!("`{text}` is not a whole number"))),
            },
            Winner::File(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.winner()? {
            Winner::Text(text) => match text.trim().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom(format!("`{text}` is not a number"))),
            },
            // TOML distinguishes `1` from `1.0`; where a number with a fraction is expected both are accepted.
            Winner::File(Raw::Integer(n)) => visitor.visit_f64(*n as f64),
            Winner::File(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        // serde asks for fields that some layer sets only; an absent one is `None` without this call.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        // Transparent: `Secret` and its like decode as the value inside, with its place.
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let items: Vec<Value<'de>> = match self.winner()? {
            Winner::Text(text) => words(text).enumerate().map(|(i, word)| self.part(&i.to_string(), word)).collect(),
            Winner::File(Raw::List(items)) => {
                items.iter().enumerate().map(|(i, item)| self.child(&i.to_string(), Some(item))).collect()
            }
            Winner::File(_) => return Err(de::Error::custom("it is not a list")),
        };
        visitor.visit_seq(Items::of(items))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_free_section() {
            return visitor.visit_map(Fields::of(self.free_section()));
        }
        let pairs: Vec<(String, Value<'de>)> = match self.winner()? {
            Winner::Text(text) => words(text).map(|pair| self.pair(pair)).collect::<Result<_, _>>()?,
            Winner::File(Raw::Table(_)) => self.free_section(),
            Winner::File(_) => return Err(de::Error::custom("it is not a section")),
        };
        visitor.visit_map(Fields::of(pairs))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_map(Fields::of(self.fields(fields)?.into_iter().collect()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text: &'de str = match self.winner()? {
            Winner::Text(text) => text,
            Winner::File(Raw::Text(text)) => text,
            Winner::File(_) => return Err(de::Error::custom(format!("it is not one of {}", variants.join(", ")))),
        };
        // Variants are names without values: in a variable there is room for no more.
        let choice: StrDeserializer<'de, DecodeError> = text.into_deserializer();
        choice.deserialize_enum(name, variants, visitor)
    }

    // A number given as text is parsed as the widest type; serde checks the range.
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The words of a list written in one string.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}
