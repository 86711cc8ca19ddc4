//! The option that a name means, and the one that was probably meant when it means none.

use crate::config::layers::{distance, variable_stem};
use crate::config::{Place, Problem};

/// The field a name begins with (the longest that fits) and what is left of the name.
pub(super) fn field_of<'a>(name: &'a str, fields: &[&'static str]) -> Option<(&'static str, &'a str)> {
    let fits = fields.iter().filter_map(|field| {
        let rest = name.strip_prefix(variable_stem(field).as_str())?;
        if rest.is_empty() { Some((*field, rest)) } else { rest.strip_prefix('_').map(|rest| (*field, rest)) }
    });
    // The longest: of `tls` and `tls_key` both fit `TLS_KEY`.
    fits.max_by_key(|(field, _)| field.len())
}

pub(super) fn unknown(place: &Place, key: &str, near: &str) -> Problem {
    let guess = if near.is_empty() { String::new() } else { format!("; did you mean `{near}`?") };
    let what = if key.is_empty() { format!("no such option{guess}") } else { format!("is not known{guess}") };
    Problem { place: place.clone(), key: key.to_owned(), what }
}

/// The known name most like `word`, or nothing if none is like it.
pub(super) fn nearest(word: &str, known: Vec<&'static str>) -> &'static str {
    let near = known.into_iter().map(|name| (distance(word, name), name)).min();
    // Two edits turn a short word into most others.
    near.filter(|(edits, name)| *edits <= if name.len() > 4 { 2 } else { 1 }).map_or("", |(_, name)| name)
}
