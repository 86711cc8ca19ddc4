//! Prometheus metrics of the compactor.

use std::sync::atomic::AtomicU64;

use maintenance::plan::{Health, Plan};
use maintenance::task::Work;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tables::def::TableName;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TableLabel {
    pub(crate) table: String,
}

impl TableLabel {
    pub(crate) fn of(table: TableName) -> Self {
        Self { table: table.to_string() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) table: String,
    pub(crate) outcome: &'static str,
}

type PerTable<M> = Family<TableLabel, M>;
type Number = Gauge<u64, AtomicU64>;

/// Everything the compactor counts. Cheap to clone; clones share the counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) tasks: Family<OutcomeLabel, Counter>,
    pub(crate) read_bytes: PerTable<Counter>,
    pub(crate) written_bytes: PerTable<Counter>,
    pub(crate) spilled_bytes: PerTable<Counter>,
    pub(crate) rows: PerTable<Counter>,
    pub(crate) files_removed: PerTable<Counter>,
    pub(crate) files_added: PerTable<Counter>,
    pub(crate) tagged_files: PerTable<Counter>,
    pub(crate) untagged_files: PerTable<Counter>,
    pub(crate) rewrite_seconds: PerTable<Histogram>,
    pub(crate) commit_seconds: PerTable<Histogram>,
    files: PerTable<Number>,
    bytes: PerTable<Number>,
    health: PerTable<Number>,
    planned_tasks: PerTable<Number>,
    planned_bytes: PerTable<Number>,
    pub(crate) left_alone: PerTable<Number>,
}

fn seconds() -> Histogram {
    // 10 ms to 5 minutes.
    Histogram::new(exponential_buckets(0.01, 2.0, 15))
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            tasks: Family::default(),
            read_bytes: Family::default(),
            written_bytes: Family::default(),
            spilled_bytes: Family::default(),
            rows: Family::default(),
            files_removed: Family::default(),
            files_added: Family::default(),
            tagged_files: Family::default(),
            untagged_files: Family::default(),
            rewrite_seconds: Family::new_with_constructor(seconds),
            commit_seconds: Family::new_with_constructor(seconds),
            files: Family::default(),
            bytes: Family::default(),
            health: Family::default(),
            planned_tasks: Family::default(),
            planned_bytes: Family::default(),
            left_alone: Family::default(),
        };
        metrics.register_work(registry);
        metrics.register_tables(registry);
        metrics
    }

    fn register_work(&self, registry: &mut Registry) {
        registry.register("tasks", "Tasks by table and outcome", self.tasks.clone());
        for (name, help, counter) in [
            ("read", "Bytes of data files that rewrites have read", &self.read_bytes),
            ("written", "Bytes of data files that were written and committed", &self.written_bytes),
            ("spilled", "Bytes of sorted runs in temporary files", &self.spilled_bytes),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
        }
        registry.register("rows", "Rows that rewrites have read", self.rows.clone());
        registry.register("files_removed", "Data files that commits have taken away", self.files_removed.clone());
        registry.register("files_added", "Data files that commits have put in their place", self.files_added.clone());
        let of_tags = [
            (
                "tagged_files",
                "Merged data files tagged as complete, which the rule of the bucket may move",
                &self.tagged_files,
            ),
            (
                "untagged_files",
                "Merged data files that were not tagged: they stay in S3 Standard",
                &self.untagged_files,
            ),
        ];
        for (name, help, counter) in of_tags {
            registry.register(name, help, counter.clone());
        }
        let times = [
            ("rewrite", "Time to read, write and check the files of one task", &self.rewrite_seconds),
            ("commit", "Time of one commit", &self.commit_seconds),
        ];
        for (name, help, histogram) in times {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    fn register_tables(&self, registry: &mut Registry) {
        // Without a unit of `prometheus-client`: it would be appended to names that end with another word.
        for (name, help, gauge) in [
            ("table_files", "Data files of a table", &self.files),
            ("table_bytes", "Bytes of a table's data files", &self.bytes),
            ("health", "What reading the table would cost at best, as a percentage of what it costs", &self.health),
            ("planned_tasks", "Tasks that were planned when the table was looked at last", &self.planned_tasks),
            ("planned_bytes", "Bytes that these tasks read", &self.planned_bytes),
            ("left_alone", "1 while the table is not rewritten; the log has the reason", &self.left_alone),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Shows how a table was found.
    pub(crate) fn show(&self, table: TableName, plan: &Plan) {
        let label = TableLabel::of(table);
        // Gauges of a table that is dropped stay: an alert on them would otherwise see nothing.
        let Health { files, bytes, score, .. } = plan.health;
        let tasks = plan.tasks.iter();
        let planned_bytes = tasks.map(|task| match &task.work {
            Work::Rewrite(rewrite) => rewrite.bytes(),
        });
        let values = [
            (&self.files, files),
            (&self.bytes, bytes),
            (&self.health, u64::from(score)),
            (&self.planned_tasks, plan.tasks.len() as u64),
            (&self.planned_bytes, planned_bytes.sum()),
        ];
        for (gauge, value) in values {
            gauge.get_or_create(&label).set(value);
        }
    }
}
