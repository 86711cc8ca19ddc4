//! The views of the default schema. They give the tables of the lake the names and columns of the reference tracer's
//! database, so that SQL written for the tracer runs unchanged. Times and durations are nanoseconds, as in the tracer.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use event_schema::catalog::{Op, Source, typed_events};
use tables::registry;

/// A view and the tables it reads.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Its name in the default schema.
    pub name: &'static str,
    /// What its rows are, in one line.
    pub doc: &'static str,
    /// The tables it reads: namespace and name.
    pub reads: &'static [(&'static str, &'static str)],
    /// The query behind it.
    pub sql: &'static str,
    /// Meaning and unit of the columns that the tables read do not have under the same name.
    pub columns: &'static [(&'static str, &'static str)],
}

/// Every view that is written in SQL. `sources` and `ops` are constants, see [`constant`].
pub const VIEWS: &[View] = &[
    View {
        name: "events",
        doc: "events under the column names of the reference tracer",
        reads: &[("silver", "events")],
        // An imported event keeps the id of its own database. `ts` stays beside `timestamp`, because the lake is
        // partitioned by it.
        sql: "SELECT coalesce(source_id, event_id) AS id, ts_ns AS timestamp, ts, node, rank, local_rank, world_size, source, \
              source_name(source) AS source_name, op, op_name(source, op) AS op_name, duration_ns AS duration, pid, tid, comm, \
              gpu_id, arg0, arg1, ret_code, stack_hash, cgroup_id, bytes, cluster, job_id, container_id, pod, namespace, \
              comm_hash, coll_seq, peer_comm, peer_pid, sample_weight, duration_weight, boot_id, epoch, stream, seq, boot_ns, clock_error_ns, \
              event_id, log_name, log_partition, log_offset FROM silver.events",
        columns: &[
            ("id", "id in the system the event was imported from, else `event_id`"),
            ("timestamp", "wall time, unix nanoseconds"),
            ("source_name", "name of the source"),
            ("op_name", "name of the operation"),
            ("duration", "how long it took, nanoseconds; NULL where it was not measured"),
        ],
    },
    View {
        name: "typed_events",
        doc: "events with the arguments of their operations under names of their own, NULL where the operation has no such argument",
        reads: &[("silver", "events")],
        sql: typed_events::SQL,
        columns: typed_events::COLUMNS,
    },
    View {
        name: "event_aggregates",
        doc: "per minute and operation: imported aggregates, and computed ones for what they do not cover; sum_dur / timed is the mean \
              duration",
        reads: &[("silver", "aggregates"), ("gold", "op_minute")],
        // Inside, deduplication: a recording that is imported again after it has grown brings its last minute a second
        // time, with greater values and perhaps for another cluster; `max` takes the later one. Outside, addition: two
        // recordings of a node have different boot ids, and their parts of a minute add up within a cluster. `NOT
        // EXISTS` leaves out the aggregates that were computed from the events of such a recording, which would count
        // them twice.
        sql: "SELECT bucket, node, source, op, pid, sum(count) AS count, sum(stored) AS stored, sum(sum_dur) AS sum_dur, \
              min(min_dur) AS min_dur, max(max_dur) AS max_dur, sum(sum_arg0) AS sum_arg0, cluster, \
              sum(timed) AS timed FROM (SELECT ts_ns AS bucket, node, source, op, pid, boot_id, max(count) AS count, \
              max(stored) AS stored, max(sum_duration_ns) AS sum_dur, min(min_duration_ns) AS min_dur, \
              max(max_duration_ns) AS max_dur, max(sum_arg0) AS sum_arg0, max(cluster) AS cluster, \
              CASE WHEN max(sum_duration_ns) IS NULL THEN 0 ELSE max(count) END AS timed FROM silver.aggregates \
              GROUP BY ts_ns, node, source, op, pid, boot_id) AS r \
              GROUP BY bucket, cluster, node, source, op, pid \
              UNION ALL \
              SELECT bucket, node, source, op, pid, sum(count) AS count, CAST(NULL AS BIGINT) AS stored, \
              sum(sum_duration_ns) AS sum_dur, min(min_duration_ns) AS min_dur, max(max_duration_ns) AS max_dur, \
              CAST(NULL AS BIGINT) AS sum_arg0, cluster, sum(timed) AS timed \
              FROM (SELECT *, CAST(minute AS BIGINT) * 1000 AS bucket FROM gold.op_minute) AS m \
              WHERE NOT EXISTS (SELECT 1 FROM silver.aggregates AS a WHERE a.node = m.node \
              AND a.ts_ns = m.bucket AND a.source = m.source AND a.op = m.op AND a.pid = m.pid) \
              GROUP BY bucket, cluster, node, source, op, pid",
        columns: &[
            ("bucket", "start of the minute, unix nanoseconds"),
            ("source", "where it was observed, see Sources"),
            ("op", "what happened, see Operations"),
            ("count", "events of the minute, whether or not they are stored as rows"),
            ("stored", "events stored as rows; NULL for aggregates that were not imported"),
            ("sum_dur", "sum of durations, nanoseconds"),
            ("min_dur", "shortest duration, nanoseconds"),
            ("max_dur", "longest duration, nanoseconds"),
            ("sum_arg0", "sum of arg0; NULL for aggregates that were not imported"),
        ],
    },
    View {
        name: "causal_chains",
        doc: "chains as they were detected or imported",
        reads: &[("gold", "chains")],
        sql: "SELECT chain_id AS id, detected_ns AS detected_at, severity, summary, root_cause, explanation, recommendations, \
              op AS cuda_op, p99_us AS cuda_p99_us, p50_us AS cuda_p50_us, tail_ratio, timeline, node, cluster, ts \
              FROM gold.chains",
        columns: &[
            ("id", "id of the chain"),
            ("detected_at", "when it was detected, unix nanoseconds"),
            ("cuda_op", "operation that was slow"),
            ("cuda_p99_us", "p99 of the operation, microseconds"),
            ("cuda_p50_us", "p50 of the operation, microseconds"),
        ],
    },
    View {
        name: "system_snapshots",
        doc: "CPU, memory and load of each host over time",
        reads: &[("silver", "system")],
        sql: "SELECT ts_ns AS timestamp, ts, node, cpu_pct, mem_pct, mem_avail_mb AS mem_avail, swap_mb, load_avg, cluster \
              FROM silver.system",
        columns: &[("timestamp", "wall time, unix nanoseconds"), ("mem_avail", "memory available, MiB")],
    },
    View {
        name: "stack_traces",
        doc: "interned stacks by hash",
        reads: &[("silver", "stacks")],
        // A stack lands before its frames are resolved, and once more with them. `max` ignores NULL, so the resolved
        // row wins.
        sql: "SELECT stack_hash AS hash, min(ips) AS ips, max(nullif(frames, '')) AS frames FROM silver.stacks GROUP BY stack_hash",
        columns: &[("hash", "hash that events refer to as stack_hash")],
    },
    View {
        name: "process_names",
        doc: "names of processes; one per node, boot and process",
        reads: &[("silver", "processes")],
        // The latest row wins: a process changes its name by `execve(2)` and `PR_SET_NAME`, and the kernel reuses
        // process ids.
        sql: "SELECT node, boot_id, pid, last_value(name ORDER BY ts_ns) AS name, max(ts_ns) AS seen_at, \
              last_value(rank ORDER BY ts_ns) AS rank, last_value(job_id ORDER BY ts_ns) AS job_id \
              FROM silver.processes GROUP BY node, boot_id, pid",
        columns: &[("name", "latest name of the process"), ("seen_at", "when it was last seen, unix nanoseconds")],
    },
    View {
        name: "sessions",
        doc: "runs of an agent on a node",
        reads: &[("silver", "nodes")],
        // A run has a row from its start and another from its end. `max` ignores NULL and so merges the two.
        sql: "SELECT row_number() OVER (ORDER BY started_ns, node) AS id, started_ns AS started_at, \
              max(stopped_ns) AS stopped_at, max(gpu_model) AS gpu_model, max(gpu_driver) AS gpu_driver, \
              max(cpu_model) AS cpu_model, max(cpu_cores) AS cpu_cores, max(mem_total_mb) AS mem_total, \
              max(kernel) AS kernel, max(os_release) AS os_release, max(cuda_version) AS cuda_ver, \
              max(python_version) AS python_ver, max(agent_version) AS ingero_ver, max(pid_filter) AS pid_filter, \
              max(flags) AS flags, node, max(rank) AS rank, max(local_rank) AS local_rank, max(world_size) AS world_size, \
              cluster, boot_id FROM silver.nodes GROUP BY cluster, node, boot_id, epoch, started_ns",
        columns: &[
            ("id", "number of the run in order of start time"),
            ("started_at", "when the agent started, unix nanoseconds"),
            ("stopped_at", "when it stopped, unix nanoseconds; NULL while it runs"),
            ("mem_total", "memory, MiB"),
            ("cuda_ver", "CUDA version"),
            ("python_ver", "Python version"),
            ("ingero_ver", "version of the agent"),
        ],
    },
    View {
        name: "cgroup_metadata",
        doc: "containers behind cgroups",
        reads: &[("silver", "cgroups")],
        // A cgroup may land before its container is known, with empty texts: `FILTER` passes over these. Imported
        // cgroups all have the same time, so the order has a second key to make the answer deterministic.
        sql: "SELECT node, cgroup_id, \
              last_value(container_id ORDER BY ts_ns, container_id) FILTER (WHERE container_id <> '') AS container_id, \
              last_value(cgroup_path ORDER BY ts_ns, cgroup_path) FILTER (WHERE cgroup_path <> '') AS cgroup_path, \
              last_value(pod ORDER BY ts_ns, pod) FILTER (WHERE pod <> '') AS pod_name, \
              last_value(namespace ORDER BY ts_ns, namespace) FILTER (WHERE namespace <> '') AS namespace \
              FROM silver.cgroups GROUP BY node, cgroup_id",
        columns: &[("pod_name", "Kubernetes pod")],
    },
];

