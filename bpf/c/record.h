/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * What crosses the boundary between the probes and user space. User space takes the offsets of these structs from the
 * BTF of the compiled object, so a field is written down once, here.
 */
#ifndef CAUSEWAY_RECORD_H
#define CAUSEWAY_RECORD_H

#define CW_COMM_BYTES 16

/*
 * Loss is counted per class. Which ring a class writes is in its family's file; user space has the table in
 * src/class.rs.
 */
enum cw_class {
	CW_CLASS_CALL,    /* uprobes on CUDA and NCCL libraries */
	CW_CLASS_SCHED,   /* waits of traced threads */
	CW_CLASS_PROCESS, /* exec, exit and fork of traced processes: never sampled */
	CW_CLASS_NOTICE,  /* hints for discovery; not events */
	CW_CLASSES,
};

/* Which optional fields of a record hold a value. */
enum cw_field {
	CW_HAS_BYTES = 1,
	CW_HAS_RET = 2,
	CW_HAS_PEER = 4,
};

/*
 * In front of every record of the data and the critical ring. The class determines what follows; each family has a
 * record of its own size. All times are CLOCK_BOOTTIME nanoseconds; pid is the thread group, tid the thread.
 */
struct cw_head {
	u16 size; /* bytes of the record, the head included */
	u8 class;
	u8 fields; /* enum cw_field */
	u8 source;
	u8 op;
	u16 cpu;
	u64 boot_ns; /* when the call or the wait began */
	u64 cgroup_id;
	u32 pid;
	u32 tid;
	char comm[CW_COMM_BYTES];
};
_Static_assert(sizeof(struct cw_head) == 48, "heads are 48 bytes on both sides");

/* A call of a library, CW_CLASS_CALL. */
struct cw_call_record {
	struct cw_head head;
	u64 duration_ns; /* holds a value when duration_calls is not 0 */
	u64 arg0;
	u64 arg1;
	u64 bytes;
	u32 duration_calls; /* events that the duration stands for; 0: it was not measured */
	s32 ret_code;
};
_Static_assert(sizeof(struct cw_call_record) == 88, "records of calls are 88 bytes on both sides");

/* A wait, CW_CLASS_SCHED. */
struct cw_wait_record {
	struct cw_head head;
	u64 duration_ns;
	u32 reason;     /* of a wait for a CPU: enum cw_runnable_reason */
	u32 prev_state; /* of a sleep: the state it was in */
	u32 peer_pid;   /* who used the CPU meanwhile, or the waker */
	u32 peer_tid;
	char peer_comm[CW_COMM_BYTES];
};
_Static_assert(sizeof(struct cw_wait_record) == 88, "records of waits are 88 bytes on both sides");

/* Exec, exit or fork, CW_CLASS_PROCESS. */
struct cw_process_record {
	struct cw_head head;
	u32 child_pid;  /* of a fork */
	u32 caller_tid; /* of an exec: the thread that called it */
	u32 exit_code;  /* of an exit, as is the next */
	u32 signal;
};
_Static_assert(sizeof(struct cw_process_record) == 64, "records of processes are 64 bytes on both sides");

enum cw_notice_kind {
	CW_NOTICE_EXEC,       /* a process replaced its image: it may be about to load CUDA */
	CW_NOTICE_FIRST_CALL, /* a process not traced so far called into a probed library */
};

/* A hint that a process may be worth tracing. */
struct cw_notice {
	u64 boot_ns;
	u32 pid;
	u32 kind; /* enum cw_notice_kind */
	char comm[CW_COMM_BYTES];
};
_Static_assert(sizeof(struct cw_notice) == 32, "notices are 32 bytes on both sides");

#define CW_VARIABLES 24          /* variables that may be wanted */
#define CW_VARIABLES_READ 4096   /* variables of one environment that are looked at; a long one counts several times */
#define CW_VARIABLE_BYTES 192    /* of one variable, its name and the zero at its end included; the rest is cut off */
#define CW_ENVIRON_BYTES 1024

/*
 * The wanted variables of a process as they were when its program, or that of the ancestor it was forked from, began.
 */
