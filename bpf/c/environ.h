/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Environments as programs began with them. A program may overwrite the memory of its environment (setproctitle does), and
 * it may end before user space has read it. So the variables that say whose process it is are copied when exec has built
 * the environment and before the program runs; a forked child gets its parent's; those of processes that ended last are
 * kept for a while. User space looks them up by process.
 */
#ifndef CAUSEWAY_ENVIRON_H
#define CAUSEWAY_ENVIRON_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct cw_environ);
} environs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 512);
	__type(key, u32);
	__type(value, struct cw_environ);
} ended_environs SEC(".maps");

/* Where an environment is put together: tracepoint programs run with preemption off. */
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

static __always_inline bool is_wanted_variable(const struct cw_environ *e)
{
	for (int i = 0; i < CW_VARIABLES; i++) {
		const volatile struct cw_variable *v = &variables[i];

		if (v->mask[0] && !((e->name[0] ^ v->word[0]) & v->mask[0]) && !((e->name[1] ^ v->word[1]) & v->mask[1]))
			return true;
	}
	return false;
}

static __always_inline struct cw_environ *scratch_environ(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&environ_scratch, &zero);
}

/* One step of bpf_loop: 1 ends it. */
static long copy_variable(u64 index, void *context)
{
	struct cw_environ *e = scratch_environ();
	struct cw_reading *reading = context;
	u64 is_rest = reading->is_rest;
	u32 used;
	long n;

	if (!e || reading->at >= reading->end)
		return 1;
	used = e->bytes;
	if (used > CW_ENVIRON_BYTES - CW_VARIABLE_BYTES)
		return 1;
	n = bpf_probe_read_user_str(&e->text[used], CW_VARIABLE_BYTES, (void *)reading->at);
	if (n <= 0)
		return 1;
	reading->is_rest = n == CW_VARIABLE_BYTES;
	reading->at += reading->is_rest ? n - 1 : n;
	if (is_rest)
		return 0;
	/* Behind the zero at its end lies what was there before: no name matches across it. */
	bpf_probe_read_kernel(e->name, sizeof(e->name), &e->text[used]);
	if (is_wanted_variable(e))
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
	e->bytes = 0;
	if (LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 17, 0)) /* the first with bpf_loop */
		bpf_loop(CW_VARIABLES_READ, copy_variable, &reading, 0);
	e->since_ns = bpf_ktime_get_boot_ns();
	e->parent = 0;
	if (e->bytes)
		bpf_map_update_elem(&environs, &tgid, e, BPF_ANY);
	else
		bpf_map_delete_elem(&environs, &tgid);
}

static __always_inline void inherit_environ(u32 parent, u32 child)
{
	struct cw_environ *of_parent = bpf_map_lookup_elem(&environs, &parent);
	struct cw_environ *e = scratch_environ();

	if (!of_parent || !e)
		return;
	bpf_probe_read_kernel(e, sizeof(*e), of_parent);
	e->since_ns = bpf_ktime_get_boot_ns();
	e->parent = parent;
	bpf_map_update_elem(&environs, &child, e, BPF_ANY);
}

static __always_inline void end_environ(u32 tgid)
{
	struct cw_environ *e = bpf_map_lookup_elem(&environs, &tgid);

	if (!e)
		return;
	bpf_map_update_elem(&ended_environs, &tgid, e, BPF_ANY);
	bpf_map_delete_elem(&environs, &tgid);
}

#endif