/// Names of the views that are constants.
pub const CONSTANTS: &[(&str, &str)] =
    &[("sources", "sources and their numbers"), ("ops", "operations and their numbers")];

/// What the columns of the constants mean.
const CONSTANT_COLUMNS: &[(&str, &str)] = &[
    ("id", "number of the source"),
    ("source_id", "number of the source that observes it"),
    ("op_id", "number of the operation within its source"),
    ("name", "name"),
    ("description", "what is observed; of an operation: what its arguments are"),
];

/// Meaning and unit of a column of a view: from the view itself, else from the column of the same name in the tables
/// that the view reads.
pub fn column_doc(view: &str, column: &str) -> Option<&'static str> {
    let Some(view) = find(view) else { return doc_among(CONSTANT_COLUMNS, column) };
    // The view comes first: its column may have another unit than the column of the same name in a table.
    if let Some(own) = doc_among(view.columns, column) {
        return Some(own);
    }
    let tables = view.reads.iter().filter_map(|(namespace, name)| registry::find(namespace, name));
    tables.filter_map(|table| table.def.column(column)).map(|column| column.doc).next()
}

fn doc_among(columns: &'static [(&'static str, &'static str)], column: &str) -> Option<&'static str> {
    columns.iter().find(|(name, _)| *name == column).map(|(_, doc)| *doc)
}

/// The view of that name, when there is one written in SQL.
pub(crate) fn find(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

/// `sources` and `ops`: the catalogue of events as tables.
///
/// # Errors
/// The columns and the schema in this function disagree, which is a bug.
pub(crate) fn constant(name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let columns: Vec<(&str, ArrayRef)> = match name {
        "sources" => vec![
            ("id", Arc::new(Int32Array::from_iter_values(Source::ALL.iter().map(|source| source.number())))),
            ("name", text(Source::ALL.iter().map(|source| source.name()))),
            ("description", text(Source::ALL.iter().map(|source| source.doc()))),
        ],
        "ops" => vec![
            ("source_id", Arc::new(Int32Array::from_iter_values(Op::ALL.iter().map(|op| op.source().number())))),
            ("op_id", Arc::new(Int32Array::from_iter_values(Op::ALL.iter().map(|op| op.number())))),
            ("name", text(Op::ALL.iter().map(|op| op.name()))),
            ("description", Arc::new(StringArray::from_iter_values(Op::ALL.iter().map(|op| op.description())))),
        ],
        _ => return Ok(None),
    };
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, array)| array).collect())?;
    Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}
