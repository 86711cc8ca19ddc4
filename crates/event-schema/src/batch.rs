//! Rows become columns: [`EventRows`] for events, where speed counts, and [`Rows`] for every other kind.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, StringDictionaryBuilder,
};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

use crate::catalog::Op;
use crate::kind::RecordKind;

mod rows;
#[cfg(test)]
mod tests;

pub use rows::{RowError, Rows, Value};

type Words = StringDictionaryBuilder<Int32Type>;

/// One event of a probe or an importer. Fields as in the catalogue (`docs/EVENTS.md`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event<'a> {
    /// `CLOCK_BOOTTIME`, nanoseconds: the start of a call or wait, else the instant.
    pub boot_ns: i64,
    /// Number of a [`Source`](crate::catalog::Source).
    pub source: i32,
    /// Number of an operation of that source.
    pub op: i32,
    /// Absent when it was not measured.
    pub duration: Option<MeasuredDuration>,
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// Thread id in the host's namespace.
    pub tid: i32,
    /// Name of the thread, as the kernel has it.
    pub comm: Option<&'a str>,
    /// The process that the thread belongs to.
    pub process: ProcessInfo<'a>,
    /// GPU ordinal.
    pub gpu_id: Option<i32>,
    /// First argument; its meaning depends on the operation.
    pub arg0: i64,
    /// Second argument; its meaning depends on the operation.
    pub arg1: i64,
    /// Bytes moved or allocated.
    pub bytes: Option<i64>,
    /// Return code; absent for a call that ended with its thread.
    pub ret_code: Option<i32>,
    /// Hash of the interned stack; 0 for none.
    pub stack_hash: i64,
    /// Hash of the NCCL communicator.
    pub comm_hash: Option<i64>,
    /// Sequence number of the collective within its communicator.
    pub coll_seq: Option<i64>,
    /// How many events this row stands for; 1 unless sampled.
    pub sample_weight: f32,
    /// Id of an imported event in the system that it comes from.
    pub source_id: Option<&'a str>,
    /// Name of the thread that took the CPU meanwhile; of runnable waits only.
    pub peer_comm: Option<&'a str>,
    /// Process id of that thread.
    pub peer_pid: Option<i32>,
}

impl Event<'_> {
    /// The same event as one of an operation.
    #[must_use]
    pub const fn with_op(mut self, op: Op) -> Self {
        (self.source, self.op) = op.numbers();
        self
    }
}

/// How long an event took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredDuration {
    /// Nanoseconds.
    pub ns: i64,
    /// Rows of its operation that the duration stands for: 1, or more where only a random sample of the calls is timed.
    /// Sums of `ns` times `weight` are unbiased estimates of sums over all rows.
    pub weight: f32,
}

impl MeasuredDuration {
    /// A duration where every event of the operation has one.
    pub const fn of_each(ns: i64) -> Self {
        Self { ns, weight: 1.0 }
    }
}

/// What is known of the process an event belongs to; the same for all its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessInfo<'a> {
    /// Rank of the process in its job, from 0.
    pub rank: Option<i32>,
    /// Rank of the process on its node, from 0.
    pub local_rank: Option<i32>,
    /// Number of ranks in the job.
    pub world_size: Option<i32>,
    /// The job that the process belongs to.
    pub job_id: Option<&'a str>,
    /// Id of the cgroup; 0 for none.
    pub cgroup_id: i64,
    /// Id of the container; absent outside of one.
    pub container_id: Option<&'a str>,
    /// Kubernetes pod of the container.
    pub pod: Option<&'a str>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<&'a str>,
}

/// Builds batches of events. `finish` leaves the builder empty and ready for the next batch.
#[derive(Default)]
pub struct EventRows {
    boot_ns: Int64Builder,
    source: Int32Builder,
    op: Int32Builder,
    duration_ns: Int64Builder,
    pid: Int32Builder,
    tid: Int32Builder,
    comm: Words,
    rank: Int32Builder,
    local_rank: Int32Builder,
    world_size: Int32Builder,
    job_id: Words,
    gpu_id: Int32Builder,
    arg0: Int64Builder,
    arg1: Int64Builder,
    bytes: Int64Builder,
    ret_code: Int32Builder,
    stack_hash: Int64Builder,
    cgroup_id: Int64Builder,
    container_id: Words,
    pod: Words,
    namespace: Words,
    comm_hash: Int64Builder,
    coll_seq: Int64Builder,
    sample_weight: Float32Builder,
    source_id: StringBuilder,
    peer_comm: Words,
    peer_pid: Int32Builder,
    duration_weight: Float32Builder,
    rows: usize,
}

