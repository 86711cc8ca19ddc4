/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* Maps, configuration, and the one way to send a record: every attempt and every failed reserve is counted. */
#ifndef CAUSEWAY_MAPS_H
#define CAUSEWAY_MAPS_H

const volatile struct cw_config config = {};

/* Never read by the probes: it keeps in the object's BTF what user space takes from there. */
const volatile struct {
	struct cw_call_record call_record;
	struct cw_wait_record wait_record;
	struct cw_process_record process_record;
	struct cw_notice notice;
	struct cw_call call;
	enum cw_class class;
	enum cw_field field;
	enum cw_notice_kind notice_kind;
	enum cw_call_flag call_flag;
	enum cw_target target;
	struct cw_environ environ;
	struct cw_variable variable;
} layouts = {};

/* Sizes are set by user space before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} data_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} critical_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} notice_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CW_CLASSES);
	__type(key, u32);
	__type(value, struct cw_counters);
} counters SEC(".maps");

/* Thread group -> enum cw_target. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u32);
} targets SEC(".maps");

/* Processes that `targets` had no room for, so that each is counted once. The least recently used are evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} refused SEC(".maps");

/* Uprobe programs may be preempted between load and store, so even per-CPU counters are added to atomically. */
static __always_inline void count(u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline struct cw_counters *counters_of(u32 class)
{
	return bpf_map_lookup_elem(&counters, &class);
}

static __always_inline void count_untracked(u32 class)
{
	struct cw_counters *c = counters_of(class);

	if (c)
		count(&c->untracked);
}

static __always_inline void *reserve(void *ring, u32 class, u64 size)
{
	struct cw_counters *c = counters_of(class);
	void *space;

	if (!c)
		return NULL;
	/* Counted before the reservation: attempts == received + ring_drop then holds for every outcome. */
	count(&c->attempts);
	space = bpf_ringbuf_reserve(ring, size, 0);
	if (!space)
		count(&c->ring_drop);
	return space;
}

/*
 * Waking the reader costs several times the event itself, so it happens once per quarter of the ring; in between the
 * reader comes by on its own timer.
 */
static __always_inline void submit_data(void *record, u64 size)
{
	u64 step = config.data_wake_bytes;
	u64 filled = bpf_ringbuf_query(&data_ring, BPF_RB_AVAIL_DATA);
	u64 before = filled - size - 8; /* 8: the ring's own header */
	bool crossed = (filled & -step) != (before & -step);

	bpf_ringbuf_submit(record, crossed ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* The record that the head belongs to is all zeros. */
static __always_inline void fill_head(struct cw_head *h, u16 size, u8 class, u8 source, u8 op)
{
	h->size = size;
	h->class = class;
	h->source = source;
	h->op = op;
	h->cpu = bpf_get_smp_processor_id();
}

static __always_inline void fill_task(struct cw_head *h, struct task_struct *task)
{
	h->pid = task->tgid;
	h->tid = task->pid;
	h->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
	__builtin_memcpy(h->comm, task->comm, CW_COMM_BYTES);
}

static __always_inline void task_identity(struct cw_task *out, struct task_struct *task)
{
	out->pid = task->tgid;
	out->tid = task->pid;
	__builtin_memcpy(out->comm, task->comm, CW_COMM_BYTES);
}

static __always_inline void notice(u32 pid, u32 kind)
{
	struct cw_notice *n = reserve(&notice_ring, CW_CLASS_NOTICE, sizeof(*n));

	if (!n)
		return;
	n->boot_ns = bpf_ktime_get_boot_ns();
	n->pid = pid;
	n->kind = kind;
	bpf_get_current_comm(n->comm, sizeof(n->comm));
	bpf_ringbuf_submit(n, 0);
}

static __always_inline bool is_traced(u32 tgid)
{
	u32 *target = bpf_map_lookup_elem(&targets, &tgid);

	return target && *target == CW_TARGET_TRACED;
}

/* What is lost is the waits of a process, whose number is not known: the program that finds no room counts it once. */
static __always_inline void refuse(u32 tgid)
{
	u32 known = 1;

	if (!bpf_map_update_elem(&refused, &tgid, &known, BPF_NOEXIST))
		count_untracked(CW_CLASS_SCHED);
}

static __always_inline void trace(u32 tgid)
{
	u32 traced = CW_TARGET_TRACED;

	if (bpf_map_update_elem(&targets, &tgid, &traced, BPF_ANY))
		refuse(tgid);
}

#endif
