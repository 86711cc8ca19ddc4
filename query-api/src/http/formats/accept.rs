//! The `Accept` header: media ranges with weights, RFC 9110 section 12.5.1.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// Weight of a range that names none, in thousandths.
const WHOLE: u16 = 1_000;

/// How closely a range names a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Precision {
    /// `*/*`
    Any,
    /// `text/*`
    Kind,
    /// `text/csv`
    Type,
}

/// One entry of the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    media: String,
    /// How closely it names a type; the closest decides.
    pub precision: Precision,
    /// Thousandths; 0: not acceptable.
    pub weight: u16,
    /// Place among the entries of the request, from 0; the first of equals wins.
    pub position: usize,
}

/// The ranges of a request, none without the header. `None` when nothing of the header can be read.
pub(super) fn ranges(headers: &HeaderMap) -> Option<Vec<Range>> {
    let mut ranges = Vec::new();
    let mut is_given = false;
    for header in headers.get_all(ACCEPT) {
        // A line that is not ASCII stands as one malformed entry: as no entry at all, it would ask for anything.
        let entries = header.to_str().unwrap_or("?").split(',').map(str::trim).filter(|entry| !entry.is_empty());
        for entry in entries {
            is_given = true;
            ranges.extend(range(entry, ranges.len()));
        }
    }
    // An empty header is as good as none; one of malformed entries alone admits nothing and becomes 406.
    (!is_given || !ranges.is_empty()).then_some(ranges)
}

/// `None` for an entry that is malformed, which is passed over.
fn range(entry: &str, position: usize) -> Option<Range> {
    let mut parts = entry.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (kind, subtype) = media.split_once('/')?;
    let precision = match (kind, subtype) {
        ("*", "*") => Precision::Any,
        // `*/csv` is no media range of the grammar.
        ("*", _) | ("", _) | (_, "") => return None,
        (_, "*") => Precision::Kind,
        _ => Precision::Type,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(WHOLE), thousandths)?;
    Some(Range { precision, weight, position, media })
}

/// `0.5` as 500; at most three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    // The grammar of a weight has three digits at most (RFC 9110 section 12.4.2): whole thousandths compare exactly.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(WHOLE),
        _ => None,
    }
}

/// The range that decides about a media type: the one that names it most closely.
pub(super) fn most_specific<'a>(ranges: &'a [Range], media: &str) -> Option<&'a Range> {
    let kind = media.split('/').next().unwrap_or_default();
    let matching = ranges.iter().filter(|range| match range.precision {
        Precision::Any => true,
        Precision::Kind => range.media.strip_suffix("/*") == Some(kind),
        Precision::Type => range.media == media,
    });
    // `max_by_key` gives the last of equals: with the position reversed no two are equal, and the first entry wins.
    matching.max_by_key(|range| (range.precision, std::cmp::Reverse(range.position)))
}
