//! Reads the Parquet files of a table so that every error names its file. DataFusion reports a broken page without its
//! location, which does not help in a lake of many thousand files. A file of another program may make a decoder panic;
//! this becomes an error that names the file as well.

mod reader;

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::object_store::{Error as StoreError, ObjectStore};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::file_stream::FileOpener;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use objects::Damage;

pub(crate) use reader::LakeReaders;

/// A data file that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The file does not hold what was written to it.
    #[error("data file `{file}` is damaged: {problem}")]
    Damaged {
        /// Path of the file below the warehouse.
        file: String,
        problem: String,
    },
    /// It lies in an archive class of S3.
    #[error("data file `{file}` is archived")]
    Archived { file: String },
    /// The store does not answer, is overloaded, or denies access. The file may be intact.
    #[error("data file `{file}` cannot be fetched: {problem}")]
    Away { file: String, problem: String },
}

fn name_file(file: &Arc<str>, source: DataFusionError) -> DataFusionError {
    // The memory limit of the query, which is no fault of the file.
    if matches!(source, DataFusionError::ResourcesExhausted(_)) {
        return source;
    }
    let file = file.to_string();
    // `objects` compares checksums as it reads, so that this cause is certain and says which bytes differ.
    if let Some(damage) = store_error(&source).and_then(|error| Damage::behind(error)) {
        return DataFusionError::External(Box::new(ScanError::Damaged { file, problem: damage.to_string() }));
    }
    let named = match store_error(&source).map(|error| (error, error.to_string())) {
        // The snapshot names the file, so that its absence is damage and not a matter of waiting.
        Some((StoreError::NotFound { .. }, _)) => {
            ScanError::Damaged { file, problem: "the store does not have it".to_owned() }
        }
        Some((error, _)) if objects::is_archived(error) => ScanError::Archived { file },
        // Reads stay within the size that the manifest records, so that the object itself has been truncated.
        Some((_, text)) if OUT_OF_RANGE.iter().any(|words| text.contains(words)) => {
            ScanError::Damaged { file, problem: "it is shorter than the table records".to_owned() }
        }
        Some((_, problem)) => ScanError::Away { file, problem },
        // The store has answered, so that the decoder rejected the content.
        None => ScanError::Damaged { file, problem: without_prefixes(&source.to_string()) },
    };
    DataFusionError::External(Box::new(named))
}

/// The error of a decoder that panicked. Its cause is unexpected content, unless checksums have shown that the content
/// is what was written.
fn panicked(file: &Arc<str>) -> DataFusionError {
    if objects::has_checksums(file) {
        return DataFusionError::Internal(format!("reading data file `{file}` failed because of a bug"));
    }
    let problem = "its content made the decoder fail".to_owned();
    DataFusionError::External(Box::new(ScanError::Damaged { file: file.to_string(), problem }))
}

/// Runs a step of reading a file; its errors and panics name the file.
fn named<T>(file: &Arc<str>, step: impl FnOnce() -> Result<T>) -> Result<T> {
    // Unwind safety: after a panic, the state of the step is dropped and not read again.
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(outcome) => outcome.map_err(|error| name_file(file, error)),
        Err(_) => Err(panicked(file)),
    }
}

/// Parts of the messages of stores for a range beyond the end of an object: of the local directory, the S3 error code,
/// and the reason phrase of HTTP status 416. `object_store` has no error variant for it.
const OUT_OF_RANGE: [&str; 3] = ["Out of range of file", "InvalidRange", "Range Not Satisfiable"];

/// The error of the store among the causes of an error, at any depth.
fn store_error(error: &DataFusionError) -> Option<&StoreError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The message without the prefixes that each layer adds to an error it passes on.
fn without_prefixes(text: &str) -> String {
    let mut rest = text.trim();
    while let Some(inner) =
        ["Parquet error: ", "External error: ", "Arrow error: "].iter().find_map(|p| rest.strip_prefix(p))
    {
        rest = inner;
    }
    rest.to_owned()
}

