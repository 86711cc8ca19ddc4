//! The reference's tables and which field of ours each column becomes. The order of tables and columns is part of the
//! identity of imported rows: add at the end only.

use event_schema::batch::{Event, MeasuredDuration, ProcessInfo, Value};
use event_schema::catalog::{ArgColumn, ArgKind, Op, Source};
use event_schema::kind::RecordKind;

use super::cells::{Cell, Holds, Misfit, fit, misfit};

/// Largest size of a cell, bytes. No name, stack or paragraph that a tracer writes comes near it.
pub(super) const CELL_BYTES_MAX: u32 = 16 << 20;

/// A column of a table of the reference.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// The field it becomes; empty when it only helps to order or place the row.
    pub(crate) field: &'static str,
    holds: Holds,
    /// A row whose cell is absent or does not fit is refused.
    is_required: bool,
    /// Whether rows that differ in this column only are two rows.
    pub(crate) is_identity: bool,
}

impl Column {
    /// The value of a cell. One that does not fit is null and goes to `nulled`, unless the row must have it.
    ///
    /// # Errors
    /// The row must have the cell, and it is absent or does not fit.
    pub(super) fn value(&self, cell: &Cell, nulled: &mut Vec<Misfit>) -> Result<Value, Misfit> {
        match fit(self.name, self.holds, cell) {
            Ok(Value::Null) if self.is_required => Err(misfit(self.name, self.holds, cell)),
            Ok(value) => Ok(value),
            Err(misfit) if self.is_required => Err(misfit),
            Err(misfit) => {
                nulled.push(misfit);
                Ok(Value::Null)
            }
        }
    }
}

/// A column that every row must have.
const fn need(name: &'static str, field: &'static str, holds: Holds) -> Column {
    Column { name, field, holds, is_required: true, is_identity: true }
}

/// A column that older schemas lack, or whose cell may be absent.
const fn may(name: &'static str, field: &'static str, holds: Holds) -> Column {
    Column { name, field, holds, is_required: false, is_identity: true }
}

/// A table of the reference.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) kind: RecordKind,
    pub(crate) columns: &'static [Column],
    /// Makes the order of rows a function of the content.
    order_by: &'static str,
    /// The column with the time of the row, unix nanoseconds.
    pub(crate) time: Option<usize>,
    /// The column by which an event can name the row, and the column of `events` that does.
    pub(crate) named_by: Option<(usize, &'static str)>,
}

impl Table {
    /// Selects [`Self::columns`] and the node; what an older schema lacks reads as null, and what is too long as a
    /// BLOB.
    pub(super) fn select(&self, found: &[String]) -> String {
        let names = self.columns.iter().map(|of| of.name).chain(["node"]);
        let list: Vec<String> = names
            .map(|name| match found.iter().any(|found| found.eq_ignore_ascii_case(name)) {
                // `octet_length` of a column is read from the header of the record: a cell of a gigabyte is not loaded.
                true => format!("CASE WHEN octet_length(\"{name}\") > {CELL_BYTES_MAX} THEN x'' ELSE \"{name}\" END"),
                false => "NULL".to_owned(),
            })
            .collect();
        format!("SELECT {} FROM main.\"{}\" ORDER BY {}", list.join(", "), self.name, self.order_by)
    }

    /// Columns without which a file is not the reference's.
    pub(super) fn required(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().filter(|column| column.is_required).map(|column| column.name)
    }

    /// When the row happened, unix nanoseconds; `None` where the table has no time.
    pub(crate) fn time_of(&self, cells: &[Value]) -> Option<i64> {
        self.time.and_then(|at| long(&cells[at]))
    }

    /// The fields of a row of any kind but events.
    pub(crate) fn fields(&self, cells: Vec<Value>, boot_ns: i64) -> Vec<(&'static str, Value)> {
        let named = self.columns.iter().map(|of| of.field).zip(cells).filter(|(field, _)| !field.is_empty());
        [("boot_ns", Value::Long(boot_ns))].into_iter().chain(named).collect()
    }
}

/// Every table that is imported, dimensions before the events that refer to them.
pub(crate) const TABLES: &[Table] = &[SESSIONS, PROCESSES, CGROUPS, STACKS, SNAPSHOTS, AGGREGATES, CHAINS, EVENTS];

