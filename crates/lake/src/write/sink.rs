//! From batches to uploaded data files: the steps of this module's neighbours in order, and the files' names.

use std::sync::Arc;

use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal, Struct, TableMetadata,
};
use tables::def::{Partition, TableDef, TableName};
use uuid::Uuid;

use super::{WriteError, column_position, order, parquet, partition};
use crate::environment::Environment;
use crate::table::schema;
use objects::Store;

/// Files of one batch that are uploaded at the same time: one per day, which is one or two unless an import spans
/// months.
const UPLOADS_AT_ONCE: usize = 16;

/// A Parquet file in memory, named but not uploaded.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    bytes: Bytes,
    file: DataFile,
}

impl EncodedFile {
    /// What the manifests will record of the file: location, rows, bytes, metrics.
    pub fn data_file(&self) -> &DataFile {
        &self.file
    }
}

/// Makes the data files of one table.
#[derive(Debug)]
pub(crate) struct FileWriter {
    def: TableDef,
    schema: SchemaRef,
    location: String,
    spec_id: i32,
    sort_order_id: Option<i32>,
    /// Position of the column rows are split by.
    day_column: Option<(usize, &'static str)>,
    sort_columns: Vec<usize>,
    store: Store,
    environment: Environment,
}

impl FileWriter {
    pub(crate) fn new(def: &TableDef, metadata: &TableMetadata, store: Store, environment: Environment) -> Self {
        let day_column = match def.partition {
            Partition::Day(column) => column_position(def, column).map(|i| (i, column)),
            Partition::Unpartitioned => None,
        };
        Self {
            schema: def.arrow_schema(),
            location: metadata.location().trim_end_matches('/').to_owned(),
            spec_id: metadata.default_partition_spec_id(),
            sort_order_id: schema::sort_order_id(def, metadata),
            day_column,
            sort_columns: def.sort.iter().filter_map(|name| column_position(def, name)).collect(),
            def: def.clone(),
            store,
            environment,
        }
    }

