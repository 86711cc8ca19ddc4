/* stub-identity: a process that states its rank in one of the ways that real programs do, and then calls CUDA. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stub.h"

extern char **environ;

static const char help[] =
	"usage: stub-identity MODE WAIT_MS CALLS LINGER_MS\n"
	"  plain    changes nothing\n"
	"  title    overwrites the memory of its arguments and environment with a title, as setproctitle does\n"
	"  fork     forks a child that sets RANK=6, LOCAL_RANK=2, WORLD_SIZE=16 itself; the child does the rest\n"
	"  inherit  sets its title and forks a child, which does the rest\n"
	"  worker   sets them itself, waits WAIT_MS and forks a child, which calls at once\n"
	"  nccl     gives rank 5 of 8 to ncclCommInitRank\n"
	"then waits WAIT_MS, calls cudaDeviceSynchronize CALLS times, and lives on for LINGER_MS\n";

/* The strings of the environment follow those of the arguments. A real program continues with a copy; this one discards
 * its environment, so that only the probes' copy holds it. */
static void set_title(int argc, char **argv)
{
	char *end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;

	for (char **variable = environ; *variable; variable++)
		if (*variable == end)
			end += strlen(end) + 1;
	memset(argv[0], 0, end - argv[0]);
	strcpy(argv[0], "ray::train");
	environ = NULL;
}

static void init_nccl(void)
{
	stub_unique_id id = { { 0 } };
	stub_comm_t comm;
	char number[16];
	int fd = memfd_create("stub-identity", 0);

	if (fd < 0 || ftruncate(fd, sizeof(struct stub_shared)))
		exit(3);
	snprintf(number, sizeof(number), "%d", fd);
	setenv(STUB_SHARED_FD, number, 1);
	if (ncclCommInitRank(&comm, 8, id, 5))
		exit(3);
}

static void wait_for_child(pid_t child)
{
	int status = 0;

	if (child < 0)
		exit(3);
	waitpid(child, &status, 0);
	exit(WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	char mode[16];
	long wait_ms, calls, linger_ms;

	if (argc != 5) {
		fputs(help, stderr);
		return 2;
	}
	snprintf(mode, sizeof(mode), "%s", argv[1]);
	wait_ms = atol(argv[2]);
	calls = atol(argv[3]);
	linger_ms = atol(argv[4]);
	if (!strcmp(mode, "title") || !strcmp(mode, "inherit"))
		set_title(argc, argv);
	if (!strcmp(mode, "fork") || !strcmp(mode, "inherit")) {
		pid_t child = fork();

		if (child)
			wait_for_child(child);
	}
	if (!strcmp(mode, "fork") || !strcmp(mode, "worker")) {
		setenv("RANK", "6", 1);
		setenv("LOCAL_RANK", "2", 1);
		setenv("WORLD_SIZE", "16", 1);
	}
	usleep(wait_ms * 1000);
	if (!strcmp(mode, "worker")) {
		pid_t child = fork();

		if (child)
			wait_for_child(child);
	}
	if (!strcmp(mode, "nccl"))
		init_nccl();
	for (long i = 0; i < calls; i++)
		cudaDeviceSynchronize();
	usleep(linger_ms * 1000);
	return 0;
}
