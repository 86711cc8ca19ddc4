//! Headers of our own.

use answers::completeness::Completeness;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::{COMPLETENESS_HEADER, REQUEST_ID_HEADER};

/// Most nodes that are named in a header: clients refuse long ones. The numbers beside them count all.
const NAMED_IN_HEADER: usize = 64;
/// Longest name of a request that is kept, bytes.
const MAX_ID_BYTES: usize = 128;

/// The completeness that a JSON answer has beside its rows, for forms that have no place for it.
pub(super) fn completeness_header(completeness: &Option<Completeness>) -> HeaderMap {
    let mut said = completeness.clone();
    if let Some(said) = &mut said {
        said.missing.truncate(NAMED_IN_HEADER);
        said.still_landing.truncate(NAMED_IN_HEADER);
    }
    let text = serde_json::to_string(&said).ok().map(|text| printable(&text));
    let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
    value.map(|value| (HeaderName::from_static(COMPLETENESS_HEADER), value)).into_iter().collect()
}

/// JSON in printable ASCII alone, which a field value may hold (RFC 9110 section 5.5): other characters in JSON's own
/// escapes. Of control characters these are DEL alone, for JSON escapes the others itself.
fn printable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            out.push(c);
        } else {
            // Beyond the Basic Multilingual Plane these are two escapes, a surrogate pair (RFC 8259 section 7).
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// The name the client gave its request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID_HEADER)?.to_str().ok()?;
    (1..=MAX_ID_BYTES).contains(&id.len()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_characters_is_in_the_header() {
        let missing = vec!["del\u{7f} tab\t \u{e9} \u{1f600}".to_owned()];
        let completeness = Some(Completeness { missing, ..Completeness::default() });
        let headers = completeness_header(&completeness);
        let text = headers[COMPLETENESS_HEADER].to_str().unwrap();
        assert_eq!(serde_json::from_str::<Option<Completeness>>(text).unwrap(), completeness);
    }
}