/// A [`ParquetSource`] whose errors are [`ScanError`]s (decorator). It delegates everything else to the inner source.
#[derive(Clone)]
pub(crate) struct NamedParquet {
    inner: Arc<dyn FileSource>,
}

impl NamedParquet {
    pub(crate) fn new(inner: ParquetSource) -> Self {
        Self { inner: Arc::new(inner) }
    }

    fn rewrap(inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner })
    }
}

impl FileSource for NamedParquet {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        // An error for Parquet, which DataFusion reads as morsels; only the trait demands it.
        self.inner.create_file_opener(object_store, base_config, partition)
    }

    fn create_morselizer(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let inner = self.inner.create_morselizer(object_store, base_config, partition)?;
        Ok(Box::new(NamedMorselizer { inner }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Self::rewrap(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(kind, f)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut pushed = self.inner.try_pushdown_filters(filters, config)?;
        // Every method that returns a source wraps it again: otherwise the optimizer would replace this one by the
        // inner source.
        pushed.updated_node = pushed.updated_node.map(Self::rewrap);
        Ok(pushed)
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_sort(order, properties)?.map(Self::rewrap))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    /// Accepts columns only. Expressions are computed above the scan, so that their errors are not attributed to a
    /// file.
    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        if !projection.iter().all(|column| column.expr.is::<Column>()) {
            return Ok(None);
        }
        Ok(self.inner.try_pushdown_projection(projection)?.map(Self::rewrap))
    }
}

#[derive(Debug)]
struct NamedMorselizer {
    inner: Box<dyn Morselizer>,
}

impl Morselizer for NamedMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        // A file passes through four steps, and each of them may fail or panic: the first plan, further plans, pending
        // input, and the stream of batches.
        let name: Arc<str> = file.object_meta.location.as_ref().into();
        let inner = named(&name, || self.inner.plan_file(file))?;
        Ok(Box::new(NamedPlanner { file: name, inner }))
    }
}

#[derive(Debug)]
struct NamedPlanner {
    file: Arc<str>,
    inner: Box<dyn MorselPlanner>,
}

impl NamedPlanner {
    fn wrap(file: &Arc<str>, inner: Box<dyn MorselPlanner>) -> Box<dyn MorselPlanner> {
        Box::new(Self { file: Arc::clone(file), inner })
    }
}

impl MorselPlanner for NamedPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { file, inner } = *self;
        let Some(mut plan) = named(&file, || inner.plan())? else {
            return Ok(None);
        };
        let morsels = plan.take_morsels().into_iter();
        let morsels = morsels.map(|inner| Box::new(NamedMorsel { file: Arc::clone(&file), inner }) as Box<dyn Morsel>);
        let planners = plan.take_ready_planners().into_iter().map(|inner| Self::wrap(&file, inner));
        let mut named = MorselPlan::new().with_morsels(morsels.collect()).with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            named.set_pending_planner(async move {
                // Input is read here, so that most errors of the store appear at this step.
                match AssertUnwindSafe(pending).catch_unwind().await {
                    Ok(Ok(inner)) => Ok(Self::wrap(&file, inner)),
                    Ok(Err(error)) => Err(name_file(&file, error)),
                    Err(_) => Err(panicked(&file)),
                }
            });
        }
        Ok(Some(named))
    }
}

#[derive(Debug)]
struct NamedMorsel {
    file: Arc<str>,
    inner: Box<dyn Morsel>,
}

impl Morsel for NamedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { file, inner } = *self;
        // `catch_unwind` ends the stream after a panic, so that a decoder in an undefined state is not polled again.
        let caught = AssertUnwindSafe(inner.into_stream()).catch_unwind();
        let batches = caught.map(move |batch| match batch {
            Ok(Ok(batch)) => Ok(batch),
            Ok(Err(error)) => Err(name_file(&file, error)),
            Err(_) => Err(panicked(&file)),
        });
        batches.boxed()
    }
}

#[cfg(test)]
mod tests;
