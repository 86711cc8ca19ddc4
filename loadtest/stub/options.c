/* Command line of stub-train. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

static const char help[] =
	"usage: stub-train [OPTIONS]\n"
	"Trains nothing on stub CUDA and NCCL libraries: each rank is a process, an all-reduce is a real barrier.\n\n"
	"  --ranks N            ranks on this host (4)\n"
	"  --iterations N       stop after N iterations\n"
	"  --seconds S          stop after S seconds (10, unless --iterations is given)\n"
	"  --launches K         kernel launches per iteration (50)\n"
	"  --cpu-us US          CPU time each rank needs per iteration (500)\n"
	"  --gpu-us US          GPU time of an iteration's kernels (5000)\n"
	"  --copy-bytes B       size of the asynchronous copy per iteration (1048576)\n"
	"  --start-delay-ms MS  wait before the first CUDA call (0)\n"
	"  --pin R=CPU,...      pin ranks, e.g. 0=0,1=0,3=1 (r0=cpu0 is accepted too)\n"
	"  --apart R            pin rank R to the last CPU this process may use, and the others to the rest, in turn\n"
	"  --hog-cpu CPU        run busy processes named cpu-hog on CPU\n"
	"  --hog-rank R         run them on the CPU that rank R is pinned to\n"
	"  --hogs N             how many (1)\n"
	"  --hog-nice N         their nice value (0)\n"
	"  --hog-after-ms MS    start them this much later (0)\n"
	"  --isolate            run the job, hogs included, in a scheduling group of its own with the highest weight:\n"
	"                       other load on the machine then hardly matters (needs root)\n"
	"  --counts FILE        append one JSON line per rank: exact calls of each API function\n"
	"  --job NAME           job id in the ranks' environment (stub-train)\n";

enum {
	RANKS = 1,
	ITERATIONS,
	SECONDS,
	LAUNCHES,
	CPU_US,
	GPU_US,
	COPY_BYTES,
	START_DELAY,
	PIN,
	APART,
	HOG_CPU,
	HOG_RANK,
	HOGS,
	HOG_NICE,
	HOG_AFTER,
	ISOLATE,
	COUNTS,
	JOB,
	HELP,
};

static const struct option names[] = {
	{ "ranks", 1, 0, RANKS },           { "iterations", 1, 0, ITERATIONS },
	{ "seconds", 1, 0, SECONDS },       { "launches", 1, 0, LAUNCHES },
	{ "cpu-us", 1, 0, CPU_US },         { "gpu-us", 1, 0, GPU_US },
	{ "copy-bytes", 1, 0, COPY_BYTES }, { "start-delay-ms", 1, 0, START_DELAY },
	{ "pin", 1, 0, PIN },               { "hog-cpu", 1, 0, HOG_CPU },
	{ "hogs", 1, 0, HOGS },             { "hog-nice", 1, 0, HOG_NICE },
	{ "hog-after-ms", 1, 0, HOG_AFTER }, { "counts", 1, 0, COUNTS },
	{ "apart", 1, 0, APART },           { "hog-rank", 1, 0, HOG_RANK },
	{ "job", 1, 0, JOB },               { "isolate", 0, 0, ISOLATE },
	{ "help", 0, 0, HELP },
	{ 0 },
};

__attribute__((noreturn)) static void refuse(const char *option, const char *value, const char *wanted)
{
	fprintf(stderr, "stub-train: --%s %s: expected %s\n", option, value, wanted);
	exit(2);
}

static long number(const char *option, const char *value, long least, long most)
{
	char *end, wanted[64];
	long n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno || end == value || *end || n < least || n > most) {
		snprintf(wanted, sizeof(wanted), "a number from %ld to %ld", least, most);
		refuse(option, value, wanted);
	}
	return n;
}

/* "0=1,r2=cpu0": the letters are optional. */
static void parse_pins(const char *value, int *rank_cpu)
{
	const char *at = value;

	while (*at) {
		char *end;
		long rank, cpu;

		at += *at == 'r';
		rank = strtol(at, &end, 10);
		if (end == at || *end != '=' || rank < 0 || rank >= MAX_RANKS)
			refuse("pin", value, "RANK=CPU,...");
		at = end + 1;
		at += strncmp(at, "cpu", 3) ? 0 : 3;
		cpu = strtol(at, &end, 10);
		if (end == at || (*end && *end != ',') || cpu < 0)
			refuse("pin", value, "RANK=CPU,...");
		rank_cpu[rank] = cpu;
		at = end + (*end == ',');
	}
}

