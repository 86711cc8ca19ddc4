//! Splits batches by the day of a timestamp column, whole columns at a time. Most batches lie within one day and are
//! passed on untouched.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;

use crate::table::DAY_MICROS;

/// Batches by day, in days since 1970-01-01.
pub(super) type Days = BTreeMap<i32, Vec<RecordBatch>>;

/// Adds the batch's rows to their days. `column` must hold microsecond timestamps and no nulls.
pub(super) fn split(batch: &RecordBatch, column: usize, days: &mut Days) -> Result<(), ArrowError> {
    let micros = batch.column(column).as_primitive::<TimestampMicrosecondType>().values();
    let mut found = BTreeSet::new();
    let mut last = None;
    // Rounds down, as Iceberg's day transform does: times before 1970 belong to negative days.
    for day in micros.iter().map(|t| t.div_euclid(DAY_MICROS)) {
        // Consecutive rows mostly share their day: only a change needs the set.
        if last != Some(day) {
            found.insert(day);
            last = Some(day);
        }
    }
    let single = found.len() == 1;
    for day in found {
        let number =
            i32::try_from(day).map_err(|_| ArrowError::InvalidArgumentError(format!("day {day} is out of range")))?;
        let part = if single {
            // Shares the arrays: no row is copied.
            batch.clone()
        } else {
            // One pass for each day: batches of a log span one or two days.
            let mask: BooleanArray = micros.iter().map(|t| Some(t.div_euclid(DAY_MICROS) == day)).collect();
            filter_record_batch(batch, &mask)?
        };
        days.entry(number).or_default().push(part);
    }
    Ok(())
}

/// Whether the column can be split by: timestamps in microseconds without nulls.
pub(super) fn is_splittable(array: &dyn Array) -> bool {
    array.null_count() == 0 && array.as_primitive_opt::<TimestampMicrosecondType>().is_some()
}

#[cfg(test)]
mod tests;
