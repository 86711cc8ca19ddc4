//! A TOML file as a tree in which every value has its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Place, Problem};

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What it holds.
    pub value: Raw,
    /// Where the value stands.
    pub place: Place,
    /// Where its key stands.
    pub key_place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Entry>),
    Table(BTreeMap<String, Entry>),
}

/// Turns byte offsets of one file into lines and columns.
struct Lines<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        // Spans are byte offsets at the borders of characters; any other one gives the end of the file.
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        Place::File { path: Arc::clone(&self.path), line, column }
    }

    fn problem(&self, error: &toml::de::Error) -> Problem {
        let place = error.span().map_or(Place::Unset, |span| self.place(span));
        Problem { place, key: String::new(), what: error.message().replace('\n', ", ") }
    }
}

/// Parses a file; every syntax error is a problem.
pub(super) fn parse(path: &Path, text: &str) -> Result<Entry, Vec<Problem>> {
    let lines = Lines { path: path.display().to_string().into(), text };
    // The parser continues after an error, so that all syntax errors of a file are reported at once.
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| lines.problem(error)).collect());
    }
    let place = lines.place(0..0);
    let mut problems = Vec::new();
    let value = table(root.get_ref(), &lines, &mut problems);
    if problems.is_empty() { Ok(Entry { value, key_place: place.clone(), place }) } else { Err(problems) }
}

fn table(table: &DeTable<'_>, lines: &Lines<'_>, problems: &mut Vec<Problem>) -> Raw {
    let entries = table.iter().map(|(key, value)| {
        let mut entry = entry(value, lines, problems);
        entry.key_place = lines.place(key.span());
        (key.get_ref().to_string(), entry)
    });
    Raw::Table(entries.collect())
}

fn entry(spanned: &Spanned<DeValue<'_>>, lines: &Lines<'_>, problems: &mut Vec<Problem>) -> Entry {
    let place = lines.place(spanned.span());
    let value = match spanned.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        // TOML requires an error for an integer that does not fit; 0 stands for it until the problem is reported.
        DeValue::Integer(n) => Raw::Integer(i64::from_str_radix(n.as_str(), n.radix()).unwrap_or_else(|_| {
            problems.push(out_of_range(&place, n.as_str()));
            0
        })),
        DeValue::Float(n) => Raw::Float(n.as_str().parse().unwrap_or_else(|_| {
            problems.push(out_of_range(&place, n.as_str()));
            0.0
        })),
        DeValue::Boolean(value) => Raw::Bool(*value),
        // No option is a date: as text, the error names what was written.
        DeValue::Datetime(time) => Raw::Text(time.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| entry(item, lines, problems)).collect()),
        DeValue::Table(inner) => table(inner, lines, problems),
    };
    Entry { value, key_place: place.clone(), place }
}

fn out_of_range(place: &Place, number: &str) -> Problem {
    let what = format!("the number {number} does not fit in 64 bits");
    Problem { place: place.clone(), key: String::new(), what }
}