    pub(super) fn table(&self) -> TableName {
        self.def.name
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The table's sort order that its files are in; `None` when the table has none that fits.
    pub(crate) fn sort_order_id(&self) -> Option<i32> {
        self.sort_order_id
    }

    pub(super) fn sort_columns(&self) -> &[usize] {
        &self.sort_columns
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// An id for the name of a new file.
    pub(super) fn new_id(&self) -> Uuid {
        (self.environment.new_id)()
    }

    pub(super) fn properties(&self) -> Result<WriterProperties, WriteError> {
        parquet::properties(&self.def).map_err(|e| self.encode_error(e))
    }

    pub(crate) fn encode(&self, batches: Vec<RecordBatch>) -> Result<Vec<EncodedFile>, WriteError> {
        let mut days = partition::Days::new();
        let mut rest = Vec::new();
        for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
            let batch = self.fit(&batch)?;
            match self.day_column {
                None => rest.push(batch),
                Some(_) => self.split(&batch, &mut days)?,
            }
        }
        if rest.is_empty() && days.is_empty() {
            return Ok(Vec::new());
        }
        let properties = self.properties()?;
        let rest = (!rest.is_empty()).then_some((None, rest));
        let parts = days.into_iter().map(|(day, rows)| (Some(day), rows)).chain(rest);
        parts.map(|(day, rows)| self.encode_part(day, rows, &properties)).collect()
    }

    /// Adds the batch's rows to their days, if the table is partitioned by day.
    pub(super) fn split(&self, batch: &RecordBatch, days: &mut partition::Days) -> Result<(), WriteError> {
        match self.day_column {
            None => Ok(()),
            Some((i, column)) if !partition::is_splittable(batch.column(i)) => {
                Err(WriteError::NoDay { table: self.def.name, column })
            }
            Some((i, _)) => partition::split(batch, i, days).map_err(|e| self.rows_error(e)),
        }
    }

    /// The batch with the table's columns, in the table's order and types.
    pub(super) fn fit(&self, batch: &RecordBatch) -> Result<RecordBatch, WriteError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.def.columns.len());
        for (column, field) in self.def.columns.iter().zip(self.schema.fields()) {
            let Some(array) = batch.column_by_name(column.name) else {
                return Err(WriteError::MissingColumn { table: self.def.name, column: column.name });
            };
            columns.push(if array.data_type() == field.data_type() {
                Arc::clone(array)
            } else {
                arrow::compute::cast(array, field.data_type()).map_err(|e| self.rows_error(e))?
            });
        }
        // Also refuses nulls in required columns, which the schema declares as not nullable.
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| self.rows_error(e))
    }

    /// The rows in the table's sort order, whatever day they are of.
    pub(crate) fn sort(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, WriteError> {
        let fitting = batches.iter().map(|batch| self.fit(batch)).collect::<Result<Vec<_>, _>>()?;
        order::sort(fitting, &self.sort_columns).map_err(|e| self.rows_error(e))
    }

    fn encode_part(
        &self,
        day: Option<i32>,
        rows: Vec<RecordBatch>,
        properties: &WriterProperties,
    ) -> Result<EncodedFile, WriteError> {
        let rows = order::sort(rows, &self.sort_columns).map_err(|e| self.rows_error(e))?;
        let (bytes, metadata) = parquet::encode(&rows, &self.schema, properties).map_err(|e| self.encode_error(e))?;
        // Sealed before it is named, because the name holds the checksum.
        let sealed = objects::seal(self.new_id(), bytes);
        let (id, bytes) = sealed.map_err(|source| WriteError::Seal { table: self.def.name, source })?;
        let file = self.describe(self.new_location(id, day), day, &metadata, bytes.len() as u64)?;
        Ok(EncodedFile { bytes, file })
    }

    /// What the manifests will record of a file with this Parquet metadata.
    pub(super) fn describe(
        &self,
        location: String,
        day: Option<i32>,
        metadata: &ParquetMetaData,
        size_bytes: u64,
    ) -> Result<DataFile, WriteError> {
        let mut file = DataFileBuilder::default();
        file.content(DataContentType::Data)
            .file_path(location)
            .file_format(DataFileFormat::Parquet)
            // The day transform yields a date (Iceberg spec, "Partition Transforms").
            .partition(day.map(|day| Some(Literal::date(day))).into_iter().collect::<Struct>())
            .partition_spec_id(self.spec_id)
            .record_count(metadata.file_metadata().num_rows().unsigned_abs())
            .file_size_in_bytes(size_bytes);
        parquet::metrics(&self.def, metadata).describe(&mut file);
        if let Some(id) = self.sort_order_id {
            file.sort_order_id(id);
        }
        file.build().map_err(|error| WriteError::Describe { table: self.def.name, problem: error.to_string() })
    }

    /// `data/<hash>/<partition>/<id>.parquet`: the hash in front spreads files over 256 prefixes, because S3
    /// limits the requests per second of each.
    pub(super) fn new_location(&self, id: Uuid, day: Option<i32>) -> String {
        let hash = crc32c::crc32c(id.as_bytes()) & 0xff;
        let partition = match (day, self.day_column) {
            (Some(day), Some((_, column))) => format!("{column}_day={}/", Datum::date(day)),
            _ => String::new(),
        };
        format!("{}/data/{hash:02x}/{partition}{id}.parquet", self.location)
    }

    pub(crate) async fn upload(&self, files: Vec<EncodedFile>) -> Result<Vec<DataFile>, WriteError> {
        let puts = files.into_iter().map(|file| async move {
            self.store.put(file.file.file_path(), file.bytes).await?;
            Ok(file.file)
        });
        // After an error, files that were uploaded already are orphans: no manifest names them.
        stream::iter(puts).buffered(UPLOADS_AT_ONCE).try_collect().await
    }

    pub(super) fn rows_error(&self, source: arrow::error::ArrowError) -> WriteError {
        WriteError::Rows { table: self.def.name, source }
    }

    pub(super) fn encode_error(&self, source: ::parquet::errors::ParquetError) -> WriteError {
        WriteError::Encode { table: self.def.name, source }
    }
}

#[cfg(test)]
mod tests;