/* A rank whose CPU no other rank has: another process on that CPU slows this rank and no other. */
static void set_apart(int apart, int *rank_cpu)
{
	cpu_set_t usable;
	int last = CPU_SETSIZE - 1, cpu = -1;

	if (sched_getaffinity(0, sizeof(usable), &usable) || CPU_COUNT(&usable) < 2) {
		fprintf(stderr, "stub-train: --apart needs two CPUs\n");
		exit(2);
	}
	while (!CPU_ISSET(last, &usable))
		last--;
	for (int rank = 0; rank < MAX_RANKS; rank++) {
		if (rank == apart)
			continue;
		do
			cpu = (cpu + 1) % last;
		while (!CPU_ISSET(cpu, &usable));
		rank_cpu[rank] = cpu;
	}
	rank_cpu[apart] = last;
}

static void set(struct options *o, int option, const char *name, const char *value)
{
	switch (option) {
	case RANKS: o->ranks = number(name, value, 1, MAX_RANKS); break;
	case ITERATIONS: o->iterations = number(name, value, 1, 1L << 40); break;
	case SECONDS: o->seconds = number(name, value, 1, 1L << 30); break;
	case LAUNCHES: o->launches = number(name, value, 0, 1 << 24); break;
	case CPU_US: o->cpu_us = number(name, value, 0, 1L << 40); break;
	case GPU_US: o->gpu_us = number(name, value, 0, 1L << 40); break;
	case COPY_BYTES: o->copy_bytes = number(name, value, 0, 1L << 40); break;
	case START_DELAY: o->start_delay_ms = number(name, value, 0, 1L << 30); break;
	case PIN: parse_pins(value, o->rank_cpu); break;
	case APART: set_apart(number(name, value, 0, MAX_RANKS - 1), o->rank_cpu); break;
	case HOG_CPU: o->hog_cpu = number(name, value, 0, 4095); break;
	case HOG_RANK:
		o->hog_cpu = o->rank_cpu[number(name, value, 0, MAX_RANKS - 1)];
		if (o->hog_cpu < 0)
			refuse(name, value, "a rank that an option before this one has pinned");
		break;
	case HOGS: o->hogs = number(name, value, 1, 64); break;
	case HOG_NICE: o->hog_nice = number(name, value, -20, 19); break;
	case HOG_AFTER: o->hog_after_ms = number(name, value, 0, 1L << 30); break;
	case ISOLATE: o->isolate = 1; break;
	case COUNTS: o->counts = value; break;
	case JOB: o->job = value; break;
	case HELP: fputs(help, stdout); exit(0);
	default: fputs(help, stderr); exit(2);
	}
}

void parse_options(int argc, char **argv, struct options *o)
{
	int option, index = 0;

	*o = (struct options){ .ranks = 4,          .launches = 50, .cpu_us = 500, .gpu_us = 5000,
			       .copy_bytes = 1 << 20, .hog_cpu = -1,  .hogs = 1,     .job = "stub-train" };
	for (int i = 0; i < MAX_RANKS; i++)
		o->rank_cpu[i] = -1;
	while ((option = getopt_long(argc, argv, "", names, &index)) != -1)
		set(o, option, option == '?' ? "" : names[index].name, optarg);
	if (optind < argc)
		refuse("", argv[optind], "no arguments besides options");
	if (!o->iterations && !o->seconds)
		o->seconds = 10;
}
