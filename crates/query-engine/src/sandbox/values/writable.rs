//! Whether the values of an answer can be written: a date beyond the calendar, or a number beyond the declared type of
//! its column, is an error of the statement and never an error text in a cell.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, make_array};
use datafusion::arrow::compute::{cast, max, min};
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err};

use super::kinds::type_name;

/// Refuses a batch with a value that no form of an answer can hold.
///
/// # Errors
/// The value and its type.
pub(crate) fn check(batch: &RecordBatch) -> Result<()> {
    batch.columns().iter().try_for_each(check_column)
}

fn check_column(column: &ArrayRef) -> Result<()> {
    match column.data_type() {
        // Answers declare the column as bigint, since SQL has no unsigned type.
        DataType::UInt64 => match max(column.as_primitive::<UInt64Type>()) {
            Some(most) if i64::try_from(most).is_err() => {
                exec_err!("the value {most} is out of range of bigint; CAST(... AS DECIMAL(20, 0)) holds it")
            }
            _ => Ok(()),
        },
        DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_) => check_times(column),
        // Times inside lists and structures are written as well.
        nested if nested.is_nested() => {
            column.to_data().child_data().iter().try_for_each(|child| check_column(&make_array(child.clone())))
        }
        _ => Ok(()),
    }
}

fn check_times(column: &ArrayRef) -> Result<()> {
    // The stored count of days or of a unit: the same bits under a type that has an order and no calendar.
    let integers = if column.data_type().primitive_width() == Some(4) { DataType::Int32 } else { DataType::Int64 };
    let numbers = make_array(column.to_data().into_builder().data_type(integers).build()?);
    let numbers = cast(&numbers, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    // The calendar is an interval: if its least and its greatest time can be written, all can. Two texts per batch
    // are cheap.
    let ends = [min(numbers), max(numbers)];
    for end in ends.into_iter().flatten() {
        // Both are values of the column, so that the position exists.
        let row = numbers.iter().position(|number| number == Some(end)).unwrap_or(0);
        if formatter.value(row).try_to_string().is_err() {
            return exec_err!(
                "the {} {end} lies beyond the calendar and cannot be written",
                type_name(column.data_type())
            );
        }
    }
    Ok(())
}
