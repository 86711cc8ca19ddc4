/* Stub libnccl: an all-reduce is a barrier over the processes of the job, in two halves as on a GPU. Enqueueing it
 * announces this rank; the stream's next synchronisation waits until every rank has announced itself. So a late rank
 * makes all others wait, and itself waits least. */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

struct stub_comm {
	struct stub_shared *shared;
	int rank;
};

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static uint32_t arrive(struct stub_shared *s)
{
	uint32_t generation = atomic_load(&s->generation);

	if (atomic_fetch_add(&s->arrived, 1) + 1 == atomic_load(&s->ranks)) {
		/*
		 * Reset before the generation moves: a rank that is released may arrive at the next all-reduce at
		 * once.
		 */
		atomic_store(&s->arrived, 0);
		atomic_fetch_add(&s->generation, 1);
		futex(&s->generation, FUTEX_WAKE, INT_MAX, NULL);
	}
	return generation;
}

static void wait_for_all(void *arg, uint32_t generation)
{
	struct stub_shared *s = arg;
	/* The timeout only serves to notice that a rank has died. */
	struct timespec timeout = { .tv_sec = 1 };

	while (atomic_load(&s->generation) == generation && !atomic_load(&s->aborted))
		futex(&s->generation, FUTEX_WAIT, generation, &timeout);
}

STUB_COUNTED(ncclCommInitRank)
STUB_API int ncclCommInitRank(stub_comm_t *out, int ranks, stub_unique_id id, int rank)
{
	const char *fd = getenv(STUB_SHARED_FD);
	stub_comm_t comm = calloc(1, sizeof(*comm));

	STUB_CALLED(ncclCommInitRank);
	if (!fd || !comm)
		return 2; /* ncclSystemError */
	comm->rank = rank;
	comm->shared = mmap(NULL, sizeof(*comm->shared), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(fd), 0);
	if (comm->shared == MAP_FAILED)
		return 2;
	*out = comm;
	return 0;
}

STUB_COUNTED(ncclCommDestroy)
STUB_API int ncclCommDestroy(stub_comm_t comm)
{
	STUB_CALLED(ncclCommDestroy);
	munmap(comm->shared, sizeof(*comm->shared));
	free(comm);
	return 0;
}

STUB_COUNTED(ncclAllReduce)
STUB_API int ncclAllReduce(const void *send, void *receive, size_t count, int dtype, int op, stub_comm_t comm,
			   stub_stream_t stream)
{
	STUB_CALLED(ncclAllReduce);
	stub_stream_then_wait(stream, wait_for_all, comm->shared, arrive(comm->shared));
	return 0;
}
