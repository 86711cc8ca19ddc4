/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * CUDA and NCCL calls: one entry program and one return program for every function. The cookie of a probe (struct
 * cw_call) holds what the function is and where its arguments are, so that a new probe is a row in a table of user
 * space. Launches are recorded at entry only: a return probe would double their cost and its duration says nothing
 * about a kernel that runs later. Where a sample of them is timed, a call that is not chosen costs what it costs
 * without: a session (6.13) has a return probe for the chosen calls only. Older kernels have one for each call.
 */
#ifndef CAUSEWAY_CALLS_H
#define CAUSEWAY_CALLS_H

/*
 * Since 7.0 it takes the context. Of a declaration that the kernel's function does not match libbpf makes an absent
 * one.
 */
extern bool bpf_session_is_return(void) __ksym __weak;
extern bool bpf_session_is_return___ctx(void *ctx) __ksym __weak;

#define CW_FRAMES 4 /* runtime call -> driver call -> callback -> ...: nothing real nests deeper */

/* A timed call that has not returned yet. The stack pointer makes the match exact after a longjmp. */
struct cw_frame {
	u64 cookie;
	u64 sp;
	u64 start_ns;
	u64 arg0;
	u64 arg1;
	u64 bytes;
	u64 calls; /* that the duration of this one stands for */
};

struct cw_frames {
	u64 depth;
	struct cw_frame frame[CW_FRAMES];
};

/* Task storage needs no size, no key and no clean-up when a thread dies inside a call. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cw_frames);
} frames SEC(".maps");

#if defined(__TARGET_ARCH_x86)
#define CW_REGISTER_WORDS 6
#define CW_STACK_SKIP 1 /* the return address */
#define CW_RETURN(ctx) ((ctx)->ax)
/* `ret` has popped the return address by the time a return probe runs. */
#define CW_ENTRY_SP_AT_RETURN(ctx) ((ctx)->sp - sizeof(u64))
#define CW_REGISTERS(ctx) { (ctx)->di, (ctx)->si, (ctx)->dx, (ctx)->cx, (ctx)->r8, (ctx)->r9 }
#else
#define CW_REGISTER_WORDS 8
#define CW_STACK_SKIP 0
#define CW_RETURN(ctx) ((ctx)->regs[0])
#define CW_ENTRY_SP_AT_RETURN(ctx) ((ctx)->sp)
#define CW_REGISTERS(ctx)                                                                                              \
	{ (ctx)->regs[0], (ctx)->regs[1], (ctx)->regs[2], (ctx)->regs[3],                                              \
	  (ctx)->regs[4], (ctx)->regs[5], (ctx)->regs[6], (ctx)->regs[7] }
#endif

/* Argument word `n`, counted from 1: registers first, then the stack. A struct by value takes one word per 8 bytes. */
static __always_inline u64 word(struct pt_regs *ctx, const u64 *registers, u32 n)
{
	u64 value = 0;
	u64 slot;

	if (n == 0)
		return 0;
	if (n <= CW_REGISTER_WORDS)
		return registers[(n - 1) & 7];
	slot = n - 1 - CW_REGISTER_WORDS + CW_STACK_SKIP;
	bpf_probe_read_user(&value, sizeof(value), (void *)(ctx->sp + slot * sizeof(u64)));
	return value;
}

/* Bytes per element of an ncclDataType_t, one nibble each: i8 u8 i32 u32 i64 u64 f16 f32 f64 bf16 f8 f8. */
static __always_inline u64 dtype_bytes(u64 dtype)
{
	return dtype < 12 ? (0x112842884411ULL >> (dtype * 4)) & 0xf : 0;
}

static __always_inline void read_args(struct pt_regs *ctx, const struct cw_call *call, struct cw_frame *f)
{
	u64 registers[8] = CW_REGISTERS(ctx);
	u64 scale;

	f->arg0 = word(ctx, registers, call->arg0_word);
	f->arg1 = word(ctx, registers, call->arg1_word);
	f->bytes = word(ctx, registers, call->bytes_word);
	if (call->flags & CW_CALL_ARGS_ARE_INTS) {
		f->arg0 = (s32)f->arg0;
		f->arg1 = (s32)f->arg1;
	}
	if (!call->scale_word)
		return;
	scale = word(ctx, registers, call->scale_word);
	f->bytes *= call->flags & CW_CALL_SCALE_IS_DTYPE ? dtype_bytes((u32)scale) : scale;
}

