/* The parts of stub-train: options, processes (ranks and hogs), and the training loop of one rank. */
#ifndef CAUSEWAY_TRAIN_H
#define CAUSEWAY_TRAIN_H

#include <stdint.h>

#include "stub.h"

#define MAX_RANKS 64

struct options {
	int ranks;
	uint64_t iterations; /* 0: until --seconds, or a signal */
	uint64_t seconds;    /* 0: until --iterations, or a signal */
	unsigned launches;
	uint64_t cpu_us;
	uint64_t gpu_us;
	uint64_t copy_bytes;
	uint64_t start_delay_ms;
	int rank_cpu[MAX_RANKS]; /* -1: not pinned */
	int hog_cpu;             /* -1: no hog */
	int hogs;
	int hog_nice;
	uint64_t hog_after_ms;
	int isolate;
	const char *counts;
	const char *job;
};

/* Fills `options`; prints what is wrong and exits 2, or the help and exits 0. */
void parse_options(int argc, char **argv, struct options *options);

/* Runs ranks and hogs as processes of their own and waits for the ranks. Returns the exit code. */
int run_job(int argc, char **argv, const struct options *options);

/* One busy process named cpu-hog, pinned; never returns. */
void run_hog(int cpu, int nice_value);

void pin_to(int cpu);
struct stub_shared *map_shared(void);
uint64_t monotonic_ns(void);

#endif
