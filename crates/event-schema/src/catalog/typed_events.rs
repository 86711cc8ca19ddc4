//! Generated from `catalog/ops.rs`; `BLESS=1 cargo test -p house-tests` writes it anew.

/// The view.
#[rustfmt::skip]
pub const SQL: &str = "SELECT event_id, cluster, node, boot_id, ts, ts_ns, source, op, op_name(source, op) AS op_name, duration_ns, duration_weight, pid, tid, comm, rank, local_rank, world_size, job_id, gpu_id, ret_code, stack_hash, comm_hash, coll_seq, peer_comm, peer_pid, sample_weight, CASE WHEN source = 1 AND op IN (2) OR source = 4 AND op IN (7) THEN arg0 WHEN source = 1 AND op IN (1) OR source = 4 AND op IN (5) THEN arg1 END AS \"address\", CASE WHEN source = 6 AND op IN (1) THEN arg0 END AS \"addresses\", CASE WHEN source = 11 AND op IN (1) THEN arg0 END AS \"attempts\", CASE WHEN source = 11 AND op IN (1) THEN NULL WHEN source = 1 AND op IN (1, 4, 7, 8, 9, 10, 11, 12) OR source = 3 AND op IN (3) OR source = 4 AND op IN (2, 3, 5, 6) THEN arg0 WHEN source = 3 AND op IN (20) OR source = 7 AND op IN (1, 2) THEN arg1 WHEN source = 9 AND op IN (3, 4, 5, 6, 7, 8) THEN bytes ELSE bytes END AS \"bytes\", TRY_CAST(CASE WHEN source = 3 AND op IN (5) THEN arg0 END AS INTEGER) AS \"caller_tid\", TRY_CAST(CASE WHEN source = 3 AND op IN (7) THEN arg0 END AS INTEGER) AS \"child_pid\", TRY_CAST(CASE WHEN source = 9 AND op IN (1) THEN arg1 END AS INTEGER) AS \"comm_rank\", CASE WHEN source = 9 AND op IN (3) THEN arg0 END AS \"communicator\", CASE WHEN source = 4 AND op IN (9) THEN arg0 END AS \"config\", TRY_CAST(CASE WHEN source = 1 AND op IN (4, 7, 9, 10) THEN arg1 END AS INTEGER) AS \"copy_kind\", CASE WHEN source = 3 AND op IN (20, 21) THEN arg0 END AS \"count\", CASE WHEN source = 1 AND op IN (5) OR source = 4 AND op IN (8) THEN arg0 WHEN source = 1 AND op IN (3) OR source = 4 AND op IN (1) OR source = 9 AND op IN (3) THEN arg1 END AS \"cuda_stream\", CASE WHEN source = 11 AND op IN (1) THEN bytes END AS \"drained\", CASE WHEN source = 12 AND op IN (1) THEN arg1 END AS \"error_ns\", TRY_CAST(CASE WHEN source = 3 AND op IN (6) THEN arg0 END AS INTEGER) AS \"exit_code\", CASE WHEN source = 7 AND op IN (1, 2) THEN arg0 END AS \"fd\", CASE WHEN source = 5 AND op IN (1, 2, 3) THEN arg1 END AS \"first_sector\", CASE WHEN source = 1 AND op IN (3) OR source = 4 AND op IN (1) THEN arg0 WHEN source = 4 AND op IN (9) THEN arg1 END AS \"function\", TRY_CAST(CASE WHEN source = 3 AND op IN (1) THEN arg1 END AS INTEGER) AS \"next_tid\", CASE WHEN source = 3 AND op IN (21) THEN arg1 END AS \"off_cpu_ns\", TRY_CAST(CASE WHEN source = 3 AND op IN (22) THEN arg0 END AS INTEGER) AS \"peer_tid\", CASE WHEN source = 6 AND op IN (1) THEN arg1 END AS \"ports\", CASE WHEN source = 3 AND op IN (23) THEN arg0 END AS \"prev_state\", CASE WHEN source = 9 AND op IN (1, 9) THEN arg0 END AS \"ranks\", TRY_CAST(CASE WHEN source = 3 AND op IN (22) THEN arg1 END AS INTEGER) AS \"reason\", CASE WHEN source = 11 AND op IN (1) THEN arg1 END AS \"ring_drop\", CASE WHEN source = 5 AND op IN (1, 2, 3) THEN arg0 END AS \"sectors\", TRY_CAST(CASE WHEN source = 3 AND op IN (6) THEN arg1 END AS INTEGER) AS \"signal\", TRY_CAST(CASE WHEN source = 3 AND op IN (23) THEN arg1 END AS INTEGER) AS \"waker_tid\", CASE WHEN source = 12 AND op IN (1) THEN arg0 END AS \"wall_ns\" FROM silver.events";

/// What its columns mean that `silver.events` does not have, with the unit.
#[rustfmt::skip]
pub const COLUMNS: &[(&str, &str)] = &[
    ("op_name", "name of the operation"),
    ("address", "address: device memory allocated, 0 where the call failed; device memory freed"),
    ("addresses", "packed: IPv4 source in the upper 32 bits, destination in the lower"),
    ("attempts", "count: records the probes wanted to send"),
    ("bytes", "bytes: size asked for; size copied; size allocated; their sum; size sent; size received; size of the buffer; size of the buffer sent; size of the buffer received"),
    ("caller_tid", "thread id: thread that called exec; the process goes on with its first thread's id"),
    ("child_pid", "process id: the child"),
    ("comm_rank", "rank: rank in it"),
    ("communicator", "handle: ncclComm_t"),
    ("config", "address: host address of the CUlaunchConfig"),
    ("copy_kind", "code: cudaMemcpyKind: 0 host to host, 1 to the device, 2 to the host, 3 on the device, 4 by the addresses; cudaMemcpyKind, as of `cudaMemcpy`"),
    ("count", "count: allocations; switches"),
    ("cuda_stream", "handle: CUDA stream; 0 for the default one, and where it lies in a structure; CUDA stream; 0 for the default one; CUDA stream"),
    ("drained", "count: records read from a ring"),
    ("error_ns", "nanoseconds: bound of its error"),
    ("exit_code", "code: as given to exit, 0 to 255"),
    ("fd", "handle: file descriptor"),
    ("first_sector", "sectors of 512 bytes: where it began"),
    ("function", "address or handle: host address of the kernel; CUfunction"),
    ("next_tid", "thread id: thread that got the CPU"),
    ("off_cpu_ns", "nanoseconds: time off the CPU, their sum"),
    ("peer_tid", "thread id: thread that used the CPU for most of the time, 0 for none"),
    ("ports", "packed: source and destination"),
    ("prev_state", "bits: state it slept in, as the kernel's TASK_ bits: 1 interruptible, 2 uninterruptible"),
    ("ranks", "count: ranks of the communicator; devices, each a rank"),
    ("reason", "code: what began the wait: 0 preempted, 1 woken"),
    ("ring_drop", "count: records a ring had no room for"),
    ("sectors", "sectors of 512 bytes: size read; size written; size discarded"),
    ("signal", "code: number of the signal that ended it, 0 for none"),
    ("waker_tid", "thread id: thread that woke it, 0 for none"),
    ("wall_ns", "nanoseconds: unix time at boot_ns"),
];