/* True when calls of this process are to be recorded. Calling CUDA is what makes a process a target. */
static __always_inline bool is_wanted(u32 tgid)
{
	u32 *target = bpf_map_lookup_elem(&targets, &tgid);
	u32 traced = CW_TARGET_TRACED;
	long err;

	if (target)
		return *target == CW_TARGET_TRACED;
	if (!config.adopt_callers)
		return false;
	err = bpf_map_update_elem(&targets, &tgid, &traced, BPF_NOEXIST);
	if (!err)
		notice(tgid, CW_NOTICE_FIRST_CALL);
	else if (!bpf_map_lookup_elem(&targets, &tgid))
		refuse(tgid); /* the table is full: calls are recorded, waits cannot be */
	return true;
}

static __always_inline struct cw_call_record *begin_record(const struct cw_call *call, const struct cw_frame *f)
{
	struct cw_call_record *r = reserve(&data_ring, CW_CLASS_CALL, sizeof(*r));
	u64 id = bpf_get_current_pid_tgid();

	if (!r)
		return NULL;
	__builtin_memset(r, 0, sizeof(*r));
	fill_head(&r->head, sizeof(*r), CW_CLASS_CALL, call->source, call->op);
	r->head.boot_ns = f->start_ns;
	r->head.fields = call->bytes_word ? CW_HAS_BYTES : 0;
	r->head.pid = id >> 32;
	r->head.tid = (u32)id;
	r->head.cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(r->head.comm, sizeof(r->head.comm));
	r->arg0 = f->arg0;
	r->arg1 = f->arg1;
	r->bytes = f->bytes;
	return r;
}

/*
 * Frames below the current stack pointer were left by longjmp or an exception; they only matter once they fill the
 * table.
 */
static __always_inline void discard_abandoned(struct cw_frames *fs, u64 sp)
{
#pragma unroll
	for (int i = 0; i < CW_FRAMES; i++) {
		u64 top = fs->depth - 1;

		if (top >= CW_FRAMES || fs->frame[top].sp > sp)
			return;
		fs->depth = top;
		count_untracked(CW_CLASS_CALL);
	}
}

/*
 * Drops the frames of earlier calls of this function at this place of the stack, and what was called in them: a jump
 * has left them, and the return of the next call there must not be taken for theirs.
 */
static __always_inline void discard_left(u64 cookie, u64 sp)
{
	struct cw_frames *fs = bpf_task_storage_get(&frames, bpf_get_current_task_btf(), NULL, 0);

	if (!fs)
		return;
#pragma unroll
	for (u64 i = 0; i < CW_FRAMES; i++) {
		if (i >= fs->depth || fs->frame[i].cookie != cookie || fs->frame[i].sp != sp)
			continue;
		for (u64 left = i; left < CW_FRAMES && left < fs->depth; left++)
			count_untracked(CW_CLASS_CALL);
		fs->depth = i;
		return;
	}
}

static __always_inline struct cw_frame *push_frame(u64 sp)
{
	struct cw_frames *fs =
		bpf_task_storage_get(&frames, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	u64 depth;

	if (!fs)
		return NULL;
	if (fs->depth >= CW_FRAMES)
		discard_abandoned(fs, sp);
	depth = fs->depth;
	if (depth >= CW_FRAMES)
		return NULL;
	fs->depth = depth + 1;
	return &fs->frame[depth];
}

/* Calls that the duration of this one will stand for; 0: it is not timed. */
static __always_inline u32 calls_timed(const struct cw_call *call)
{
	if (call->flags & CW_CALL_TIMED)
		return 1;
	if (!(call->flags & CW_CALL_SAMPLED) || !config.launch_sample)
		return 0;
	return bpf_get_prandom_u32() % config.launch_sample ? 0 : config.launch_sample;
}

/*
 * True when the return of the call is waited for. `is_probed_always`: the return of a call that is not sampled runs a
 * program, too.
 */
static __always_inline bool on_call_entry(struct pt_regs *ctx, bool is_probed_always)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	struct cw_frame instant = {};
	struct cw_frame *f = NULL;
	struct cw_call_record *r;
	struct cw_call call;
	u32 calls;

	if (!is_wanted(bpf_get_current_pid_tgid() >> 32))
		return false;
	__builtin_memcpy(&call, &cookie, sizeof(call));
	if (is_probed_always && config.launch_sample && call.flags & CW_CALL_SAMPLED)
		discard_left(cookie, ctx->sp);
	calls = calls_timed(&call);
	if (calls) {
		f = push_frame(ctx->sp);
		if (!f && call.flags & CW_CALL_TIMED) {
			count_untracked(CW_CLASS_CALL);
			return false;
		}
	}
	if (f) {
		f->cookie = cookie;
		f->sp = ctx->sp;
		f->calls = calls;
		read_args(ctx, &call, f);
		/* Last, so that the time of reading the arguments is not part of the call. */
		f->start_ns = bpf_ktime_get_boot_ns();
		return true;
	}
	read_args(ctx, &call, &instant);
	instant.start_ns = bpf_ktime_get_boot_ns();
	r = begin_record(&call, &instant);
	if (r)
		submit_data(r, sizeof(*r));
	return false;
}

