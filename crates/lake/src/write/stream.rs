//! Data files larger than memory: sorted inputs are merged, and row groups are encoded, sealed and uploaded as they
//! fill. A file that has its rows is completed and the next one begun. Other files are encoded whole (`sink`),
//! which costs one request instead of many.

use std::mem::take;

use ::parquet::arrow::arrow_writer::ArrowWriter;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use iceberg::spec::DataFile;
use objects::{Sealer, Tags, Upload, UploadError};
use tables::def::TableName;

use super::fold::{FoldRows, Folding};
use super::merge::{Merge, Refused};
use super::sink::FileWriter;
use super::{WriteError, parquet, partition};
use crate::read::ReadError;

/// Rows of one partition in the table's sort order, ascending, nulls first. Ends at its first error.
pub type SortedRows = BoxStream<'static, Result<RecordBatch, ReadError>>;

/// Share of the memory that batches of the inputs may take: a half.
const INPUT_SHARE: usize = 2;
/// Share of the memory that a row group may take: an eighth. Three of them exist at once, the one that fills, its
/// encoded copy, and the one before it on its way to the store; encoders keep about one more.
const ROW_GROUP_SHARE: usize = 8;

/// How sorted inputs become data files.
#[derive(Debug, Clone, Copy)]
pub struct MergeOptions {
    /// What the merge may take, bytes: half of it for a batch of each input.
    pub memory_bytes: usize,
    /// A file that has so many rows is completed, and what follows goes to the next one. By rows and not by bytes, so
    /// that the number of files is known before.
    pub file_rows: u64,
    /// Makes fewer rows of those with equal sort keys; a table without a sort order is not folded.
    pub fold: Option<FoldRows>,
}

/// Why sorted inputs did not become a data file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    #[error("cannot read input {input} of a merge for table {table}")]
    Input { table: TableName, input: usize, source: ReadError },
    #[error("input {input} of a merge for table {table} is not in the table's sort order")]
    NotSorted { table: TableName, input: usize },
    #[error(
        "input {input} of a merge for table {table} has rows of another day than the rows before it: merge one day at a time"
    )]
    OtherDay { table: TableName, input: usize },
    #[error(
        "the inputs of a merge for table {table} need {needed_bytes} bytes and may take {allowed_bytes}: merge fewer inputs at a \
         time, read them in smaller batches, or give the merge more memory"
    )]
    Memory { table: TableName, needed_bytes: usize, allowed_bytes: usize },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl MergeError {
    /// The same merge may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Write(error) => error.is_transient(),
            Self::Upload(error) => error.is_transient(),
            Self::Input { source, .. } => source.is_transient(),
            Self::NotSorted { .. } | Self::OtherDay { .. } | Self::Memory { .. } => false,
        }
    }
}

impl FileWriter {
    /// Merges sorted inputs into uploaded data files; none when they have no rows.
    pub(crate) async fn merge(
        &self,
        inputs: Vec<SortedRows>,
        options: MergeOptions,
    ) -> Result<Vec<DataFile>, MergeError> {
        let merged = MergedRows::new(self, inputs, options.memory_bytes / INPUT_SHARE)?;
        let mut rows = FoldedRows::new(merged, options.fold)?;
        let mut files = Vec::new();
        // Before anything is created: without rows there is no upload to abort, and the location contains their day.
        while let Some(first) = rows.next().await? {
            files.push(self.stream(first, &mut rows, &options).await?);
        }
        Ok(files)
    }

    /// Writes one file: the first rows and what follows them, until it has its rows.
    async fn stream(
        &self,
        first: RecordBatch,
        rows: &mut FoldedRows<'_>,
        options: &MergeOptions,
    ) -> Result<DataFile, MergeError> {
        let sealer = Sealer::new(self.new_id());
        let day = rows.merged.day;
        let location = self.new_location(sealer.name(), day);
        let writer = self.row_groups(options.memory_bytes / ROW_GROUP_SHARE)?;
        let upload = self.store().upload(&location, &Tags::default()).await?;
        let mut file = FileStream { table: self.table(), writer, sealer, upload };
        let mut batch = Some(first);
        let mut written = 0;
        while let Some(merged) = batch {
            file = file.write(&merged).await?;
            written += merged.num_rows() as u64;
            if written >= options.file_rows {
                break;
            }
            batch = match rows.next().await {
                Ok(next) => next,
                Err(error) => {
                    // Steps of the upload abort it themselves; an error of an input does not.
                    file.upload.abort().await;
                    return Err(error);
                }
            };
        }
        let (metadata, size_bytes) = file.finish().await?;
        Ok(self.describe(location, day, &metadata, size_bytes)?)
    }

    /// A Parquet writer whose row groups have at most so many bytes.
    fn row_groups(&self, bytes: usize) -> Result<ArrowWriter<Vec<u8>>, WriteError> {
        let properties = self.properties()?;
        // Below the limit of all files. Zero would panic in the builder.
        let bytes = bytes.clamp(1, properties.max_row_group_bytes().unwrap_or(usize::MAX));
        let properties = properties.into_builder().set_max_row_group_bytes(Some(bytes)).build();
        parquet::writer(Vec::new(), self.schema(), &properties).map_err(|e| self.encode_error(e))
    }

    /// The day of a batch; `None` in an unpartitioned table.
    fn day_of(&self, input: usize, batch: &RecordBatch) -> Result<Option<i32>, MergeError> {
        let mut days = partition::Days::new();
        self.split(batch, &mut days)?;
        match days.len() {
            0 | 1 => Ok(days.into_keys().next()),
            _ => Err(MergeError::OtherDay { table: self.table(), input }),
        }
    }
}