const SESSIONS: Table = Table {
    name: "sessions",
    kind: RecordKind::Session,
    columns: &[
        need("started_at", "started_ns", Holds::Time),
        may("stopped_at", "stopped_ns", Holds::TimeOrNone),
        may("gpu_model", "gpu_model", Holds::Text),
        may("gpu_driver", "gpu_driver", Holds::Text),
        may("cpu_model", "cpu_model", Holds::Text),
        may("cpu_cores", "cpu_cores", Holds::Count),
        may("mem_total", "mem_total_mb", Holds::Span),
        may("kernel", "kernel", Holds::Text),
        may("os_release", "os_release", Holds::Text),
        may("cuda_ver", "cuda_version", Holds::Text),
        may("python_ver", "python_version", Holds::Text),
        may("ingero_ver", "agent_version", Holds::Text),
        may("pid_filter", "pid_filter", Holds::Text),
        may("flags", "flags", Holds::Text),
        may("rank", "rank", Holds::Count),
        may("local_rank", "local_rank", Holds::Count),
        may("world_size", "world_size", Holds::Count),
    ],
    // By position: an older schema lacks `stopped_at`, and an unknown name would be an error.
    order_by: "1, 2",
    time: Some(0),
    named_by: None,
};

const PROCESSES: Table = Table {
    name: "process_names",
    kind: RecordKind::Process,
    columns: &[
        need("pid", "pid", Holds::Count),
        need("name", "name", Holds::Text),
        // The tracer updates the time whenever it sees the process: as part of the identity it would make a new row
        // each time.
        Column { is_identity: false, ..may("seen_at", "", Holds::TimeOrNone) },
    ],
    order_by: "pid",
    time: Some(2),
    named_by: Some((0, "pid")),
};

const CGROUPS: Table = Table {
    name: "cgroup_metadata",
    kind: RecordKind::Cgroup,
    columns: &[
        need("cgroup_id", "cgroup_id", Holds::Long),
        may("container_id", "container_id", Holds::Text),
        may("cgroup_path", "cgroup_path", Holds::Text),
        may("pod_name", "pod", Holds::Text),
        may("namespace", "namespace", Holds::Text),
    ],
    order_by: "cgroup_id",
    time: None,
    named_by: Some((0, "cgroup_id")),
};

const STACKS: Table = Table {
    name: "stack_traces",
    kind: RecordKind::Stack,
    columns: &[
        need("hash", "stack_hash", Holds::Long),
        need("ips", "ips", Holds::Text),
        may("frames", "frames", Holds::Text),
    ],
    order_by: "hash",
    time: None,
    named_by: Some((0, "stack_hash")),
};

const SNAPSHOTS: Table = Table {
    name: "system_snapshots",
    kind: RecordKind::System,
    columns: &[
        need("timestamp", "", Holds::Time),
        may("cpu_pct", "cpu_pct", Holds::Double),
        may("mem_pct", "mem_pct", Holds::Double),
        may("mem_avail", "mem_avail_mb", Holds::Span),
        may("swap_mb", "swap_mb", Holds::Span),
        may("load_avg", "load_avg", Holds::Double),
    ],
    order_by: "timestamp",
    time: Some(0),
    named_by: None,
};

const AGGREGATES: Table = Table {
    name: "event_aggregates",
    kind: RecordKind::Aggregate,
    columns: &[
        need("bucket", "", Holds::Time),
        need("source", "source", Holds::Int),
        need("op", "op", Holds::Int),
        need("pid", "pid", Holds::Count),
        need("count", "count", Holds::Span),
        need("stored", "stored", Holds::Span),
        may("sum_dur", "sum_duration_ns", Holds::Long),
        may("min_dur", "min_duration_ns", Holds::Long),
        may("max_dur", "max_duration_ns", Holds::Long),
        need("sum_arg0", "sum_arg0", Holds::Long),
    ],
    order_by: "bucket, source, op, pid",
    time: Some(0),
    named_by: Some((3, "pid")),
};

const CHAINS: Table = Table {
    name: "causal_chains",
    kind: RecordKind::Chain,
    columns: &[
        need("id", "chain_id", Holds::Text),
        need("detected_at", "detected_ns", Holds::Time),
        need("severity", "severity", Holds::Text),
        need("summary", "summary", Holds::Text),
        need("root_cause", "root_cause", Holds::Text),
        may("explanation", "explanation", Holds::Text),
        may("recommendations", "recommendations", Holds::Text),
        may("cuda_op", "op", Holds::Text),
        may("cuda_p99_us", "p99_us", Holds::Long),
        may("cuda_p50_us", "p50_us", Holds::Long),
        may("tail_ratio", "tail_ratio", Holds::Double),
        may("timeline", "timeline", Holds::Text),
    ],
    order_by: "detected_at, id",
    time: Some(1),
    named_by: None,
};

