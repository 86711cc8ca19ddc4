//! Columns of rows that share a value, and the few conversions every table needs.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, DictionaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;

/// A dictionary column in which every row holds the same word.
pub fn same_word(word: &str, rows: usize) -> ArrayRef {
    // Four bytes a row however long the word is; Parquet then writes the key as one run.
    let keys = Int32Array::from(vec![0; rows]);
    let words = Arc::new(StringArray::from(vec![word]));
    // One word and keys of zero cannot disagree; an empty dictionary stands for the impossible case.
    let column = DictionaryArray::<Int32Type>::try_new(keys, words);
    Arc::new(column.unwrap_or_else(|_| DictionaryArray::from_iter(std::iter::empty::<Option<&str>>())))
}

pub fn same_int(value: i32, rows: usize) -> ArrayRef {
    Arc::new(Int32Array::from(vec![value; rows]))
}

pub fn same_long(value: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value; rows]))
}

pub fn long(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub fn int(values: impl IntoIterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// Microseconds since the epoch as `timestamptz`.
pub fn timestamp(values_us: impl IntoIterator<Item = i64>) -> ArrayRef {
    // UTC written as the tables have it: Arrow compares types by this text, for which `UTC` is another zone.
    Arc::new(TimestampMicrosecondArray::from_iter_values(values_us).with_timezone("+00:00"))
}

/// Words that repeat.
pub fn words<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(DictionaryArray::<Int32Type>::from_iter(values))
}

/// Free text.
pub fn text<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

/// Opaque bytes. The column is made in its full size: growing would copy large values again and again.
pub fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> ArrayRef {
    let (rows, bytes) =
        values.clone().fold((0, 0), |(rows, bytes), value| (rows + 1, bytes + value.map_or(0, <[u8]>::len)));
    let mut column = BinaryBuilder::with_capacity(rows, bytes);
    for value in values {
        column.append_option(value);
    }
    Arc::new(column.finish())
}

/// Nanoseconds to the microsecond they fall in, also before 1970.
pub const fn micros(ns: i64) -> i64 {
    ns.div_euclid(1_000)
}
