/* The processes of a job: the launcher starts one process per rank by exec, as torchrun does, and the hogs that compete
 * with them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "train.h"

static struct stub_shared *job_shared;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "stub-train: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void pin_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot pin to the requested CPU");
}

struct stub_shared *map_shared(void)
{
	struct stub_shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(getenv(STUB_SHARED_FD)), 0);

	if (s == MAP_FAILED)
		die("cannot map the job's shared memory");
	return s;
}

void run_hog(int cpu, int nice_value)
{
	volatile uint64_t work = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "cpu-hog");
	pin_to(cpu);
	if (setpriority(PRIO_PROCESS, 0, nice_value))
		die("cannot set the hog's nice value");
	for (;;)
		work++;
}

/* By its path, because the kernel names a process after the file it was asked to run. */
__attribute__((noreturn)) static void run_self(char **argv)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n > 0) {
		path[n] = 0;
		execv(path, argv);
	}
	die("cannot run this program again");
}

static void set_number(const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	setenv(name, text, 1);
}

static pid_t start_rank(int rank, char **argv, const struct options *o)
{
	pid_t pid = fork();

	if (pid < 0)
		die("cannot start a rank");
	if (pid)
		return pid;
	/* A rank must not outlive a launcher that is killed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_IGN); /* the launcher ends the job in order */
	set_number("RANK", rank);
	set_number("LOCAL_RANK", rank);
	set_number("WORLD_SIZE", o->ranks);
	set_number(STUB_KERNEL_NS, o->launches ? o->gpu_us * 1000 / o->launches : 0);
	setenv("JOB_ID", o->job, 1);
	setenv("TORCHELASTIC_RUN_ID", o->job, 1);
	run_self(argv);
}

static pid_t start_hog(const struct options *o)
{
	char cpu[16], nice_value[16];
	char *argv[] = { "cpu-hog", cpu, nice_value, NULL };
	pid_t pid = fork();

	if (pid < 0)
		die("cannot start a hog");
	if (pid)
		return pid;
	snprintf(cpu, sizeof(cpu), "%d", o->hog_cpu);
	snprintf(nice_value, sizeof(nice_value), "%d", o->hog_nice);
	usleep(o->hog_after_ms * 1000);
	run_self(argv);
}

static void on_stop(int signal_number)
{
	atomic_store(&job_shared->stop_wanted, 1);
}

static void make_shared(int ranks)
{
	int fd = memfd_create("stub-train", 0);

	if (fd < 0 || ftruncate(fd, sizeof(struct stub_shared)))
		die("cannot make the job's shared memory");
	set_number(STUB_SHARED_FD, fd);
	job_shared = map_shared();
	atomic_store(&job_shared->ranks, ranks);
	atomic_store(&job_shared->stop_at, UINT64_MAX);
}

/* A session is a scheduling group of its own (autogroup), and its weight is that of a nice value. */
static void isolate(void)
{
	int fd;

	if (setsid() < 0) /* already a leader: its own group all the same */
		errno = 0;
	fd = open("/proc/self/autogroup", O_WRONLY);
	if (fd < 0 || write(fd, "-20", 3) != 3)
		fprintf(stderr, "stub-train: cannot isolate the job: /proc/self/autogroup: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Takes a process that was reaped off the list of hogs, if it is one: its number may be another process's from now on. */
static int drop_hog(pid_t pid, pid_t *hogs, int *count)
{
	for (int i = 0; i < *count; i++) {
		if (hogs[i] == pid) {
			hogs[i] = hogs[--*count];
			return 1;
		}
	}
	return 0;
}

int run_job(int argc, char **argv, const struct options *o)
{
	pid_t hogs[64];
	int failed = 0, running = o->ranks, hogging = o->hog_cpu < 0 ? 0 : o->hogs;
	struct sigaction stop = { .sa_handler = on_stop, .sa_flags = SA_RESTART };

	if (o->isolate)
		isolate();
	make_shared(o->ranks);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	for (int i = 0; i < hogging; i++)
		hogs[i] = start_hog(o);
	for (int rank = 0; rank < o->ranks; rank++)
		start_rank(rank, argv, o);
	while (running) {
		int status;
		pid_t pid = wait(&status);
		int is_hog = drop_hog(pid, hogs, &hogging);

		if (pid < 0 && errno != EINTR)
			die("lost the ranks");
		failed |= is_hog; /* it has printed why */
		if (pid < 0 || is_hog)
			continue;
		running--;
		if (status) {
			failed = 1;
			atomic_store(&job_shared->aborted, 1);
		}
	}
	for (int i = 0; i < hogging; i++) {
		kill(hogs[i], SIGKILL);
		waitpid(hogs[i], NULL, 0);
	}
	return failed;
}
