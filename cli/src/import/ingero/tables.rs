//! The reference's tables and which field of ours each column becomes. The order of tables and columns is part of the identity
//! of imported rows: add at the end only.

use event_schema::batch::{Event, MeasuredDuration, ProcessInfo, Value};
use event_schema::catalog::Source;
use event_schema::kind::RecordKind;

/// Columns of `events` without which a file is not the reference's.
pub(super) const EVENTS_REQUIRED: &[&str] =
    &["id", "timestamp", "pid", "tid", "source", "op", "duration", "arg0", "arg1", "ret_code", "stack_hash"];

/// A table of the reference.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) kind: RecordKind,
    /// Column, and the field it becomes; empty when it only helps to order or place the row.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Makes the order of rows, and with it their sequence numbers, a function of the content.
    order_by: &'static str,
    /// The column that says when, as unix nanoseconds.
    pub(crate) time: Option<usize>,
    /// The column by which an event can name the row, and the column of `events` that does.
    pub(crate) named_by: Option<(usize, &'static str)>,
}

impl Table {
    /// Selects [`Self::columns`] and the node; what an older schema lacks reads as null.
    pub(super) fn select(&self, found: &[String]) -> String {
        let column = |name: &str| match found.iter().any(|f| f == name) {
            true => format!("\"{name}\""),
            false => "NULL".to_owned(),
        };
        let mut list: Vec<String> = self.columns.iter().map(|(name, _)| column(name)).collect();
        list.push(column("node"));
        format!("SELECT {} FROM \"{}\" ORDER BY {}", list.join(", "), self.name, self.order_by)
    }

    /// When the row happened, if the table says.
    pub(crate) fn time_of(&self, cells: &[Value]) -> Option<i64> {
        self.time.and_then(|at| long(&cells[at]))
    }

    /// The fields of a row of any kind but events.
    pub(crate) fn fields(&self, cells: Vec<Value>, boot_ns: i64) -> Vec<(&'static str, Value)> {
        let named = self.columns.iter().map(|(_, field)| *field).zip(cells).filter(|(field, _)| !field.is_empty());
        [("boot_ns", Value::Long(boot_ns))].into_iter().chain(named).collect()
    }
}

/// Every table that is imported, dimensions before the events that refer to them.
pub(crate) const TABLES: &[Table] = &[SESSIONS, PROCESSES, CGROUPS, STACKS, SNAPSHOTS, AGGREGATES, CHAINS, EVENTS];

const SESSIONS: Table = Table {
    name: "sessions",
    kind: RecordKind::Session,
    columns: &[
        ("started_at", "started_ns"),
        ("stopped_at", "stopped_ns"),
        ("gpu_model", "gpu_model"),
        ("gpu_driver", "gpu_driver"),
        ("cpu_model", "cpu_model"),
        ("cpu_cores", "cpu_cores"),
        ("mem_total", "mem_total_mb"),
        ("kernel", "kernel"),
        ("os_release", "os_release"),
        ("cuda_ver", "cuda_version"),
        ("python_ver", "python_version"),
        ("ingero_ver", "agent_version"),
        ("pid_filter", "pid_filter"),
        ("flags", "flags"),
        ("rank", "rank"),
        ("local_rank", "local_rank"),
        ("world_size", "world_size"),
    ],
    order_by: "started_at, id",
    time: Some(0),
    named_by: None,
};

const PROCESSES: Table = Table {
    name: "process_names",
    kind: RecordKind::Process,
    columns: &[("pid", "pid"), ("name", "name"), ("seen_at", "")],
    order_by: "pid",
    time: Some(2),
    named_by: Some((0, "pid")),
};

const CGROUPS: Table = Table {
    name: "cgroup_metadata",
    kind: RecordKind::Cgroup,
    columns: &[
        ("cgroup_id", "cgroup_id"),
        ("container_id", "container_id"),
        ("cgroup_path", "cgroup_path"),
        ("pod_name", "pod"),
        ("namespace", "namespace"),
    ],
    order_by: "cgroup_id",
    time: None,
    named_by: Some((0, "cgroup_id")),
};

const STACKS: Table = Table {
    name: "stack_traces",
    kind: RecordKind::Stack,
    columns: &[("hash", "stack_hash"), ("ips", "ips"), ("frames", "frames")],
    order_by: "hash",
    time: None,
    named_by: Some((0, "stack_hash")),
};

const SNAPSHOTS: Table = Table {
    name: "system_snapshots",
    kind: RecordKind::System,
    columns: &[
        ("timestamp", ""),
        ("cpu_pct", "cpu_pct"),
        ("mem_pct", "mem_pct"),
        ("mem_avail", "mem_avail_mb"),
        ("swap_mb", "swap_mb"),
        ("load_avg", "load_avg"),
    ],
    order_by: "timestamp",
    time: Some(0),
    named_by: None,
};