// The dictionary builders cannot be printed, and their contents would be noise.
impl std::fmt::Debug for EventRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl EventRows {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn push(&mut self, e: &Event<'_>) {
        self.rows += 1;
        self.boot_ns.append_value(e.boot_ns);
        self.source.append_value(e.source);
        self.op.append_value(e.op);
        self.duration_ns.append_option(e.duration.map(|duration| duration.ns));
        // Inverse probability weighting in two stages: the row stands for `sample_weight` events, and of these only the
        // sample that was timed has a duration.
        self.duration_weight.append_option(e.duration.map(|duration| duration.weight * e.sample_weight));
        self.pid.append_value(e.pid);
        self.tid.append_value(e.tid);
        self.comm.append_option(e.comm);
        self.push_process(&e.process);
        self.gpu_id.append_option(e.gpu_id);
        self.arg0.append_value(e.arg0);
        self.arg1.append_value(e.arg1);
        self.bytes.append_option(e.bytes);
        self.ret_code.append_option(e.ret_code);
        self.stack_hash.append_value(e.stack_hash);
        self.comm_hash.append_option(e.comm_hash);
        self.coll_seq.append_option(e.coll_seq);
        self.sample_weight.append_value(e.sample_weight);
        // Plain text and no dictionary: ids do not repeat.
        self.source_id.append_option(e.source_id);
        self.peer_comm.append_option(e.peer_comm);
        self.peer_pid.append_option(e.peer_pid);
    }

    fn push_process(&mut self, p: &ProcessInfo<'_>) {
        self.rank.append_option(p.rank);
        self.local_rank.append_option(p.local_rank);
        self.world_size.append_option(p.world_size);
        self.job_id.append_option(p.job_id);
        self.cgroup_id.append_value(p.cgroup_id);
        self.container_id.append_option(p.container_id);
        self.pod.append_option(p.pod);
        self.namespace.append_option(p.namespace);
    }

    /// The rows so far as one batch with the wire schema of [`RecordKind::Event`].
    ///
    /// # Errors
    /// Only if the catalogue and this builder disagree on a column, which a test holds them to.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        // Arrow's builders are empty after `finish`, dictionaries included: each message carries its own words.
        self.rows = 0;
        // In the order of `fields::EVENT`: Arrow matches columns and schema by position. New fields are added at the
        // end.
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.boot_ns.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.op.finish()),
            Arc::new(self.duration_ns.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.tid.finish()),
            Arc::new(self.comm.finish()),
            Arc::new(self.rank.finish()),
            Arc::new(self.local_rank.finish()),
            Arc::new(self.world_size.finish()),
            Arc::new(self.job_id.finish()),
            Arc::new(self.gpu_id.finish()),
            Arc::new(self.arg0.finish()),
            Arc::new(self.arg1.finish()),
            Arc::new(self.bytes.finish()),
            Arc::new(self.ret_code.finish()),
            Arc::new(self.stack_hash.finish()),
            Arc::new(self.cgroup_id.finish()),
            Arc::new(self.container_id.finish()),
            Arc::new(self.pod.finish()),
            Arc::new(self.namespace.finish()),
            Arc::new(self.comm_hash.finish()),
            Arc::new(self.coll_seq.finish()),
            Arc::new(self.sample_weight.finish()),
            Arc::new(self.source_id.finish()),
            Arc::new(self.peer_comm.finish()),
            Arc::new(self.peer_pid.finish()),
            Arc::new(self.duration_weight.finish()),
        ];
        RecordBatch::try_new(RecordKind::Event.wire_schema(), columns)
    }
}
