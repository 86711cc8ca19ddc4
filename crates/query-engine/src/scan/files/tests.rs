//! Old files under new schemas, through DataFusion's real Parquet reader.

use std::collections::HashMap;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::physical_plan::FileScanConfigBuilder;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::{ObjectStoreExt, PutPayload};
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use tables::def::FIELD_ID_KEY;

use super::*;
use crate::scan::field_ids::FieldIds;

const FILE: &str = "silver/events/data/old.parquet";

fn column(id: i32, name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true).with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), id.to_string())]))
}

/// A file from before `dur` was renamed, `note` was dropped and made anew, and `bytes` was added.
fn old_file() -> Vec<u8> {
    let fields = vec![column(9, "note", DataType::Utf8), column(2, "dur", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields));
    let note: ArrayRef = Arc::new(StringArray::from(vec!["dropped", "too"]));
    let dur: ArrayRef = Arc::new(Int64Array::from(vec![7, 11]));
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, vec![note, dur]).unwrap()).unwrap();
    writer.close().unwrap();
    file
}

fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column(2, "duration_ns", DataType::Int64),
        column(3, "bytes", DataType::Int64),
        column(4, "note", DataType::Utf8View),
    ]))
}

async fn read(file: Vec<u8>) -> Result<Vec<RecordBatch>> {
    let context = SessionContext::new();
    let url = ObjectStoreUrl::parse("memory://lake").unwrap();
    let store = Arc::new(InMemory::new());
    let size = file.len() as u64;
    store.put(&FILE.into(), PutPayload::from(file)).await.unwrap();
    context.register_object_store(url.as_ref(), store);
    let source = Arc::new(NamedParquet::new(ParquetSource::new(table_schema())));
    let config = FileScanConfigBuilder::new(url, source)
        .with_file(PartitionedFile::new(FILE, size))
        .with_expr_adapter(Some(Arc::new(FieldIds)))
        .build();
    collect(DataSourceExec::from_data_source(config), context.task_ctx()).await
}

#[tokio::test]
async fn an_old_file_is_read_by_field_id() {
    let batches = read(old_file()).await.unwrap();
    let batch = &batches[0];
    assert_eq!(batch.schema().field(0).name(), "duration_ns");
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[7, 11]);
    assert_eq!(batch.column(1).null_count(), 2, "`bytes` is newer than the file");
    assert_eq!(batch.column(2).null_count(), 2, "`note` is another column of the same name");
}

#[tokio::test]
async fn a_torn_file_is_named_in_the_error() {
    let mut torn = old_file();
    torn.truncate(torn.len() / 2);
    let mut scrambled = old_file();
    let pages = 4..scrambled.len() / 3;
    scrambled[pages].fill(0xff);
    for file in [torn, scrambled, b"PAR1 this is no Parquet file PAR1".to_vec()] {
        let error = read(file).await.unwrap_err();
        let DataFusionError::External(inner) = &error else { panic!("{error}") };
        let Some(ScanError::Damaged { file, .. }) = inner.downcast_ref() else { panic!("{inner}") };
        assert_eq!(file, FILE);
    }
}

/// Files of other programs carry no checksum, and their readers panic over some of these.
#[tokio::test]
async fn no_end_of_a_file_makes_the_reader_panic() {
    let whole = old_file();
    let end = whole.len() - 8;
    let mut files: Vec<Vec<u8>> = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec()).collect();
    for length in [0, 1, 7, 0xff00, 0xffff, 0xffff_0000, u32::MAX] {
        let mut file = whole.clone();
        file[end..end + 4].copy_from_slice(&u32::to_le_bytes(length));
        files.push(file);
    }
    for (nth, file) in files.into_iter().enumerate() {
        let error = read(file).await.unwrap_err();
        let DataFusionError::External(inner) = &error else { panic!("file {nth}: {error}") };
        assert!(matches!(inner.downcast_ref(), Some(ScanError::Damaged { .. })), "file {nth}: {inner}");
    }
}

/// A store that is away says nothing about the file; one that has less of it, or nothing, does.
#[test]
fn a_file_is_not_called_damaged_because_its_store_is_away() {
    let generic = |text: &str| StoreError::Generic { store: "S3", source: text.into() };
    let through_parquet = |error: StoreError| {
        DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(DataFusionError::from(error)))))
    };
    let named = |error: DataFusionError| match name_file(&Arc::from(FILE), error) {
        DataFusionError::External(inner) => inner.to_string(),
        other => panic!("{other}"),
    };
    for wrap in [DataFusionError::from as fn(StoreError) -> DataFusionError, through_parquet] {
        assert_eq!(
            named(wrap(generic("503 Slow Down, bucket orange"))),
            format!("data file `{FILE}` cannot be fetched: Generic S3 error: 503 Slow Down, bucket orange")
        );
        let gone = StoreError::NotFound { path: FILE.to_owned(), source: "404".into() };
        assert_eq!(named(wrap(gone)), format!("data file `{FILE}` is damaged: the store does not have it"));
        assert_eq!(
            named(wrap(generic("416 Range Not Satisfiable"))),
            format!("data file `{FILE}` is damaged: it is shorter than the table records")
        );
    }
}
