use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::reader::StreamReader;
use axum::http::HeaderValue;
use axum::http::header::ACCEPT;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn accept(value: &'static str) -> Option<Format> {
    Format::accepted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]))
}

#[test]
fn accept_chooses_the_form_that_is_wanted_most() {
    assert_eq!(Format::accepted(&HeaderMap::new()), Some(Format::Json));
    for (header, format) in [
        ("", Some(Format::Json)),
        ("*/*", Some(Format::Json)),
        ("text/*", Some(Format::Csv)),
        ("application/*", Some(Format::Json)),
        ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
        ("APPLICATION/NDJSON", Some(Format::Ndjson)),
        ("application/json;q=0.1, text/csv", Some(Format::Csv)),
        ("image/png, text/csv;q=0.9, application/json", Some(Format::Json)),
        ("text/csv;q=0.5, application/x-ndjson;q=0.51", Some(Format::Ndjson)),
        ("text/csv, application/json", Some(Format::Csv)),
        ("*/*, text/csv", Some(Format::Csv)),
        ("*/*;q=0.1, text/csv;q=0.05", Some(Format::Json)),
        ("application/json;q=0, */*;q=0.5", Some(Format::Ndjson)),
        ("text/csv;header=present;q=1.0, application/json;q=0.999", Some(Format::Csv)),
        ("text/csv ; q=0.3 , application/jsonl ; q=0.4", Some(Format::Ndjson)),
        ("text/csv;q=0", None),
        ("image/png", None),
        ("image/png, text/csv;q=2", None),
        ("nonsense", None),
        ("text/csv;q=nan, application/json;q=0.2", Some(Format::Json)),
    ] {
        assert_eq!(accept(header), format, "{header}");
    }
    let two =
        [(ACCEPT, HeaderValue::from_static("text/csv;q=0.2")), (ACCEPT, HeaderValue::from_static("application/json"))];
    let mut headers = HeaderMap::new();
    for (name, value) in two {
        headers.append(name, value);
    }
    assert_eq!(Format::accepted(&headers), Some(Format::Json), "a header may come in several lines");
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

#[test]
fn a_null_alone_in_its_row_is_a_row_to_readers_of_csv() {
    let alone: ArrayRef = Arc::new(StringArray::from(vec![None, Some("x"), Some(""), None]));
    let alone = RecordBatch::try_from_iter([("comm", alone)]).unwrap();
    let mut encoder = Encoder::new(Format::Csv, &alone.schema()).unwrap();
    assert_eq!(encoder.batch(&alone).unwrap(), "comm\r\n\"\"\r\nx\r\n\"\"\r\n\"\"\r\n");
    let n: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(0)]));
    let m: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
    let pair = RecordBatch::try_from_iter([("n", n), ("m", m)]).unwrap();
    let mut encoder = Encoder::new(Format::Csv, &pair.schema()).unwrap();
    assert_eq!(encoder.batch(&pair).unwrap(), "n,m\r\n,\r\n0,\r\n");
}

#[test]
fn columns_of_one_name_are_told_apart_where_values_go_by_name() {
    let names = |given: &[&str]| unique_names(given.iter().copied());
    assert_eq!(names(&["node", "n", "node"]), ["node", "n", "node_1"]);
    assert_eq!(names(&["a", "a", "a_1", "a"]), ["a", "a_2", "a_1", "a_3"]);
    assert_eq!(names(&["", "", "A", "a"]), ["", "_1", "A", "a"]);
    let column = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let field = || Field::new("node", DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![field(), field()]));
    let both = RecordBatch::try_new(Arc::clone(&schema), vec![column(1), column(2)]).unwrap();
    let encoded = |format| {
        let mut encoder = Encoder::new(format, &schema).unwrap();
        let mut bytes = encoder.batch(&both).unwrap().to_vec();
        bytes.extend_from_slice(&encoder.finish().unwrap());
        bytes
    };
    assert_eq!(encoded(Format::Ndjson), b"{\"node\":1,\"node_1\":2}\n");
    let parquet = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(encoded(Format::Parquet))).unwrap();
    let of = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    assert_eq!(of(parquet.schema()), ["node", "node_1"]);
    let arrow = encoded(Format::Arrow);
    assert_eq!(of(&StreamReader::try_new(arrow.as_slice(), None).unwrap().schema()), ["node", "node_1"]);
}
