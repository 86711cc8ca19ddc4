//! Hashes and extremes of one column of a batch, a loop for each type.

use arrow::array::{
    Array, ArrayRef, ArrowNumericType, ArrowPrimitiveType, AsArray, BooleanArray, DictionaryArray, PrimitiveArray,
    StringArray,
};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tables::hash::{join, mix, of_bytes};

/// What the hashes of a column's values begin with: equal values of two columns have different hashes.
pub(super) fn seed(field_id: i32) -> u64 {
    mix(u64::from(field_id.cast_unsigned()))
}

/// Adds the hash of each value to that of its row, and returns their sum. A null adds nothing.
pub(super) fn add(array: &ArrayRef, seed: u64, rows: &mut [u64]) -> Result<u64, ArrowError> {
    Ok(match array.data_type() {
        DataType::Boolean => booleans(array.as_boolean(), seed, rows),
        DataType::Int32 => numbers::<Int32Type>(array, seed, rows, |v| u64::from(v.cast_unsigned())),
        DataType::Int64 => numbers::<Int64Type>(array, seed, rows, i64::cast_unsigned),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers::<TimestampMicrosecondType>(array, seed, rows, i64::cast_unsigned)
        }
        // By their bits: a NaN and a negative zero are kept too.
        DataType::Float32 => numbers::<Float32Type>(array, seed, rows, |v| u64::from(v.to_bits())),
        DataType::Float64 => numbers::<Float64Type>(array, seed, rows, f64::to_bits),
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            values.iter().zip(rows).fold(0, |sum, (value, row)| plus(sum, row, value.map(|v| of_text(v, seed))))
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            values.iter().zip(rows).fold(0, |sum, (value, row)| plus(sum, row, value.map(|v| join(of_bytes(v), seed))))
        }
        DataType::Dictionary(_, _) => words(word_column(array)?, seed, rows),
        other => return Err(ArrowError::NotYetImplemented(format!("values of type {other} have no hash"))),
    })
}

fn of_text(text: &str, seed: u64) -> u64 {
    join(of_bytes(text.as_bytes()), seed)
}

fn plus(sum: u64, row: &mut u64, hash: Option<u64>) -> u64 {
    // A null leaves both as they are.
    let hash = hash.unwrap_or(0);
    *row = row.wrapping_add(hash);
    sum.wrapping_add(hash)
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef, seed: u64, rows: &mut [u64], bits: fn(T::Native) -> u64) -> u64 {
    let array: &PrimitiveArray<T> = array.as_primitive();
    let mut sum = 0;
    match array.nulls() {
        // Apart from the other case: without a branch in it the compiler makes vector instructions of the loop.
        None => {
            for (value, row) in array.values().iter().zip(rows) {
                sum = plus(sum, row, Some(mix(bits(*value) ^ seed)));
            }
        }
        Some(nulls) if nulls.null_count() == array.len() => {}
        Some(_) => {
            for (value, row) in array.iter().zip(rows) {
                sum = plus(sum, row, value.map(|value| mix(bits(value) ^ seed)));
            }
        }
    }
    sum
}

fn booleans(array: &BooleanArray, seed: u64, rows: &mut [u64]) -> u64 {
    array.iter().zip(rows).fold(0, |sum, (value, row)| plus(sum, row, value.map(|value| mix(u64::from(value) ^ seed))))
}

type Words<'a> = (&'a DictionaryArray<Int32Type>, &'a StringArray);

/// A column of words that repeat.
fn word_column(array: &ArrayRef) -> Result<Words<'_>, ArrowError> {
    let words = array.as_dictionary_opt::<Int32Type>();
    let words = words.and_then(|words| Some((words, words.values().as_string_opt::<i32>()?)));
    words.ok_or_else(|| ArrowError::SchemaError(format!("a column of words has the type {}", array.data_type())))
}

fn words((column, words): Words<'_>, seed: u64, rows: &mut [u64]) -> u64 {
    // Each word once, and not for every row.
    let hashes: Vec<Option<u64>> = words.iter().map(|word| word.map(|word| of_text(word, seed))).collect();
    column.keys().iter().zip(rows).fold(0, |sum, (key, row)| plus(sum, row, key.and_then(|key| at(&hashes, key))))
}

fn at(hashes: &[Option<u64>], key: i32) -> Option<u64> {
    hashes.get(usize::try_from(key).ok()?).copied().flatten()
}

/// The least and the greatest value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extremes {
    Numbers(i64, i64),
    Words(String, String),
}

/// Extends extremes by the values of a column. Types that no table is sorted by have none.
pub(super) fn extend(extremes: &mut Option<Extremes>, array: &ArrayRef) -> Result<(), ArrowError> {
    let found = match array.data_type() {
        DataType::Int32 => of_numbers::<Int32Type>(array, i64::from),
        DataType::Int64 => of_numbers::<Int64Type>(array, std::convert::identity),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of_numbers::<TimestampMicrosecondType>(array, std::convert::identity)
        }
        DataType::Utf8 => of_words(array.as_string::<i32>().iter().flatten()),
        DataType::Dictionary(_, _) => {
            let (column, words) = word_column(array)?;
            // A dictionary may have words that no row uses.
            let used = column.occupancy();
            of_words(words.iter().enumerate().filter(|(place, _)| used.value(*place)).filter_map(|(_, word)| word))
        }
        _ => None,
    };
    *extremes = match (extremes.take(), found) {
        (Some(Extremes::Numbers(a, b)), Some(Extremes::Numbers(c, d))) => Some(Extremes::Numbers(a.min(c), b.max(d))),
        (Some(Extremes::Words(a, b)), Some(Extremes::Words(c, d))) => Some(Extremes::Words(a.min(c), b.max(d))),
        (before, found) => before.or(found),
    };
    Ok(())
}

fn of_numbers<T: ArrowNumericType>(array: &ArrayRef, number: fn(T::Native) -> i64) -> Option<Extremes> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Some(Extremes::Numbers(number(min(array)?), number(max(array)?)))
}

fn of_words<'a>(words: impl Iterator<Item = &'a str> + Clone) -> Option<Extremes> {
    Some(Extremes::Words(words.clone().min()?.to_owned(), words.max()?.to_owned()))
}
