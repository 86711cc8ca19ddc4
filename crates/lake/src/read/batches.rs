//! The rows of one Parquet file as record batches of a snapshot's schema. Columns are found by field id, so renamed
//! columns read right and added ones read as nulls. Each failure that a damaged file causes, panics included, becomes
//! an error that names the file.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, TryFutureExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{ReadError, ScanFile};
use crate::table::schema::field_id;
use objects::{Store, StoreError};

/// Rows per batch of a scan.
pub(super) const BATCH_ROWS: usize = 16_384;
/// Read with the footer: large enough for the metadata of most files.
const FOOTER_HINT_BYTES: usize = 64 * 1024;

/// Reads byte ranges of one object.
struct ObjectReader {
    store: Store,
    file: Arc<ScanFile>,
}

impl ObjectReader {
    /// Stores report a range behind the end of an object in different words. The size of the object shows the cause.
    async fn explain(&self, error: StoreError) -> ParquetError {
        // The checksums have found the cause already.
        if matches!(error, StoreError::Damaged { .. }) {
            return ParquetError::External(Box::new(error));
        }
        let expected = self.file.size_bytes;
        match self.store.size(&self.file.location).await {
            Ok(found) if found != expected => {
                ParquetError::EOF(format!("it has {found} bytes instead of the {expected} that the table records"))
            }
            _ => ParquetError::External(Box::new(error)),
        }
    }
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let bytes = self.get_byte_ranges(vec![range]).await?;
            bytes.into_iter().next().ok_or_else(|| ParquetError::General("the store returned no bytes".into()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            match self.store.get_ranges(&self.file.location, &ranges).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(self.explain(error).await),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.file.size_bytes;
            // With the hint, one request instead of two: the length of the footer lies in its last eight bytes.
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_HINT_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}

/// The file's rows in the schema's columns, so many at once.
pub(super) fn read_file(
    store: Store,
    file: Arc<ScanFile>,
    schema: SchemaRef,
    batch_rows: usize,
) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
    let location = file.location.clone();
    let opened = open(store, file, schema, batch_rows).try_flatten_stream();
    // Decoders may panic on bytes that contradict the footer. Nothing is used after a panic, because the stream ends.
    let caught = AssertUnwindSafe(opened).catch_unwind();
    let named = caught.map(move |item| match item {
        Ok(result) => result.map_err(|error| named_error(&location, error)),
        Err(_) => Err(corrupt(&location, "its content made the decoder fail".to_owned())),
    });
    // The first error ends the stream: what a decoder returns after one is undefined.
    let ended = named.scan(false, |failed, item| {
        let before = std::mem::replace(failed, item.is_err());
        std::future::ready((!before).then_some(item))
    });
    ended.boxed()
}

fn corrupt(location: &str, problem: String) -> ReadError {
    ReadError::CorruptFile { location: location.to_owned(), problem }
}

/// A store that did not answer is not a damaged file.
fn named_error(location: &str, error: ParquetError) -> ReadError {
    match error {
        ParquetError::External(source) => match source.downcast::<StoreError>() {
            Ok(store) => match *store {
                StoreError::Damaged { problem, .. } => corrupt(location, problem.to_string()),
                other => ReadError::Store(other),
            },
            Err(other) => corrupt(location, other.to_string()),
        },
        other => corrupt(location, other.to_string()),
    }
}

type Batches = BoxStream<'static, Result<RecordBatch, ParquetError>>;

async fn open(
    store: Store,
    file: Arc<ScanFile>,
    schema: SchemaRef,
    batch_rows: usize,
) -> Result<Batches, ParquetError> {
    let builder = ParquetRecordBatchStreamBuilder::new(ObjectReader { store, file }).await?;
    // By field id and not by name (Iceberg spec, "Column Projection").
    let in_file: Vec<Option<i32>> = builder.schema().fields().iter().map(|field| field_id(field)).collect();
    let wanted: Vec<Option<i32>> = schema.fields().iter().map(|field| field_id(field)).collect();
    let roots = (0..in_file.len()).filter(|i| in_file[*i].is_some() && wanted.contains(&in_file[*i]));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.clone());
    // The reader returns the projected columns in the order of the file.
    let read: Vec<Option<i32>> = roots.map(|i| in_file[i]).collect();
    let positions: Vec<Option<usize>> = wanted.iter().map(|id| read.iter().position(|other| other == id)).collect();
    let rows = builder.with_projection(mask).with_batch_size(batch_rows).build()?;
    Ok(rows.map(move |batch| shape(&batch?, &positions, &schema)).boxed())
}

/// Puts the file's columns into the order, types and names of the snapshot's schema.
fn shape(batch: &RecordBatch, positions: &[Option<usize>], schema: &SchemaRef) -> Result<RecordBatch, ParquetError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(positions.len());
    for (field, position) in schema.fields().iter().zip(positions) {
        columns.push(match position {
            // A file from before a column was widened has the narrower type.
            Some(position) => arrow::compute::cast(batch.column(*position), field.data_type())?,
            // The column was added after the file was written.
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    // Keeps the number of rows if the schema has no columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
