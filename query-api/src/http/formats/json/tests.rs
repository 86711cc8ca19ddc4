use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type};

use super::*;

fn cells(array: ArrayRef, style: Style) -> Vec<String> {
    let cell = cell(&array, style).unwrap();
    let text = |row| {
        let mut out = Vec::new();
        cell(row, &mut out);
        String::from_utf8(out).unwrap()
    };
    (0..array.len()).map(text).collect()
}

#[test]
fn integers_keep_all_their_digits() {
    assert_eq!(
        cells(Arc::new(Int64Array::from(vec![Some(i64::MAX), None])), Style::Native),
        ["9223372036854775807", "null"]
    );
    assert_eq!(cells(Arc::new(UInt64Array::from(vec![u64::MAX])), Style::Native), ["18446744073709551615"]);
}

#[test]
fn floats_have_a_point_and_what_json_lacks_is_text() {
    let values = Float64Array::from(vec![1.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(cells(Arc::new(values), Style::Trino), ["1.0", "0.1", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""]);
}

#[test]
fn times_are_written_in_the_style_asked_for() {
    let micros = || Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_123_456]).with_timezone("+00:00"));
    assert_eq!(cells(micros(), Style::Native), ["\"2023-11-14T22:13:20.123456Z\""]);
    assert_eq!(cells(micros(), Style::Trino), ["\"2023-11-14 22:13:20.123456 UTC\""]);
    let before_1970 = Arc::new(TimestampNanosecondArray::from(vec![-1]));
    assert_eq!(cells(before_1970, Style::Trino), ["\"1969-12-31 23:59:59.999999999\""]);
}

#[test]
fn text_is_escaped_and_bytes_are_base64() {
    assert_eq!(cells(Arc::new(StringViewArray::from(vec!["a\"\n\u{1b}"])), Style::Native), ["\"a\\\"\\n\\u001b\""]);
    let bytes = BinaryArray::from_vec(vec![b"", b"f", b"fo", b"foo", &[0, 255]]);
    assert_eq!(cells(Arc::new(bytes), Style::Trino), ["\"\"", "\"Zg==\"", "\"Zm8=\"", "\"Zm9v\"", "\"AP8=\""]);
}

#[test]
fn lists_nest_and_structs_are_objects_here_and_arrays_for_trino() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
    assert_eq!(cells(Arc::new(list), Style::Native), ["[1,null]", "null", "[]"]);
    let x: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let row = StructArray::from(vec![(Arc::new(Field::new("x", x.data_type().clone(), true)), x)]);
    assert_eq!(cells(Arc::new(row.clone()), Style::Native), ["{\"x\":7}"]);
    assert_eq!(cells(Arc::new(row), Style::Trino), ["[7]"]);
}
