//! Which manifests and files cannot hold an answer. Everything here errs on the side of reading too much: an unknown
//! bound, a foreign type or an unknown transform prunes nothing.

use std::cmp::Ordering;
use std::sync::Arc;

use iceberg::spec::{Datum, FieldSummary, ManifestFile, PartitionSpec, PrimitiveLiteral, PrimitiveType};

use super::{ScanFile, Value};
use crate::table::DAY_MICROS;
use crate::table::days::day_field;

/// A condition `min <= column <= max` that every wanted row fulfils; a row whose value is null never does. Conditions
/// over several columns are joined by AND.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRange {
    /// Name of the column in the schema that the snapshot is read by.
    pub column: String,
    /// The least value that is wanted; no lower limit when absent.
    pub min: Option<Value>,
    /// The greatest value that is wanted; no upper limit when absent.
    pub max: Option<Value>,
}

impl ColumnRange {
    pub fn between(column: impl Into<String>, min: Option<Value>, max: Option<Value>) -> Self {
        Self { column: column.into(), min, max }
    }

    pub fn equals(column: impl Into<String>, value: Value) -> Self {
        Self { column: column.into(), min: Some(value.clone()), max: Some(value) }
    }
}

/// A [`ColumnRange`] whose column is known by its field id.
#[derive(Debug, Clone)]
pub(crate) struct BoundRange {
    pub(crate) id: i32,
    pub(crate) min: Option<Value>,
    pub(crate) max: Option<Value>,
}

impl BoundRange {
    /// No value in `[lower, upper]` fulfils the condition.
    fn excludes(&self, lower: Option<&Value>, upper: Option<&Value>) -> bool {
        // `is` is false for absent bounds, for NaN and for types that do not compare: none of them excludes anything.
        let above = is(upper, Ordering::Less, self.min.as_ref());
        let below = is(lower, Ordering::Greater, self.max.as_ref());
        above || below
    }

    /// The days a condition on a timestamp allows, inclusive.
    fn days(&self) -> Option<(i32, i32)> {
        Some((limit_day(self.min.as_ref(), i32::MIN)?, limit_day(self.max.as_ref(), i32::MAX)?))
    }
}

/// The day of a limit, `open` where there is none; `None` of a value that is no time.
fn limit_day(limit: Option<&Value>, open: i32) -> Option<i32> {
    match limit {
        None => Some(open),
        // Rounds down before 1970 too, as Iceberg's day transform does. A day out of range prunes nothing.
        Some(Value::Timestamptz(micros)) => i32::try_from(micros.div_euclid(DAY_MICROS)).ok(),
        Some(_) => None,
    }
}

fn is(a: Option<&Value>, order: Ordering, b: Option<&Value>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a.compare(b) == Some(order))
}

/// Whether a manifest may name a file that holds an answer.
pub(crate) fn manifest_may_match(manifest: &ManifestFile, spec: &PartitionSpec, ranges: &[BoundRange]) -> bool {
    let Some((position, source)) = day_field(spec) else { return true };
    let Some(summary) = manifest.partitions.as_ref().and_then(|p| p.get(position)) else { return true };
    // Covers the partitions of all files. One without a day holds no wanted rows, because its times are null.
    let Some((first, last)) = summary_days(summary) else { return true };
    ranges
        .iter()
        .filter(|range| range.id == source)
        .filter_map(BoundRange::days)
        .all(|(min, max)| min <= last && first <= max)
}

fn summary_days(summary: &FieldSummary) -> Option<(i32, i32)> {
    Some((bound_day(summary.lower_bound.as_ref()?)?, bound_day(summary.upper_bound.as_ref()?)?))
}

/// The day that a bound of a partition field encodes.
fn bound_day(bytes: &[u8]) -> Option<i32> {
    let datum = Datum::try_from_bytes(bytes, PrimitiveType::Date).ok()?;
    match datum.literal() {
        PrimitiveLiteral::Int(day) => Some(*day),
        _ => None,
    }
}

/// Whether a file may hold an answer. `day_source` is the column its day partition is made from.
pub(crate) fn file_may_match(file: &ScanFile, day_source: Option<i32>, ranges: &[BoundRange]) -> bool {
    ranges.iter().all(|range| {
        // The day bounds the times of the file even if the column has no bounds of its own.
        let day_matches = match (file.day, range.days()) {
            (Some(day), Some((min, max))) if day_source == Some(range.id) => min <= day && day <= max,
            _ => true,
        };
        day_matches && column_may_match(file, range)
    })
}

fn column_may_match(file: &ScanFile, range: &BoundRange) -> bool {
    let Some(stats) = file.column(range.id) else { return true };
    let bounded = range.min.is_some() || range.max.is_some();
    // A column of nulls has no bounds, so that the count decides.
    let all_null = stats.null_count == Some(file.record_count);
    if bounded && all_null {
        return false;
    }
    !range.excludes(stats.lower.as_ref(), stats.upper.as_ref())
}

/// Keeps the files that may hold an answer.
pub(crate) fn matching(
    files: &[Arc<ScanFile>],
    day_source: Option<i32>,
    ranges: &[BoundRange],
) -> impl Iterator<Item = Arc<ScanFile>> {
    files.iter().filter(move |file| file_may_match(file, day_source, ranges)).cloned()
}

#[cfg(test)]
mod tests;
