use std::sync::Arc;

use axum::http::HeaderValue;
use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn accept(value: &'static str) -> Option<Format> {
    Format::accepted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]))
}

#[test]
fn accept_chooses_the_first_form_we_have() {
    assert_eq!(Format::accepted(&HeaderMap::new()), Some(Format::Json));
    assert_eq!(accept("*/*"), Some(Format::Json));
    assert_eq!(accept("image/png, text/csv;q=0.9, application/json"), Some(Format::Csv));
    assert_eq!(accept("application/vnd.apache.arrow.stream"), Some(Format::Arrow));
    assert_eq!(accept("image/png"), None);
}

fn batch() -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a,\"b\""), Some("")]));
    RecordBatch::try_from_iter([("n", n), ("say", text)]).unwrap()
}

fn encoded(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = Encoder::new(format, &batch().schema()).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend_from_slice(&encoder.batch(batch).unwrap());
    }
    bytes.extend_from_slice(&encoder.finish().unwrap());
    bytes
}

#[test]
fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
    assert_eq!(encoded(Format::Csv, &[batch()]), b"n,say\r\n1,\"a,\"\"b\"\"\"\r\n,\"\"\r\n");
    assert_eq!(encoded(Format::Csv, &[]), b"n,say\r\n");
}

#[test]
fn ndjson_has_one_object_per_row() {
    assert_eq!(encoded(Format::Ndjson, &[batch()]), b"{\"n\":1,\"say\":\"a,\\\"b\\\"\"}\n{\"n\":null,\"say\":\"\"}\n");
}

#[test]
fn arrow_and_parquet_pieces_put_together_are_read_back_whole() {
    let batches = [batch(), batch()];
    let arrow = encoded(Format::Arrow, &batches);
    let read: Vec<RecordBatch> = StreamReader::try_new(arrow.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, batches);
    let parquet = Bytes::from(encoded(Format::Parquet, &batches));
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
}
