//! The fields themselves. Ids below 20 are shared by every kind; a kind's own fields count from 20. An id is never
//! reused.

use super::Field;
use super::FieldType::{Double, Float, Id, Int, Long, Rising, Text, Timestamp, Word};
use super::Place::{Centre, Header, Row};

macro_rules! field {
    ($id:literal $name:ident $kind:ident $place:ident ? $doc:literal) => {
        field!($id $name $kind $place ? since 1 $doc)
    };
    ($id:literal $name:ident $kind:ident $place:ident ? since $since:literal $doc:literal) => {
        Field { id: $id, name: stringify!($name), kind: $kind, nullable: true, place: $place, since: $since, doc: $doc }
    };
    ($id:literal $name:ident $kind:ident $place:ident $doc:literal) => {
        Field { id: $id, name: stringify!($name), kind: $kind, nullable: false, place: $place, since: 1, doc: $doc }
    };
}

/// Only events carry an id of their own.
pub(super) const EVENT_ID: &[Field] = &[field!(1 event_id Id Centre "`node:boot8:seq`: unique over the fleet")];

/// Who made the record, and when.
pub(super) const ORIGIN: &[Field] = &[
    field!(2 cluster Word Header "cluster the node belongs to"),
    field!(3 node Word Header "host that made the record"),
    field!(4 boot_id Word Header "kernel boot id (UUID)"),
    field!(5 epoch Long Header "run of the agent within the boot"),
    field!(6 stream Int Header "ordered sequence within the epoch"),
    field!(7 seq Rising Centre "sequence number; contiguous within a stream, unique within a boot"),
    field!(8 ts Timestamp Centre "wall time, microseconds"),
    field!(9 ts_ns Rising Centre "wall time, unix nanoseconds"),
    field!(10 boot_ns Rising Row "raw CLOCK_BOOTTIME, nanoseconds: start of a call or wait, else the instant"),
    field!(11 clock_error_ns Rising Centre "how exactly ts_ns follows from boot_ns on this node, nanoseconds; says nothing of other nodes' clocks"),
];

/// Where the message that carried the record lies.
pub(super) const COORDINATES: &[Field] = &[
    field!(14 log_name Word Centre "log that carried it: a Kafka topic, which is `topic@2` once it was made anew, or another source"),
    field!(12 log_partition Int Centre "partition of that log"),
    field!(13 log_offset Rising Centre "offset of its message in that partition"),
];

pub(super) const EVENT: &[Field] = &[
    field!(20 source Int Row "where it was observed, see Sources"),
    field!(21 op Int Row "what happened, see Operations"),
    field!(22 duration_ns Rising Row ? "how long it took, nanoseconds; null when it was not measured, see Operations"),
    field!(23 pid Int Row "process (thread group) id"),
    field!(24 tid Int Row "thread id"),
    field!(25 comm Word Row ? "name of the thread"),
    field!(26 rank Int Row ? "rank of the process in its job"),
    field!(27 local_rank Int Row ? "rank on its node"),
    field!(28 world_size Int Row ? "ranks in the job"),
    field!(29 job_id Word Row ? "job the process belongs to"),
    field!(30 gpu_id Int Row ? "GPU ordinal"),
    field!(31 arg0 Long Row "first argument, see Operations"),
    field!(32 arg1 Long Row "second argument, see Operations"),
    field!(33 bytes Long Row ? "bytes moved or allocated"),
    field!(34 ret_code Int Row ? "return code; null for a call that ended with its thread"),
    field!(35 stack_hash Long Row "hash of the interned stack, 0 for none"),
    field!(36 cgroup_id Long Row "cgroup id, 0 for none"),
    field!(37 container_id Word Row ? "container id"),
    field!(38 pod Word Row ? "Kubernetes pod"),
    field!(39 namespace Word Row ? "Kubernetes namespace"),
    field!(40 comm_hash Long Row ? "hash of the NCCL communicator"),
    field!(41 coll_seq Rising Row ? "sequence number of the collective in its communicator"),
    field!(42 sample_weight Float Row "how many events this row stands for"),
    field!(43 source_id Id Row ? "id in the system the event was imported from, verbatim"),
    field!(44 peer_comm Word Row ? "name of the thread that took the CPU (runnable_wait)"),
    field!(45 peer_pid Int Row ? "process of the thread that took the CPU (runnable_wait)"),
    field!(46 duration_weight Float Row ? since 2 "how many events `duration_ns` stands for, more than `sample_weight` where only a sample of calls is timed; null without a duration"),
];

pub(super) const STACK: &[Field] = &[
    field!(20 stack_hash Long Row "hash that events refer to"),
    field!(21 ips Text Row "instruction pointers, JSON array of hexadecimal strings"),
    field!(22 frames Text Row ? "resolved frames, JSON"),
];

