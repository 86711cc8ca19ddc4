//! One event of JSON lines or Parquet, with the fields of `silver.events` (`docs/EVENTS.md`).

use event_schema::batch::{Event, MeasuredDuration, ProcessInfo};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A field that the columns of `silver.events` have beside those of an event: where it landed, and under which
/// identity. A row of an object gets its own.
type PassedOver = Option<IgnoredAny>;

/// Fields that are not required have the value that stands for none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventRow {
    pub(crate) node: String,
    /// Unix nanoseconds.
    pub(crate) ts_ns: i64,
    pub(crate) source: i32,
    pub(crate) op: i32,
    pub(crate) pid: i32,
    pub(crate) tid: i32,
    #[serde(default)]
    pub(crate) cluster: Option<String>,
    #[serde(default)]
    pub(crate) duration_ns: Option<i64>,
    #[serde(default)]
    pub(crate) duration_weight: Option<f32>,
    #[serde(default)]
    pub(crate) comm: Option<String>,
    #[serde(default)]
    pub(crate) rank: Option<i32>,
    #[serde(default)]
    pub(crate) local_rank: Option<i32>,
    #[serde(default)]
    pub(crate) world_size: Option<i32>,
    #[serde(default)]
    pub(crate) job_id: Option<String>,
    #[serde(default)]
    pub(crate) gpu_id: Option<i32>,
    #[serde(default)]
    pub(crate) arg0: i64,
    #[serde(default)]
    pub(crate) arg1: i64,
    #[serde(default)]
    pub(crate) bytes: Option<i64>,
    #[serde(default)]
    pub(crate) ret_code: Option<i32>,
    #[serde(default)]
    pub(crate) stack_hash: i64,
    #[serde(default)]
    pub(crate) cgroup_id: i64,
    #[serde(default)]
    pub(crate) container_id: Option<String>,
    #[serde(default)]
    pub(crate) pod: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) comm_hash: Option<i64>,
    #[serde(default)]
    pub(crate) coll_seq: Option<i64>,
    #[serde(default = "one")]
    pub(crate) sample_weight: f32,
    #[serde(default)]
    pub(crate) source_id: Option<String>,
    /// Becomes `source_id` where that is absent.
    #[serde(default)]
    pub(crate) event_id: Option<String>,
    #[serde(default)]
    pub(crate) peer_comm: Option<String>,
    #[serde(default)]
    pub(crate) peer_pid: Option<i32>,
    #[serde(default, rename = "boot_id")]
    pub(crate) _boot_id: PassedOver,
    #[serde(default, rename = "epoch")]
    pub(crate) _epoch: PassedOver,
    #[serde(default, rename = "stream")]
    pub(crate) _stream: PassedOver,
    #[serde(default, rename = "seq")]
    pub(crate) _seq: PassedOver,
    #[serde(default, rename = "ts")]
    pub(crate) _ts: PassedOver,
    #[serde(default, rename = "boot_ns")]
    pub(crate) _boot_ns: PassedOver,
    #[serde(default, rename = "clock_error_ns")]
    pub(crate) _clock_error_ns: PassedOver,
    #[serde(default, rename = "log_name")]
    pub(crate) _log_name: PassedOver,
    #[serde(default, rename = "log_partition")]
    pub(crate) _log_partition: PassedOver,
    #[serde(default, rename = "log_offset")]
    pub(crate) _log_offset: PassedOver,
}

/// The columns of `silver.events` that are passed over.
pub(crate) const PASSED_OVER: [&str; 10] =
    ["boot_id", "epoch", "stream", "seq", "ts", "boot_ns", "clock_error_ns", "log_name", "log_partition", "log_offset"];

fn one() -> f32 {
    1.0
}

impl EventRow {
    /// What is wrong with the values; their types are right.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.node.trim().is_empty() {
            return Some("`node` is empty");
        }
        // Sums of rows times weight are estimates: of these no row could be taken out again.
        let weights = [Some(self.sample_weight), self.duration_weight];
        if weights.into_iter().flatten().any(|weight| !weight.is_finite() || weight <= 0.0) {
            return Some("`sample_weight` and `duration_weight` must be positive numbers");
        }
        None
    }

    pub(crate) fn event(&self) -> Event<'_> {
        let duration = self.duration_ns.map(|ns| MeasuredDuration {
            ns,
            // The column has the product of both.
            weight: self.duration_weight.map_or(1.0, |weight| weight / self.sample_weight),
        });
        Event {
            boot_ns: self.ts_ns,
            source: self.source,
            op: self.op,
            duration,
            pid: self.pid,
            tid: self.tid,
            comm: self.comm.as_deref(),
            process: ProcessInfo {
                rank: self.rank,
                local_rank: self.local_rank,
                world_size: self.world_size,
                job_id: self.job_id.as_deref(),
                cgroup_id: self.cgroup_id,
                container_id: self.container_id.as_deref(),
                pod: self.pod.as_deref(),
                namespace: self.namespace.as_deref(),
            },
            gpu_id: self.gpu_id,
            arg0: self.arg0,
            arg1: self.arg1,
            bytes: self.bytes,
            ret_code: self.ret_code,
            stack_hash: self.stack_hash,
            comm_hash: self.comm_hash,
            coll_seq: self.coll_seq,
            sample_weight: self.sample_weight,
            source_id: self.source_id.as_deref().or(self.event_id.as_deref()),
            peer_comm: self.peer_comm.as_deref(),
            peer_pid: self.peer_pid,
        }
    }

    /// Bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let texts = [
            &self.comm,
            &self.job_id,
            &self.container_id,
            &self.pod,
            &self.namespace,
            &self.source_id,
            &self.event_id,
            &self.peer_comm,
        ];
        texts.into_iter().flatten().map(String::len).sum()
    }
}
