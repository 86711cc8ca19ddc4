/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Waits of traced threads, split by reason: runnable (preempted, or woken and not yet given a CPU) and blocked (off the
 * CPU by the thread's own choice). A runnable wait names the task that used the CPU meanwhile, a blocked one its waker.
 *
 * sched_waking only notes the waker, because it runs in the waker's context; sched_wakeup moves the thread to runnable,
 * because it always comes after the thread's own sched_switch.
 */
#ifndef CAUSEWAY_SCHED_H
#define CAUSEWAY_SCHED_H

extern int LINUX_KERNEL_VERSION __kconfig;

#define CW_RUNS 16 /* a power of two */

struct cw_run {
	u64 start_ns;
	u64 end_ns;
	struct cw_task task;
};

/*
 * Which tasks ran on a CPU. Of past runs only those are kept that are longer than every run after them, a monotonic
 * stack from the longest to the newest: for any moment at which a wait began, the longest run since is among them. Its
 * depth is the logarithm of the number of runs; beyond CW_RUNS the oldest is discarded.
 */
struct cw_cpu {
	u64 top; /* one past the newest in `run`, counted without end */
	u64 bottom;
	u64 forgotten_ns; /* when the last discarded run ended */
	struct cw_run now; /* without an end */
	struct cw_run run[CW_RUNS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cw_cpu);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct cw_thread);
} threads SEC(".maps");

static __always_inline struct cw_thread *thread_of(struct task_struct *task)
{
	u32 tid = task->pid;

	return bpf_map_lookup_elem(&threads, &tid);
}

/* An exiting thread has left the table for good: it must not come back with its last switches. */
static __always_inline struct cw_thread *thread_of_or_new(struct task_struct *task)
{
	struct cw_thread *t = thread_of(task);
	struct cw_thread fresh = {};
	u32 tid = task->pid;

	if (t || task->flags & PF_EXITING)
		return t;
	fresh.pid = task->tgid;
	if (bpf_map_update_elem(&threads, &tid, &fresh, BPF_NOEXIST)) {
		count_untracked(CW_CLASS_SCHED);
		return NULL;
	}
	return bpf_map_lookup_elem(&threads, &tid);
}

static __always_inline u32 cpu_of(struct task_struct *task)
{
	struct task_struct___cpu_in_task *old = (void *)task;

	if (bpf_core_field_exists(task->thread_info.cpu))
		return task->thread_info.cpu;
	return BPF_CORE_READ(old, cpu);
}

static __always_inline struct cw_wait_record *wait_record(struct task_struct *task, u8 op, u64 since_ns, u64 waited_ns)
{
	struct cw_wait_record *r = reserve(&data_ring, CW_CLASS_SCHED, sizeof(*r));

	if (!r)
		return NULL;
	__builtin_memset(r, 0, sizeof(*r));
	fill_head(&r->head, sizeof(*r), CW_CLASS_SCHED, CW_SOURCE_HOST, op);
	fill_task(&r->head, task);
	r->head.boot_ns = since_ns;
	r->duration_ns = waited_ns;
	return r;
}

static __always_inline void fill_peer(struct cw_wait_record *r, const struct cw_task *peer)
{
	r->peer_tid = peer->tid;
	if (!peer->comm[0])
		return;
	r->head.fields |= CW_HAS_PEER;
	r->peer_pid = peer->pid;
	__builtin_memcpy(r->peer_comm, peer->comm, CW_COMM_BYTES);
}

static __always_inline bool is_too_short(u64 waited_ns, u64 threshold_ns)
{
	struct cw_counters *c;

	if (waited_ns >= threshold_ns)
		return false;
	c = counters_of(CW_CLASS_SCHED);
	if (c)
		count(&c->sampled_out);
	return true;
}

static __always_inline void end_blocked(struct task_struct *task, struct cw_thread *t, u64 now)
{
	u64 waited = now - t->since_ns;
	struct cw_wait_record *r;

	/* Summed before the threshold is applied: the totals hold every wait, recorded or not. */
	t->blocked_ns += waited;
	t->blocked_count++;
	if (is_too_short(waited, config.min_blocked_ns))
		return;
	r = wait_record(task, CW_OP_HOST_BLOCKED, t->since_ns, waited);
	if (!r)
		return;
	r->prev_state = t->prev_state;
	fill_peer(r, &t->waker);
	submit_data(r, sizeof(*r));
}

/* How much of a run lies after `since_ns`. */
static __always_inline u64 part_after(u64 start_ns, u64 end_ns, u64 since_ns)
{
	u64 start = start_ns > since_ns ? start_ns : since_ns;

	return end_ns > start ? end_ns - start : 0;
}

/*
 * The task with the longest run on the CPU while the thread waited. Time of discarded runs, and time
 * before the probes were attached, is ascribed to the task that preempted the thread; for a woken thread to none.
 */
static __always_inline const struct cw_task *longest_run(struct cw_thread *t, u64 now)
{
	u32 key = t->cpu;
	struct cw_cpu *cpu = bpf_map_lookup_elem(&cpus, &key);
	const struct cw_task *longest = &t->peer;
	u64 most;

	if (!cpu || !cpu->now.start_ns)
		return longest;
	/* A run must be longer than all the discarded time to be the longest for certain. */
	most = part_after(0, cpu->forgotten_ns, t->since_ns);
	for (u64 i = 1; i <= CW_RUNS && i <= cpu->top - cpu->bottom; i++) {
		struct cw_run *run = &cpu->run[(cpu->top - i) & (CW_RUNS - 1)];
		u64 part = part_after(run->start_ns, run->end_ns, t->since_ns);

		if (!part)
			break;
		if (part > most) {
			most = part;
			longest = &run->task;
		}
	}
	return part_after(cpu->now.start_ns, now, t->since_ns) > most ? &cpu->now.task : longest;
}

