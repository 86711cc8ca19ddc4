use super::*;
use crate::tests::{NEW_YEAR, def, rows};
use ::parquet::file::reader::{FileReader, SerializedFileReader};

fn encoded(batch: &RecordBatch) -> (Vec<u8>, ParquetMetaData) {
    let def = def();
    encode(std::slice::from_ref(batch), &def.arrow_schema(), &properties(&def).unwrap()).unwrap()
}

#[test]
fn columns_are_encoded_as_defined_and_carry_their_field_ids() {
    let batch = rows(&[("a", 0, 0), ("a", 1, 2), ("b", 2, 3)]);
    let (bytes, _) = encoded(&batch);
    let file = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let metadata = file.metadata();
    let group = metadata.row_group(0);
    let has = |column: usize, encoding| group.column(column).encodings().any(|e| e == encoding);
    assert!(has(0, ParquetEncoding::RLE_DICTIONARY));
    assert!(has(1, ParquetEncoding::DELTA_BINARY_PACKED) && !has(1, ParquetEncoding::RLE_DICTIONARY));
    assert!(has(4, ParquetEncoding::DELTA_BYTE_ARRAY));
    assert!(group.columns().iter().all(|c| matches!(c.compression(), Compression::ZSTD(_))));
    assert_eq!(metadata.file_metadata().created_by(), Some(concat!("causeway version ", env!("CARGO_PKG_VERSION"))));
    let root = metadata.file_metadata().schema_descr().root_schema();
    let ids: Vec<_> = root.get_fields().iter().map(|f| f.get_basic_info().id()).collect();
    assert_eq!(ids, [7, 2, 4, 9, 11]);
    let sorting = group.sorting_columns().unwrap();
    assert_eq!(sorting.iter().map(|s| s.column_idx).collect::<Vec<_>>(), [0, 1]);
    assert!(group.column(2).column_index_offset().is_some(), "pages have statistics");
    let pairs = metadata.file_metadata().key_value_metadata();
    assert!(pairs.is_none_or(|p| p.iter().all(|kv| kv.key != "ARROW:schema")));
}

#[test]
fn metrics_are_the_files_bounds_and_counts_by_field_id() {
    let (bytes, metadata) = encoded(&rows(&[("gpu-1", 5, 8), ("gpu-1", 6, 3), ("gpu-2", 1, -4)]));
    let metrics = metrics(&def(), &metadata);
    let bound = |bounds: &HashMap<i32, Datum>, id: i32| bounds[&id].clone();
    assert_eq!(bound(&metrics.lower_bounds, 7), Datum::string("gpu-1"));
    assert_eq!(bound(&metrics.upper_bounds, 7), Datum::string("gpu-2"));
    assert_eq!(bound(&metrics.lower_bounds, 2), Datum::timestamptz_micros(NEW_YEAR + 1));
    assert_eq!(bound(&metrics.upper_bounds, 2), Datum::timestamptz_micros(NEW_YEAR + 6));
    assert_eq!(bound(&metrics.lower_bounds, 4), Datum::long(-4i64));
    assert_eq!(bound(&metrics.upper_bounds, 9), Datum::double(4.0));
    assert_eq!((metrics.null_counts[&9], metrics.null_counts[&7], metrics.value_counts[&9]), (1, 0, 3));
    let sizes: u64 = metrics.column_sizes.values().sum();
    assert!(sizes > 0 && sizes < bytes.len() as u64);
    assert_eq!(metrics.split_offsets, [4], "one row group, after the magic number");
}

#[test]
fn long_strings_are_cut_to_bounds_that_still_hold() {
    let (low, high) = (format!("a{}", "x".repeat(200)), format!("z{}", "x".repeat(200)));
    let (_, metadata) = encoded(&rows(&[(&low, 0, 0), (&high, 0, 0)]));
    let metrics = metrics(&def(), &metadata);
    let text = |datum: &Datum| datum.to_human_string();
    let (lower, upper) = (text(&metrics.lower_bounds[&7]), text(&metrics.upper_bounds[&7]));
    assert!(lower.len() <= BOUND_BYTES && lower < low, "{lower}");
    assert!(upper.len() <= BOUND_BYTES && upper > high, "{upper}");
}

#[test]
fn a_column_of_nulls_has_a_count_and_no_bounds() {
    let (_, metadata) = encoded(&rows(&[("a", 0, 1), ("a", 1, 3)]));
    let metrics = metrics(&def(), &metadata);
    assert_eq!(metrics.null_counts[&9], 2);
    assert!(!metrics.lower_bounds.contains_key(&9) && !metrics.upper_bounds.contains_key(&9));
}

#[test]
fn bounds_span_row_groups() {
    let def = def();
    let small = properties(&def).unwrap().into_builder().set_max_row_group_row_count(Some(2)).build();
    let batch = rows(&[("a", 5, 1), ("a", 6, 3), ("b", 1, 9), ("b", 2, -9), ("c", 3, 4)]);
    let (_, metadata) = encode(&[batch], &def.arrow_schema(), &small).unwrap();
    let metrics = metrics(&def, &metadata);
    assert_eq!(metrics.split_offsets.len(), 3);
    assert_eq!(
        (metrics.lower_bounds[&4].clone(), metrics.upper_bounds[&4].clone()),
        (Datum::long(-9i64), Datum::long(9i64))
    );
    assert_eq!(metrics.lower_bounds[&9], Datum::double(2.0), "the groups of nulls do not count");
}