/// The rows of all inputs in their order.
struct MergedRows<'a> {
    writer: &'a FileWriter,
    inputs: Vec<SortedRows>,
    merge: Merge,
    allowed_bytes: usize,
    /// Of the first rows.
    day: Option<i32>,
    is_begun: bool,
}

impl<'a> MergedRows<'a> {
    fn new(writer: &'a FileWriter, inputs: Vec<SortedRows>, allowed_bytes: usize) -> Result<Self, WriteError> {
        let merge = Merge::new(writer.schema(), writer.sort_columns(), inputs.len());
        let merge = merge.map_err(|e| writer.rows_error(e))?;
        Ok(Self { writer, inputs, merge, allowed_bytes, day: None, is_begun: false })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, MergeError> {
        while let Some(input) = self.merge.wanted() {
            match self.inputs[input].next().await {
                None => self.merge.end(input),
                Some(Ok(batch)) => self.give(input, &batch)?,
                Some(Err(source)) => return Err(MergeError::Input { table: self.writer.table(), input, source }),
            }
        }
        Ok(self.merge.next().map_err(|e| self.writer.rows_error(e))?)
    }

    fn give(&mut self, input: usize, batch: &RecordBatch) -> Result<(), MergeError> {
        let table = self.writer.table();
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.writer.fit(batch)?;
        let day = self.writer.day_of(input, &batch)?;
        if self.is_begun && day != self.day {
            return Err(MergeError::OtherDay { table, input });
        }
        self.day = day;
        self.is_begun = true;
        match self.merge.give(input, batch) {
            Ok(()) => {}
            Err(Refused::NotSorted) => return Err(MergeError::NotSorted { table, input }),
            Err(Refused::Keys(source)) => return Err(self.writer.rows_error(source).into()),
        }
        // After the merge has taken the batch, because its keys count too.
        let needed_bytes = self.merge.memory_bytes();
        if needed_bytes > self.allowed_bytes {
            return Err(MergeError::Memory { table, needed_bytes, allowed_bytes: self.allowed_bytes });
        }
        Ok(())
    }
}

/// Merged rows, of which those with equal keys are folded.
struct FoldedRows<'a> {
    merged: MergedRows<'a>,
    folding: Option<Folding>,
}

impl<'a> FoldedRows<'a> {
    fn new(merged: MergedRows<'a>, fold: Option<FoldRows>) -> Result<Self, WriteError> {
        let writer = merged.writer;
        let fold = fold.filter(|_| !writer.sort_columns().is_empty());
        let folding = fold.map(|fold| Folding::new(fold, writer.schema(), writer.sort_columns())).transpose();
        Ok(Self { folding: folding.map_err(|e| writer.rows_error(e))?, merged })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, MergeError> {
        loop {
            let merged = self.merged.next().await?;
            let Some(folding) = &mut self.folding else { return Ok(merged) };
            let is_last = merged.is_none();
            let folded = match merged {
                Some(batch) => folding.push(batch),
                None => folding.finish(),
            };
            let folded = folded.map_err(|e| self.merged.writer.rows_error(e))?;
            // Rows of a key that goes on in the next batch are held back, so that a step may return none.
            if is_last || folded.is_some() {
                return Ok(folded);
            }
        }
    }
}

/// A data file that is being written. A step that fails aborts the upload.
struct FileStream {
    table: TableName,
    writer: ArrowWriter<Vec<u8>>,
    sealer: Sealer,
    upload: Upload,
}

impl FileStream {
    async fn write(mut self, rows: &RecordBatch) -> Result<Self, MergeError> {
        match encoded(&mut self.writer, |writer| writer.write(rows)) {
            Ok((bytes, ())) => self.send(bytes).await,
            Err(source) => Err(self.fail(source).await),
        }
    }

    /// The metadata of the complete file, and its size in bytes.
    async fn finish(mut self) -> Result<(ParquetMetaData, u64), MergeError> {
        self = match encoded(&mut self.writer, ArrowWriter::flush) {
            Ok((bytes, ())) => self.send(bytes).await?,
            Err(source) => return Err(self.fail(source).await),
        };
        // What comes behind the last row group: page indexes and footer. The checksums go in between.
        let (tail, metadata) = match encoded(&mut self.writer, ArrowWriter::finish) {
            Ok(tail) => tail,
            Err(source) => return Err(self.fail(source).await),
        };
        match self.sealer.finish(tail) {
            Ok(end) => Ok((metadata, self.upload.write(end).await?.finish().await?)),
            Err(source) => {
                self.upload.abort().await;
                Err(WriteError::Seal { table: self.table, source }.into())
            }
        }
    }

    async fn send(mut self, bytes: Vec<u8>) -> Result<Self, MergeError> {
        if !bytes.is_empty() {
            // Only row groups pass here: the footer goes to `Sealer::finish`.
            self.sealer.push(&bytes);
            self.upload = self.upload.write(Bytes::from(bytes)).await?;
        }
        Ok(self)
    }

    async fn fail(self, source: ParquetError) -> MergeError {
        self.upload.abort().await;
        WriteError::Encode { table: self.table, source }.into()
    }
}

/// Runs a step of the writer. Returns the bytes of the file that it completed.
fn encoded<T>(
    writer: &mut ArrowWriter<Vec<u8>>,
    step: impl FnOnce(&mut ArrowWriter<Vec<u8>>) -> Result<T, ParquetError>,
) -> Result<(Vec<u8>, T), ParquetError> {
    let result = step(writer)?;
    // Flushes the writer's buffer, so that the vector has all bytes so far.
    writer.sync()?;
    // Emptying the vector leaves offsets right: the writer counts bytes itself (`TrackedWrite`).
    Ok((take(writer.inner_mut()), result))
}

#[cfg(test)]
mod tests;
