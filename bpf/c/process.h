/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * Fork, exec and exit of traced processes: critical records that are never sampled. Children of a traced process are
 * traced. Every exec on the host is also noticed to user space, which looks whether the new image loads CUDA.
 */
#ifndef CAUSEWAY_PROCESS_H
#define CAUSEWAY_PROCESS_H

static __always_inline struct cw_process_record *process_record(struct task_struct *task, u8 op)
{
	struct cw_process_record *r = reserve(&critical_ring, CW_CLASS_PROCESS, sizeof(*r));

	if (!r)
		return NULL;
	__builtin_memset(r, 0, sizeof(*r));
	fill_head(&r->head, sizeof(*r), CW_CLASS_PROCESS, CW_SOURCE_HOST, op);
	fill_task(&r->head, task);
	r->head.boot_ns = bpf_ktime_get_boot_ns();
	return r;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_forked, struct task_struct *parent, struct task_struct *child)
{
	struct cw_process_record *r;

	if (child->pid != child->tgid) /* a new thread is not a process */
		return 0;
	inherit_environ(parent, child);
	if (!is_traced(parent->tgid))
		return 0;
	/* Before the record: the child may call or wait before user space has read of it. */
	trace(child->tgid);
	r = process_record(parent, CW_OP_HOST_PROCESS_FORK);
	if (!r)
		return 0;
	r->child_pid = child->tgid;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_execed, struct task_struct *task, int old_tid)
{
	u32 old = old_tid;
	struct cw_process_record *r;

	copy_environ(task);
	notice(task->tgid, CW_NOTICE_EXEC);
	if (old_tid != task->pid) /* a thread other than the leader called exec and took the leader's tid */
		bpf_map_delete_elem(&threads, &old);
	if (!is_traced(task->tgid))
		return 0;
	r = process_record(task, CW_OP_HOST_PROCESS_EXEC);
	if (!r)
		return 0;
	r->caller_tid = old;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exited, struct task_struct *task)
{
	u32 tgid = task->tgid, tid = task->pid;
	u32 *target = bpf_map_lookup_elem(&targets, &tgid);
	struct cw_process_record *r;
	bool traced;
	int status;

	/* In every case: the entry would belong to another thread when the tid is used again. */
	bpf_map_delete_elem(&threads, &tid);
	end_calls(task, bpf_ktime_get_boot_ns());
	if (task->signal->live.counter) /* other threads go on */
		return 0;
	traced = target && *target == CW_TARGET_TRACED;
	end_environ(tgid, traced || bpf_map_lookup_elem(&refused, &tgid));
	bpf_map_delete_elem(&refused, &tgid);
	if (!target)
		return 0;
	/*
	 * Threads that end together may all find that no other goes on: the one that takes the process off the table
	 * reports its end.
	 */
	if (bpf_map_delete_elem(&targets, &tgid) || !traced)
		return 0;
	r = process_record(task, CW_OP_HOST_PROCESS_EXIT);
	if (!r)
		return 0;
	status = task->exit_code; /* as wait(2) reports it */
	r->exit_code = (status >> 8) & 0xff;
	r->signal = status & 0x7f;
	r->head.fields |= CW_HAS_RET;
	bpf_ringbuf_submit(r, 0);
	return 0;
}

#endif
