/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Environments as programs began with them. A program may overwrite the memory of its environment (setproctitle does),
 * and it may end before user space has read it. So the variables that identify the job of a process are copied when
 * exec has built the environment and before the program runs; a forked child gets its parent's; those of traced
 * processes that have ended are kept until user space deletes them. User space looks them up by process.
 */
#ifndef CAUSEWAY_ENVIRON_H
#define CAUSEWAY_ENVIRON_H

/* A process without any wanted variable has an empty one: user space then has nothing to read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct cw_environ);
} environs SEC(".maps");

/*
 * Of processes whose records may still lie in a ring. Not an LRU table: before 6.16 each CPU sets 128 free nodes of one
 * aside, so that on a large machine one of this size would keep hardly more than an entry per CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct cw_environ);
} ended_environs SEC(".maps");

/*
 * Where the environment of a new program is put together. Of the exec program alone: a second instance of it never
 * begins on the same CPU before the first has ended, since tracepoint programs run with preemption off, or are not
 * entered twice where they do not.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cw_environ);
} environ_scratch SEC(".maps");

/* The first 16 bytes of "NAME=" of each variable to copy; rows at the end are empty. Set by user space. */
const volatile struct cw_variable variables[CW_VARIABLES] = {};

/* Where the reading of an environment stands. */
struct cw_reading {
	u64 at;
	u64 end;
	u64 is_rest; /* what comes next is the rest of a variable that was cut off */
};

static __always_inline bool is_wanted_variable(const u64 *variable)
{
	for (int i = 0; i < CW_VARIABLES; i++) {
		const volatile struct cw_variable *v = &variables[i];

		if (v->mask[0] && !((variable[0] ^ v->word[0]) & v->mask[0]) && !((variable[1] ^ v->word[1]) & v->mask[1]))
			return true;
	}
	return false;
}

static __always_inline struct cw_environ *scratch_environ(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&environ_scratch, &zero);
}

/*
 * One step of bpf_loop: 1 ends it. A variable is read to the stack, so that one that is not wanted never gets into a
 * map.
 */
static long copy_variable(u64 index, void *context)
{
	u64 variable[CW_VARIABLE_BYTES / sizeof(u64)];
	struct cw_environ *e = scratch_environ();
	struct cw_reading *reading = context;
	u64 is_rest = reading->is_rest;
	u32 used;
	long n;

	if (!e)
		return 1;
	if (reading->at >= reading->end) {
		e->is_cut = 0;
		return 1;
	}
	n = bpf_probe_read_user_str(variable, sizeof(variable), (void *)reading->at);
	if (n <= 0)
		return 1;
	reading->is_rest = n == CW_VARIABLE_BYTES;
	reading->at += reading->is_rest ? n - 1 : n;
	/* Behind the zero at its end lies what was there before: no name matches across it. */
	if (is_rest || !is_wanted_variable(variable))
		return 0;
	used = e->bytes;
	if (used > CW_ENVIRON_BYTES - CW_VARIABLE_BYTES)
		return 1;
	bpf_probe_read_kernel(&e->text[used], n, variable);
	e->bytes = used + n;
	return 0;
}

/* Runs in the process itself, whose stack exec has just written: no page of it has to be brought in. */
static __always_inline void copy_environ(struct task_struct *task)
{
	struct cw_reading reading = { .at = task->mm->env_start, .end = task->mm->env_end };
	struct cw_environ *e = scratch_environ();
	u32 tgid = task->tgid;

	if (!e)
		return;
	/* Volatile: clang would make a call of memset of it, which there is none of. */
	for (u32 i = 0; i < CW_ENVIRON_BYTES / sizeof(u64); i++)
		((volatile u64 *)e->text)[i] = 0;
	e->bytes = 0;
	/* Until the end of the environment has been reached, see copy_variable. */
	e->is_cut = 1;
	if (LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 17, 0)) /* the first with bpf_loop */
		bpf_loop(CW_VARIABLES_READ, copy_variable, &reading, 0);
	e->since_ns = bpf_ktime_get_boot_ns();
	e->born_ns = task->start_boottime;
	e->until_ns = 0;
	e->parent = 0;
	if (bpf_map_update_elem(&environs, &tgid, e, BPF_ANY))
		bpf_map_delete_elem(&environs, &tgid); /* that of its program before */
}

/*
 * The process that had the child's number before is gone. User space distinguishes the two by their births, so that
 * what is kept of it stays for its last records. Where nothing can be kept of the child, it would be taken for the
 * child's.
 */
static __always_inline void inherit_environ(struct task_struct *parent, struct task_struct *child)
{
	u32 parent_tgid = parent->tgid, tgid = child->tgid;
	struct cw_environ *e = bpf_map_lookup_elem(&environs, &parent_tgid);

	if (!e || bpf_map_update_elem(&environs, &tgid, e, BPF_ANY)) {
		bpf_map_delete_elem(&environs, &tgid);
		bpf_map_delete_elem(&ended_environs, &tgid);
		return;
	}
	e = bpf_map_lookup_elem(&environs, &tgid);
	if (!e)
		return;
	e->since_ns = bpf_ktime_get_boot_ns();
	e->born_ns = child->start_boottime;
	e->parent = parent_tgid;
}

static __always_inline void end_environ(u32 tgid, bool is_kept)
{
	struct cw_environ *e = bpf_map_lookup_elem(&environs, &tgid);

	if (!e)
		return;
	e->until_ns = bpf_ktime_get_boot_ns();
	if (is_kept && bpf_map_update_elem(&ended_environs, &tgid, e, BPF_ANY)) {
		struct cw_counters *c = counters_of(CW_CLASS_PROCESS);

		/* What is kept of the process before of that number would be taken for its own. */
		bpf_map_delete_elem(&ended_environs, &tgid);
		if (c)
			count(&c->environs_drop);
	}
	bpf_map_delete_elem(&environs, &tgid);
}

#endif