pub(super) const PROCESS: &[Field] = &[
    field!(20 pid Int Row "process id"),
    field!(21 name Word Row "process name"),
    field!(22 rank Int Row ? "rank of the process in its job"),
    field!(23 local_rank Int Row ? "rank on its node"),
    field!(24 world_size Int Row ? "ranks in the job"),
    field!(25 job_id Word Row ? "job the process belongs to"),
    field!(26 cgroup_id Long Row ? "cgroup id"),
    field!(27 container_id Word Row ? "container id"),
    field!(28 pod Word Row ? since 2 "Kubernetes pod"),
    field!(29 namespace Word Row ? since 2 "Kubernetes namespace"),
    field!(30 rank_source Word Row ? since 2 "what gave the rank: `environment at exec`, `environment`, or `ncclCommInitRank`; null without a rank"),
    field!(31 untraced Text Row ? since 2 "why no call of the process is recorded although it maps a CUDA or NCCL library; null while its calls are recorded"),
];

pub(super) const SESSION: &[Field] = &[
    field!(20 started_ns Long Row "when the agent started, unix nanoseconds"),
    field!(21 stopped_ns Long Row ? "when it stopped, unix nanoseconds"),
    field!(22 gpu_model Text Row ? "GPU model"),
    field!(23 gpu_driver Text Row ? "GPU driver version"),
    field!(24 cpu_model Text Row ? "CPU model"),
    field!(25 cpu_cores Int Row ? "CPU cores"),
    field!(26 mem_total_mb Long Row ? "memory, MiB"),
    field!(27 kernel Text Row ? "kernel release"),
    field!(28 os_release Text Row ? "operating system"),
    field!(29 cuda_version Text Row ? "CUDA version"),
    field!(30 python_version Text Row ? "Python version"),
    field!(31 agent_version Text Row ? "version of the agent"),
    field!(32 pid_filter Text Row ? "processes it was limited to"),
    field!(33 flags Text Row ? "options it ran with"),
    field!(34 rank Int Row ? "rank, where the agent serves one rank"),
    field!(35 local_rank Int Row ? "rank on its node"),
    field!(36 world_size Int Row ? "ranks in the job"),
];

pub(super) const SYSTEM: &[Field] = &[
    field!(20 cpu_pct Double Row ? "CPU use, per cent of all cores"),
    field!(21 mem_pct Double Row ? "memory use, per cent"),
    field!(22 mem_avail_mb Long Row ? "memory available, MiB"),
    field!(23 swap_mb Long Row ? "swap in use, MiB"),
    field!(24 load_avg Double Row ? "load average over one minute"),
];

pub(super) const CGROUP: &[Field] = &[
    field!(20 cgroup_id Long Row "cgroup id"),
    field!(21 container_id Word Row ? "container id"),
    field!(22 cgroup_path Text Row ? "path of the cgroup"),
    field!(23 pod Word Row ? "Kubernetes pod"),
    field!(24 namespace Word Row ? "Kubernetes namespace"),
];

pub(super) const CHAIN: &[Field] = &[
    field!(20 chain_id Text Row "id of the chain"),
    field!(21 detected_ns Long Row "when it was detected, unix nanoseconds"),
    field!(22 severity Word Row "HIGH, MEDIUM or LOW"),
    field!(23 summary Text Row "one line"),
    field!(24 root_cause Text Row ? "what caused it"),
    field!(25 explanation Text Row ? "paragraph"),
    field!(26 recommendations Text Row ? "fixes, JSON array of strings"),
    field!(27 op Word Row ? "operation that was slow"),
    field!(28 p99_us Long Row ? "p99 of the operation, microseconds"),
    field!(29 p50_us Long Row ? "p50 of the operation, microseconds"),
    field!(30 tail_ratio Double Row ? "p99 / p50"),
    field!(31 timeline Text Row ? "JSON array of {layer, op, detail, dur_us}"),
];

pub(super) const AGGREGATE: &[Field] = &[
    field!(20 source Int Row "where it was observed"),
    field!(21 op Int Row "what happened"),
    field!(22 pid Int Row "process id"),
    field!(23 count Long Row "events in the minute that begins at boot_ns, kept or not"),
    field!(24 stored Long Row "events of those kept as rows"),
    field!(25 sum_duration_ns Long Row ? "sum of durations; null when none was measured"),
    field!(26 min_duration_ns Long Row ? "shortest; null when none was measured"),
    field!(27 max_duration_ns Long Row ? "longest; null when none was measured"),
    field!(28 sum_arg0 Long Row "sum of arg0"),
];