struct cw_environ {
	u64 since_ns; /* exec, or fork */
	u64 born_ns;  /* when the process was made: distinguishes it from a later one of the same number */
	u64 until_ns; /* when it ended; 0 while it lives */
	u32 parent;   /* that it was forked from; 0 after an exec */
	u32 bytes;    /* used of text */
	u32 is_cut;   /* a wanted variable may be missing: not all could be looked at, or text is full */
	u32 reserved;
	char text[CW_ENVIRON_BYTES]; /* NAME=VALUE, each with a zero at its end */
};

/* "NAME=" as two words, and which of their bytes belong to it. */
struct cw_variable {
	u64 word[2];
	u64 mask[2];
};

/* Per CPU and class. attempts == received by user space + ring_drop, once every probe is detached. */
struct cw_counters {
	u64 attempts;    /* records that should have gone to a ring */
	u64 ring_drop;   /* of those: the ring was full */
	u64 sampled_out; /* waits shorter than the threshold, never attempted */
	u64 untracked;   /* calls or waits not followed because a table was full; all waits of a process are 1 */
	u64 environs_drop; /* environments of ended processes not kept for want of room; CW_CLASS_PROCESS alone */
};

/* How to read one probed function; travels as the 64-bit cookie of its uprobe. Words are numbered from 1, 0 is none. */
struct cw_call {
	u8 source;
	u8 op;
	u8 flags; /* enum cw_call_flag */
	u8 arg0_word;
	u8 arg1_word;
	u8 bytes_word;
	u8 scale_word; /* multiplies bytes_word */
	u8 reserved;
};
_Static_assert(sizeof(struct cw_call) == sizeof(u64), "a cookie is 64 bits");

enum cw_call_flag {
	CW_CALL_TIMED = 1,           /* emit at return, with duration and return code; or at its thread's end, without code */
	CW_CALL_ARG1_IS_OUT = 2,     /* arg1_word points at the result: read it at return */
	CW_CALL_SCALE_IS_DTYPE = 4,  /* scale_word is an ncclDataType_t */
	CW_CALL_ARGS_ARE_INTS = 8,   /* arg0 and arg1 are ints: what is above their 32 bits is left from before */
	CW_CALL_SAMPLED = 16,        /* emit at entry, but time one call in config.launch_sample */
};

/* What user space decided about a process. */
enum cw_target {
	CW_TARGET_TRACED = 1,
	CW_TARGET_IGNORED = 2,
};

struct cw_config {
	u64 min_runnable_ns; /* shorter waits are summed and counted, not sent */
	u64 min_blocked_ns;
	u64 data_wake_bytes; /* the reader is woken each time the data ring has grown by this much; a power of two */
	u32 adopt_callers;   /* a process that calls a probed library becomes a target */
	u32 cpus;            /* possible CPUs */
	u32 launch_sample;   /* one launch in so many, chosen at random, is timed; 0: none */
	u32 reserved;
};

struct cw_task {
	u32 pid;
	u32 tid;
	char comm[CW_COMM_BYTES];
};

enum cw_thread_state {
	CW_THREAD_RUNNING, /* on a CPU, or not seen since it was traced */
	CW_THREAD_RUNNABLE,
	CW_THREAD_BLOCKED,
};

enum cw_runnable_reason {
	CW_RUNNABLE_PREEMPTED = 0,
	CW_RUNNABLE_WOKEN = 1,
};

/* The wait a thread is in, and the sums of its waits whether they were sent or not. Gone when the thread exits. */
struct cw_thread {
	u64 since_ns;
	u64 runnable_ns;
	u64 runnable_count;
	u64 blocked_ns;
	u64 blocked_count;
	u32 state; /* enum cw_thread_state */
	u32 reason; /* enum cw_runnable_reason */
	u32 prev_state;
	u32 cpu; /* where the wait began */
	u32 pid;
	u32 reserved;
	struct cw_task waker;
	struct cw_task peer; /* the task that took the CPU when the thread was preempted; empty when it was woken */
};

#endif