static __always_inline void end_runnable(struct task_struct *task, struct cw_thread *t, u64 now)
{
	u64 waited = now - t->since_ns;
	const struct cw_task *peer;
	struct cw_wait_record *r;

	t->runnable_ns += waited;
	t->runnable_count++;
	if (is_too_short(waited, config.min_runnable_ns))
		return;
	peer = longest_run(t, now);
	r = wait_record(task, CW_OP_HOST_RUNNABLE_WAIT, t->since_ns, waited);
	if (!r)
		return;
	r->reason = t->reason;
	fill_peer(r, peer);
	submit_data(r, sizeof(*r));
}

static __always_inline void begin_runnable(struct cw_thread *t, u64 now, u32 reason, u32 cpu)
{
	t->since_ns = now;
	t->state = CW_THREAD_RUNNABLE;
	t->reason = reason;
	t->cpu = cpu;
	__builtin_memset(&t->peer, 0, sizeof(t->peer));
}

static __always_inline void switched_in(struct task_struct *next, u64 now)
{
	struct cw_thread *t;

	if (!is_traced(next->tgid))
		return;
	t = thread_of(next);
	if (!t)
		return;
	if (t->state == CW_THREAD_RUNNABLE)
		end_runnable(next, t, now);
	else if (t->state == CW_THREAD_BLOCKED)
		end_blocked(next, t, now);
	t->state = CW_THREAD_RUNNING;
	t->waker.tid = 0;
	t->waker.comm[0] = 0;
}

static __always_inline void switched_out(struct task_struct *prev, struct task_struct *next, u64 now, bool runnable,
					 u32 prev_state)
{
	struct cw_thread *t;

	if (!is_traced(prev->tgid))
		return;
	t = thread_of_or_new(prev);
	if (!t)
		return;
	if (runnable) {
		begin_runnable(t, now, CW_RUNNABLE_PREEMPTED, bpf_get_smp_processor_id());
		task_identity(&t->peer, next);
		return;
	}
	t->since_ns = now;
	t->state = CW_THREAD_BLOCKED;
	t->prev_state = prev_state;
}

/* The run that ends takes the place of those before it that were not longer. */
static __always_inline void end_run(struct cw_cpu *cpu, u64 now)
{
	u64 ran = now - cpu->now.start_ns;
	struct cw_run *run;

	for (int i = 0; i < CW_RUNS && cpu->top != cpu->bottom; i++) {
		run = &cpu->run[(cpu->top - 1) & (CW_RUNS - 1)];
		if (run->end_ns - run->start_ns > ran)
			break;
		cpu->top--;
	}
	run = &cpu->run[cpu->top & (CW_RUNS - 1)];
	if (cpu->top - cpu->bottom == CW_RUNS) {
		cpu->forgotten_ns = run->end_ns;
		cpu->bottom++;
	}
	*run = cpu->now;
	run->end_ns = now;
	cpu->top++;
}

static __always_inline void remember_run(struct task_struct *next, u64 now)
{
	u32 key = bpf_get_smp_processor_id();
	struct cw_cpu *cpu = bpf_map_lookup_elem(&cpus, &key);

	if (!cpu)
		return;
	if (cpu->now.start_ns)
		end_run(cpu, now);
	cpu->now.start_ns = now;
	task_identity(&cpu->now.task, next);
}

/* Arguments: bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state (since 5.18). */
SEC("tp_btf/sched_switch")
int sched_switched(u64 *ctx)
{
	bool preempt = ctx[0] & 1;
	struct task_struct *prev = (void *)ctx[1];
	struct task_struct *next = (void *)ctx[2];
	u64 now = bpf_ktime_get_boot_ns();
	u32 prev_state;

	if (LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 18, 0))
		prev_state = *(volatile u64 *)&ctx[3];
	else
		prev_state = prev->__state;
	/*
	 * The wait of `next` ends before the run of this switch is recorded: `longest_run` then sees what ran until
	 * now.
	 */
	switched_in(next, now);
	switched_out(prev, next, now, preempt || prev_state == TASK_RUNNING, prev_state);
	remember_run(next, now);
	return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *task)
{
	struct cw_thread *t;

	if (!is_traced(task->tgid))
		return 0;
	t = thread_of(task);
	if (t)
		task_identity(&t->waker, bpf_get_current_task_btf());
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_woken, struct task_struct *task)
{
	struct cw_thread *t;
	u64 now;

	if (!is_traced(task->tgid))
		return 0;
	t = thread_of(task);
	if (!t || t->state != CW_THREAD_BLOCKED)
		return 0;
	now = bpf_ktime_get_boot_ns();
	/* One wait ends and the next begins at the same instant: no time is lost between them. */
	end_blocked(task, t, now);
	begin_runnable(t, now, CW_RUNNABLE_WOKEN, cpu_of(task));
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_woken_new, struct task_struct *task)
{
	struct cw_thread *t;

	if (!is_traced(task->tgid))
		return 0;
	t = thread_of_or_new(task);
	if (t)
		begin_runnable(t, bpf_ktime_get_boot_ns(), CW_RUNNABLE_WOKEN, cpu_of(task));
	return 0;
}

#endif