const EVENTS: Table = Table {
    name: "events",
    kind: RecordKind::Event,
    columns: &[
        need("id", "source_id", Holds::Id),
        need("timestamp", "boot_ns", Holds::Time),
        need("pid", "pid", Holds::Count),
        need("tid", "tid", Holds::Count),
        need("source", "source", Holds::Int),
        need("op", "op", Holds::Int),
        may("duration", "duration_ns", Holds::Span),
        may("gpu_id", "gpu_id", Holds::Int),
        need("arg0", "arg0", Holds::Long),
        need("arg1", "arg1", Holds::Long),
        may("ret_code", "ret_code", Holds::Int),
        need("stack_hash", "stack_hash", Holds::Long),
        may("cgroup_id", "cgroup_id", Holds::Long),
        may("comm", "comm", Holds::Text),
        may("rank", "rank", Holds::Count),
        may("local_rank", "local_rank", Holds::Count),
        may("world_size", "world_size", Holds::Count),
    ],
    // By number, also where it stands behind the name of a node: shorter texts have smaller numbers. Consecutive
    // numbers then share a message. Of several events with one number the same one is first in every import, and gets
    // the number as its key.
    order_by: "length(id), id, timestamp, pid, tid",
    time: Some(1),
    named_by: None,
};

/// An event of the cells of a row of `events`, which fit. `id` is the text of the first cell, which may be a number.
pub(crate) fn event<'a>(cells: &'a [Value], id: &'a str) -> Event<'a> {
    // By position in `EVENTS`. The columns with a default are required and were fitted to their range (`need`), apart
    // from `cgroup_id`, whose 0 is "none".
    let source = int(&cells[4]).unwrap_or_default();
    let op = int(&cells[5]).unwrap_or_default();
    let arg0 = long(&cells[8]).unwrap_or_default();
    let arg1 = long(&cells[9]).unwrap_or_default();
    Event {
        boot_ns: long(&cells[1]).unwrap_or_default(),
        source,
        op,
        duration: long(&cells[6]).map(MeasuredDuration::of_each),
        pid: int(&cells[2]).unwrap_or_default(),
        tid: int(&cells[3]).unwrap_or_default(),
        // Empty is no name. `settle.rs` compares by the same rule.
        comm: text(&cells[13]).filter(|comm| !comm.is_empty()),
        process: ProcessInfo {
            rank: int(&cells[14]),
            local_rank: int(&cells[15]),
            world_size: int(&cells[16]),
            cgroup_id: long(&cells[12]).unwrap_or_default(),
            ..ProcessInfo::default()
        },
        gpu_id: int(&cells[7]),
        arg0,
        arg1,
        bytes: bytes_of(source, op, arg0, arg1),
        ret_code: int(&cells[10]),
        stack_hash: long(&cells[11]).unwrap_or_default(),
        // Each row of `events` is one event: those that the reference did not store are in its aggregates.
        sample_weight: 1.0,
        source_id: Some(id),
        ..Event::default()
    }
}

/// The bytes that an operation of a process moved or allocated, which the reference keeps in its arguments.
fn bytes_of(source: i32, op: i32, arg0: i64, arg1: i64) -> Option<i64> {
    let op = Op::from_numbers(source, op).filter(|op| op.source() != Source::Host)?;
    op.args().iter().find_map(|arg| {
        let value = match arg.column {
            ArgColumn::Arg0 => arg0,
            ArgColumn::Arg1 => arg1,
            ArgColumn::Bytes => return None,
        };
        match arg.kind {
            ArgKind::Bytes => Some(value),
            // The argument is any 64-bit number of the file: an overflow gives no bytes instead of wrong ones.
            ArgKind::Sectors => value.checked_mul(SECTOR_BYTES),
            _ => None,
        }
    })
}

/// Size of a sector in the kernel's block layer, bytes, whatever the sector size of the device (`SECTOR_SHIFT`).
const SECTOR_BYTES: i64 = 512;

fn long(value: &Value) -> Option<i64> {
    if let Value::Long(n) = value { Some(*n) } else { None }
}

fn int(value: &Value) -> Option<i32> {
    long(value).and_then(|number| i32::try_from(number).ok())
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}