static __always_inline struct cw_frame *pop_frame(u64 cookie, u64 sp)
{
	struct cw_frames *fs = bpf_task_storage_get(&frames, bpf_get_current_task_btf(), NULL, 0);

	if (!fs)
		return NULL;
#pragma unroll
	for (int i = CW_FRAMES - 1; i >= 0; i--) {
		if ((u64)i >= fs->depth || fs->frame[i].cookie != cookie || fs->frame[i].sp != sp)
			continue;
		for (u64 left = i + 1; left < CW_FRAMES && left < fs->depth; left++)
			count_untracked(CW_CLASS_CALL); /* inner calls that will never return */
		fs->depth = i;
		return &fs->frame[i];
	}
	return NULL;
}

static __always_inline int on_call_return(struct pt_regs *ctx)
{
	/* First, for the same reason as it is last at entry. */
	u64 now = bpf_ktime_get_boot_ns();
	u64 cookie = bpf_get_attach_cookie(ctx);
	struct cw_frame *f = pop_frame(cookie, CW_ENTRY_SP_AT_RETURN(ctx));
	struct cw_call_record *r;
	struct cw_call call;

	if (!f) /* the call began before its probe was there */
		return 0;
	__builtin_memcpy(&call, &cookie, sizeof(call));
	r = begin_record(&call, f);
	if (!r)
		return 0;
	r->duration_ns = now - f->start_ns;
	r->duration_calls = f->calls;
	r->ret_code = (s32)CW_RETURN(ctx);
	r->head.fields |= CW_HAS_RET;
	if (call.flags & CW_CALL_ARG1_IS_OUT) {
		r->arg1 = 0;
		/* cudaSuccess and CUDA_SUCCESS are 0. After a failure the result is not written. */
		if (!r->ret_code)
			bpf_probe_read_user(&r->arg1, sizeof(r->arg1), (void *)f->arg1);
	}
	submit_data(r, sizeof(*r));
	return 0;
}

/*
 * Calls of a thread that ends inside them, as a hung one does that is killed: each is recorded as far as it came,
 * without a return code. A frame below where the thread's stack ends was left by a jump before.
 */
static __always_inline void end_calls(struct task_struct *task, u64 now)
{
	struct cw_frames *fs = bpf_task_storage_get(&frames, task, NULL, 0);
	struct pt_regs *user;
	u64 depth;

	if (!fs || !fs->depth)
		return;
	depth = fs->depth;
	fs->depth = 0;
	user = (struct pt_regs *)bpf_task_pt_regs(task);
	for (u64 i = 0; i < CW_FRAMES && i < depth; i++) {
		struct cw_frame *f = &fs->frame[i];
		struct cw_call_record *r;
		struct cw_call call;

		if (f->sp < user->sp) {
			count_untracked(CW_CLASS_CALL);
			continue;
		}
		__builtin_memcpy(&call, &f->cookie, sizeof(call));
		r = begin_record(&call, f);
		if (!r)
			continue;
		r->duration_ns = now - f->start_ns;
		r->duration_calls = f->calls;
		if (call.flags & CW_CALL_ARG1_IS_OUT)
			r->arg1 = 0;
		submit_data(r, sizeof(*r));
	}
}

/* The same two programs for the two ways to attach: one link per library (6.6+), or one perf event per function. */
SEC("uprobe.multi")
int call_entry_multi(struct pt_regs *ctx)
{
	on_call_entry(ctx, true);
	return 0;
}

SEC("uretprobe.multi")
int call_return_multi(struct pt_regs *ctx)
{
	return on_call_return(ctx);
}

SEC("uprobe")
int call_entry_single(struct pt_regs *ctx)
{
	on_call_entry(ctx, true);
	return 0;
}

SEC("uretprobe")
int call_return_single(struct pt_regs *ctx)
{
	return on_call_return(ctx);
}

/* One program at both ends. 1 at the entry: the kernel does not come back at the return of this call. */
SEC("uprobe.session")
int call_session(struct pt_regs *ctx)
{
	bool is_return = false;

	if (bpf_ksym_exists(bpf_session_is_return))
		is_return = bpf_session_is_return();
	else if (bpf_ksym_exists(bpf_session_is_return___ctx))
		is_return = bpf_session_is_return___ctx(ctx);
	if (is_return)
		return on_call_return(ctx);
	return !on_call_entry(ctx, false);
}

#endif
