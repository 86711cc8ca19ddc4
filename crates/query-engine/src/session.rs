//! The DataFusion session of one query: settings, allowed functions, a limit of memory, and an object store registry
//! that holds the warehouse and nothing else, so that no statement can read a path or an address outside it.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::object_store::ObjectStore;
use datafusion::prelude::SessionConfig;
use url::Url;

use crate::names::{CATALOG, DEFAULT_SCHEMA};
use crate::sandbox::functions;
use crate::sandbox::functions::concat::ConcatPlanner;
use crate::sandbox::limits::Limits;
use crate::sandbox::phase::Phase;
use crate::sandbox::rules;
use crate::zone::LAKE_ZONE;

/// The address of the warehouse inside the engine. It has no meaning outside of it.
const WAREHOUSE: &str = "warehouse://lake/";

/// The tables of one query by schema and name.
pub(crate) type Tables = HashMap<(String, String), Arc<dyn TableProvider>>;

/// Creates the session of each query from one template.
pub(crate) struct Sessions {
    template: SessionState,
    shared: Arc<RuntimeEnv>,
    memory_bytes: usize,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("memory_bytes", &self.memory_bytes).finish_non_exhaustive()
    }
}

impl Sessions {
    /// # Errors
    /// The directory of temporary files cannot be used.
    pub(crate) fn new(warehouse: Arc<dyn ObjectStore>, limits: &Limits, partitions: usize) -> Result<Self> {
        // One limit for the spill files of all queries: sessions share this runtime and its disk manager.
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::OsTmpDirectory)
            .with_max_temp_directory_size(limits.spill_bytes);
        let shared = RuntimeEnvBuilder::new()
            .with_object_store_registry(Arc::new(WarehouseOnly { warehouse }))
            .with_disk_manager_builder(disk)
            // Footers of data files, for all queries. DataFusion's default is 50 MiB.
            .with_metadata_cache_limit(256 << 20)
            .build_arc()?;
        let template = SessionStateBuilder::new()
            .with_config(config(partitions))
            .with_analyzer_rules(crate::sandbox::values::analyzer_rules())
            .with_query_planner(Arc::new(crate::sandbox::values::GuardedPlanner))
            .with_runtime_env(Arc::clone(&shared))
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(crate::sandbox::values::scalar_functions(functions::scalar_functions()))
            .with_aggregate_functions(crate::sandbox::values::aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_table_functions(functions::table_functions())
            .with_optimizer_rules(rules::logical())
            .build();
        Ok(Self { template, shared, memory_bytes: limits.memory_bytes })
    }

    /// A session with these tables and its own limit of memory.
    pub(crate) fn open(&self, tables: Tables) -> Result<SessionState> {
        // One pool per query, so that a query which exceeds its limit fails alone. This pool gives operators that can
        // spill equal parts of what the others leave.
        let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(self.memory_bytes));
        let phase = Arc::new(Phase::default());
        let runtime =
            RuntimeEnvBuilder::from_runtime_env(&self.shared).with_memory_pool(Arc::clone(&pool)).build_arc()?;
        let mut state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_runtime_env(runtime)
            .with_catalog_list(catalog(tables)?)
            .build();
        // These charge their results to the pool of this query, so that the template cannot hold them.
        for function in functions::guarded_functions(&pool, &phase) {
            state.register_udf(function)?;
        }
        state.config_mut().set_extension(Arc::clone(&phase));
        state.register_expr_planner(Arc::new(crate::sandbox::values::ExactArithmetic::new()))?;
        state.register_expr_planner(Arc::new(ConcatPlanner::new(&pool, &phase)))?;
        // Fixes the value of `now()`, which is one for the whole statement.
        state.mark_start_execution();
        Ok(state)
    }

    /// A session without tables, for parsing.
    pub(crate) fn parser(&self) -> &SessionState {
        &self.template
    }
}

fn config(partitions: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        // `open` adds a catalog with the tables of the statement.
        .with_create_default_catalog_and_schema(false)
        // It would list only the tables that the statement names; `show.rs` reads the registry instead.
        .with_information_schema(false)
        .with_target_partitions(partitions);
    let options = config.options_mut();
    // As in Trino: NULL comes last in either direction. DataFusion's default is that of PostgreSQL.
    options.sql_parser.default_null_ordering = "nulls_last".to_owned();
    // Off by default; errors take their positions from the spans.
    options.sql_parser.collect_spans = true;
    options.execution.time_zone = Some(LAKE_ZONE.to_owned());
    // Parquet's page index excludes single pages of a column by their bounds.
    options.execution.parquet.enable_page_index = true;
    // With this option the greatest value so far becomes a filter of the scan. The filter also removes rows that
    // another aggregate beside `max` needs (docs/adr/0028).
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.execution.parquet.pruning = true;
    // The lake writes no Bloom filters.
    options.execution.parquet.bloom_filter_on_read = false;
    rules::switch_off(&mut config);
    config
}

fn catalog(tables: Tables) -> Result<Arc<dyn CatalogProviderList>> {
    let catalog = MemoryCatalogProvider::new();
    for ((schema, name), table) in tables {
        let provider = match catalog.schema(&schema) {
            Some(provider) => provider,
            None => {
                let provider: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(&schema, Arc::clone(&provider))?;
                provider
            }
        };
        provider.register_table(name, table)?;
    }
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The object store URL of the warehouse.
///
/// # Errors
/// None: the address is a constant that parses.
pub(crate) fn warehouse_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(WAREHOUSE)
}

/// A registry with one store. The default registry of the engine opens any `file://` path and creates clients for any
/// URL.
#[derive(Debug)]
struct WarehouseOnly {
    warehouse: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for WarehouseOnly {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        Err(DataFusionError::Execution(format!("the store of {url} cannot be removed")))
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        // The confinement: every scan of a plan asks here for its store by URL.
        if url.as_str() == WAREHOUSE {
            return Ok(Arc::clone(&self.warehouse));
        }
        exec_err!("{} is not the warehouse: only tables of the lake can be read", url.scheme())
    }
}
