/*
 * stub-train: the training loop of one rank. Each iteration does real CPU work, launches kernels, copies, all-reduces
 * and synchronises; a rank that comes late to the all-reduce makes every other rank wait.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "train.h"

struct rank {
	const struct options *options;
	int number;
	struct stub_shared *shared;
	stub_stream_t stream;
	stub_comm_t comm;
	void *device;
	void *host;
	uint64_t iterations;
	uint64_t sync_ns; /* time inside cudaStreamSynchronize: a late rank has the least of it */
	uint64_t loop_ns;
};

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Needs exactly this much CPU time, however long it takes to get it. */
static void work(uint64_t cpu_us)
{
	uint64_t until = thread_cpu_ns() + cpu_us * 1000;
	volatile uint64_t sum = 0;

	while (thread_cpu_ns() < until)
		for (int i = 0; i < 2000; i++)
			sum += i;
}

static void kernel(void)
{
}

static void setup(struct rank *r)
{
	stub_unique_id id = { { 0 } };
	int pinned = r->options->rank_cpu[r->number];

	if (pinned >= 0)
		pin_to(pinned);
	usleep(r->options->start_delay_ms * 1000);
	r->shared = map_shared();
	if (cudaStreamCreate(&r->stream) || cudaMalloc(&r->device, 1 << 20) || cudaMalloc(&r->host, 1 << 20) ||
	    ncclCommInitRank(&r->comm, r->options->ranks, id, r->number)) {
		fprintf(stderr, "stub-train: rank %d: the stub libraries refused to start\n", r->number);
		exit(1);
	}
	cudaMemcpy(r->device, r->host, 4096, 1);
}

static void iterate(struct rank *r)
{
	const struct options *o = r->options;
	stub_dim3 grid = { 64, 1, 1 }, block = { 256, 1, 1 };
	uint64_t before;

	work(o->cpu_us);
	for (unsigned i = 0; i < o->launches; i++)
		cudaLaunchKernel((const void *)kernel, grid, block, NULL, 0, r->stream);
	cudaMemcpyAsync(r->device, r->host, o->copy_bytes, 1, r->stream);
	ncclAllReduce(r->device, r->device, 1 << 18, 7, 0, r->comm, r->stream);
	before = monotonic_ns();
	cudaStreamSynchronize(r->stream);
	r->sync_ns += monotonic_ns() - before;
}

/* Rank 0 decides, and publishes it before it arrives at the all-reduce: every rank then stops at the same iteration. */
static void decide_stop(struct rank *r, uint64_t next, uint64_t started)
{
	const struct options *o = r->options;
	int done = (o->iterations && next >= o->iterations) || atomic_load(&r->shared->stop_wanted) ||
		   (o->seconds && monotonic_ns() - started >= o->seconds * 1000000000);

	if (r->number == 0 && done)
		atomic_store(&r->shared->stop_at, next);
}

static void loop(struct rank *r)
{
	uint64_t started = monotonic_ns();

	for (uint64_t i = 0; i < atomic_load(&r->shared->stop_at) && !atomic_load(&r->shared->aborted); i++) {
		decide_stop(r, i + 1, started);
		iterate(r);
		r->iterations++;
	}
	r->loop_ns = monotonic_ns() - started;
}

static void teardown(struct rank *r)
{
	struct stub_launch_config config = { 1, 1, 1, 32, 1, 1, 0, r->stream, NULL, 0 };

	cudaLaunchKernelExC(&config, (const void *)kernel, NULL);
	cudaDeviceSynchronize();
	cudaMemcpy(r->host, r->device, 4096, 2);
	/* Last of all calls of CUDA: `bench detect` takes them for the end of the job. */
	cudaFree(r->host);
	cudaFree(r->device);
	ncclCommDestroy(r->comm);
}

/* One line, one write: the ranks append to the same file. */
static void write_counts(const struct rank *r)
{
	char line[4096];
	const char *comma = "";
	int fd = open(r->options->counts, O_WRONLY | O_CREAT | O_APPEND, 0644);
	int n = snprintf(line, sizeof(line), "{\"rank\":%d,\"pid\":%d,\"iterations\":%llu,\"sync_ns\":%llu,\"loop_ns\":%llu,\"calls\":{",
			 r->number, getpid(), (unsigned long long)r->iterations, (unsigned long long)r->sync_ns,
			 (unsigned long long)r->loop_ns);

	for (struct stub_count *c = stub_counts(); c; c = c->next) {
		n += snprintf(line + n, sizeof(line) - n, "%s\"%s\":%llu", comma, c->name, (unsigned long long)c->calls);
		comma = ",";
	}
	n += snprintf(line + n, sizeof(line) - n, "}}\n");
	if (fd < 0 || write(fd, line, n) != n) {
		perror("stub-train: cannot write the counts");
		exit(1);
	}
	close(fd);
}

static int run_rank(const struct options *o, int number)
{
	struct rank r = { .options = o, .number = number };

	setup(&r);
	loop(&r);
	teardown(&r);
	if (o->counts)
		write_counts(&r);
	return atomic_load(&r.shared->aborted) ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options options;
	const char *rank = getenv("RANK");

	if (!strcmp(argv[0], "cpu-hog") && argc == 3)
		run_hog(atoi(argv[1]), atoi(argv[2]));
	parse_options(argc, argv, &options);
	if (rank && getenv(STUB_SHARED_FD))
		return run_rank(&options, atoi(rank));
	return run_job(argc, argv, &options);
}