const AGGREGATES: Table = Table {
    name: "event_aggregates",
    kind: RecordKind::Aggregate,
    columns: &[
        ("bucket", ""),
        ("source", "source"),
        ("op", "op"),
        ("pid", "pid"),
        ("count", "count"),
        ("stored", "stored"),
        ("sum_dur", "sum_duration_ns"),
        ("min_dur", "min_duration_ns"),
        ("max_dur", "max_duration_ns"),
        ("sum_arg0", "sum_arg0"),
    ],
    order_by: "bucket, source, op, pid",
    time: Some(0),
    named_by: Some((3, "pid")),
};

const CHAINS: Table = Table {
    name: "causal_chains",
    kind: RecordKind::Chain,
    columns: &[
        ("id", "chain_id"),
        ("detected_at", "detected_ns"),
        ("severity", "severity"),
        ("summary", "summary"),
        ("root_cause", "root_cause"),
        ("explanation", "explanation"),
        ("recommendations", "recommendations"),
        ("cuda_op", "op"),
        ("cuda_p99_us", "p99_us"),
        ("cuda_p50_us", "p50_us"),
        ("tail_ratio", "tail_ratio"),
        ("timeline", "timeline"),
    ],
    order_by: "detected_at, id",
    time: Some(1),
    named_by: None,
};

const EVENTS: Table = Table {
    name: "events",
    kind: RecordKind::Event,
    columns: &[
        ("id", "source_id"),
        ("timestamp", "boot_ns"),
        ("pid", "pid"),
        ("tid", "tid"),
        ("source", "source"),
        ("op", "op"),
        ("duration", "duration_ns"),
        ("gpu_id", "gpu_id"),
        ("arg0", "arg0"),
        ("arg1", "arg1"),
        ("ret_code", "ret_code"),
        ("stack_hash", "stack_hash"),
        ("cgroup_id", "cgroup_id"),
        ("comm", "comm"),
        ("rank", "rank"),
        ("local_rank", "local_rank"),
        ("world_size", "world_size"),
    ],
    // By number, also where it stands behind the name of a node.
    order_by: "length(id), id",
    time: Some(1),
    named_by: None,
};

/// A column of `events` that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` holds {value}, expected {expected}")]
pub(crate) struct WrongCell {
    column: &'static str,
    value: String,
    expected: &'static str,
}

/// An event of the cells of a row of `events`. `id` is the text of the first cell, which may be a number.
pub(crate) fn event<'a>(cells: &'a [Value], id: &'a str) -> Result<Event<'a>, WrongCell> {
    let wrong =
        |at: usize, expected| WrongCell { column: EVENTS.columns[at].0, value: format!("{:?}", cells[at]), expected };
    let need_long = |at: usize| long(&cells[at]).ok_or_else(|| wrong(at, "an integer"));
    let int = |at: usize| match &cells[at] {
        Value::Null => Ok(None),
        Value::Long(n) => i32::try_from(*n).map(Some).map_err(|_| wrong(at, "an integer of 32 bits")),
        _ => Err(wrong(at, "an integer")),
    };
    let need_int = |at: usize| int(at)?.ok_or_else(|| wrong(at, "an integer of 32 bits"));
    let (source, op) = (need_int(4)?, need_int(5)?);
    let (arg0, arg1) = (need_long(8)?, need_long(9)?);
    Ok(Event {
        boot_ns: need_long(1)?,
        source,
        op,
        duration: Some(MeasuredDuration::of_each(need_long(6)?)),
        pid: need_int(2)?,
        tid: need_int(3)?,
        comm: text(&cells[13]).filter(|comm| !comm.is_empty()),
        process: ProcessInfo {
            rank: int(14)?,
            local_rank: int(15)?,
            world_size: int(16)?,
            cgroup_id: long(&cells[12]).unwrap_or(0),
            ..ProcessInfo::default()
        },
        gpu_id: int(7)?,
        arg0,
        arg1,
        bytes: bytes_of(source, op, arg0, arg1),
        ret_code: int(10)?,
        stack_hash: need_long(11)?,
        sample_weight: 1.0,
        source_id: Some(id),
        ..Event::default()
    })
}

/// The bytes an operation moved or allocated, which the reference keeps in its arguments.
fn bytes_of(source: i32, op: i32, arg0: i64, arg1: i64) -> Option<i64> {
    match (Source::from_number(source)?, op) {
        // cudaMalloc, cudaMemcpy, cudaMemcpyAsync, cudaMallocManaged and the other copies.
        (Source::Cuda, 1 | 4 | 7..=12) => Some(arg0),
        // cuMemcpy, cuMemcpyAsync, cuMemAlloc, cuMemAllocManaged.
        (Source::Driver, 2 | 3 | 5 | 6) => Some(arg0),
        // Block requests count sectors.
        (Source::Io, _) => arg0.checked_mul(512),
        (Source::Net, _) => Some(arg1),
        _ => None,
    }
}

fn long(value: &Value) -> Option<i64> {
    if let Value::Long(n) = value { Some(*n) } else { None }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}
