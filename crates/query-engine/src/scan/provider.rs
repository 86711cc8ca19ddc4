//! A table of the lake as a DataFusion table: one pinned snapshot, pruned by manifests, partitions and file bounds
//! before any data is read. It has the exact statistics of the manifests, so that `count(*)`, `min` and `max` without a
//! condition read no data.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ToDFSchema};
use datafusion::datasource::TableType;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::ObjectMeta;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_datasource::{PartitionedFile, compute_all_files_statistics};
use lake::{ScanFile, TableSnapshot};

use crate::sandbox::values;
use crate::scan::field_ids::FieldIds;
use crate::scan::files::{LakeReaders, NamedParquet};
use crate::scan::narrowing::{About, Scans};
use crate::scan::scope::is_dimension;
use crate::scan::{pruning, statistics};
use crate::session::warehouse_url;

/// Bytes at the end of a file that are fetched first: the footer, and in most files the page index, in one request.
const FOOTER_HINT_BYTES: usize = 64 << 10;

/// One snapshot of one table.
#[derive(Debug)]
pub(crate) struct LakeTable {
    snapshot: Arc<TableSnapshot>,
    schema: SchemaRef,
    /// The scans of the statement; `None` when the table has no nodes, because completeness is reported per node.
    scans: Option<Arc<Scans>>,
}

impl LakeTable {
    pub(crate) fn new(snapshot: Arc<TableSnapshot>, scans: &Arc<Scans>) -> Self {
        let schema = with_views(snapshot.schema());
        // Completeness is about the nodes to which all scans are restricted. A table without nodes would lift the
        // restriction.
        let scans = schema.field_with_name("node").is_ok().then(|| Arc::clone(scans));
        Self { snapshot, schema, scans }
    }

    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        // A cast to or from text changes the order of values, so that bounds of the column are no bounds of the cast.
        let schema = Arc::clone(&self.schema).to_dfschema()?;
        let filters = filters.iter().map(|filter| values::unordered_casts_hidden(filter.clone(), &schema));
        let Some(filter) = conjunction(filters.collect::<Result<Vec<_>>>()?) else {
            return Ok(None);
        };
        state.create_physical_expr(filter, &schema).map(Some)
    }

    async fn files(&self, predicate: Option<Arc<dyn PhysicalExpr>>, filters: &[Expr]) -> Result<Vec<Arc<ScanFile>>> {
        // Two stages: ranges exclude manifests and partitions in the lake, then the whole predicate excludes files by
        // bounds.
        let ranges = pruning::ranges(filters, &self.schema);
        if let Some(scans) = &self.scans {
            let is_dimension = is_dimension(self.snapshot.ident());
            scans.note(filters, &ranges, if is_dimension { About::Dimension } else { About::Events });
        }
        // `External`, so that `classify` recovers the error of the lake by a downcast.
        let files = self.snapshot.plan(&ranges).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        match predicate {
            Some(predicate) => pruning::prune(files, predicate, &self.schema),
            None => Ok(files),
        }
    }

    fn partitioned(&self, file: &ScanFile) -> PartitionedFile {
        let meta = ObjectMeta {
            location: file.path.clone(),
            // The cache of footers compares size and time of an object. Files are not altered once written (Iceberg
            // spec, File System Operations), so that a constant time is right, and saves a request for the real one.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: file.size_bytes,
            e_tag: None,
            version: None,
        };
        PartitionedFile::new_from_meta(meta)
            .with_metadata_size_hint(FOOTER_HINT_BYTES)
            .with_statistics(Arc::new(statistics::of(file, &self.schema)))
    }
}

/// The schema with texts and bytes as views (`Utf8View`, `BinaryView`), which the engine compares and groups fastest.
pub(crate) fn with_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Dictionary(_, _) | DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
            DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(kind)
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters exclude files, row groups and pages only. A filter operator above the scan decides on each row.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // `Inexact` also makes the statistics inexact above the filter, so that no count of a filtered scan comes from
        // them.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = self.predicate(state, filters)?;
        let files = self.files(predicate.clone(), filters).await?;
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let files: Vec<PartitionedFile> = files.iter().map(|file| self.partitioned(file)).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        // `false`: the statistics stay exact. The files left out hold no row of the answer, and the others are counted
        // whole.
        let (groups, statistics) = compute_all_files_statistics(groups, self.schema(), true, false)?;
        let config = self
            .reading(state)?
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl LakeTable {
    /// A scan of the table, of which the files, the columns and the limit are left open.
    fn reading(&self, state: &dyn Session) -> Result<FileScanConfigBuilder> {
        let url = warehouse_url()?;
        let runtime = state.runtime_env();
        let readers = LakeReaders::new(runtime.object_store(&url)?, runtime.cache_manager.get_file_metadata_cache());
        let source = ParquetSource::new(self.schema())
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(Arc::new(readers));
        let builder = FileScanConfigBuilder::new(url, Arc::new(NamedParquet::new(source)));
        // Iceberg maps columns by field id, DataFusion by name.
        Ok(builder.with_expr_adapter(Some(Arc::new(FieldIds))))
    }
}
