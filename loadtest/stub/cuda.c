/* Stub libcuda: a GPU is a clock. Every launch and copy moves the time at which its stream will be idle; synchronising
 * sleeps until then. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "stub.h"

#define COPY_BYTES_PER_NS 10

struct stub_stream {
	_Atomic uint64_t idle_at_ns;
	void (*wait)(void *arg, uint32_t token);
	void *wait_arg;
	uint32_t wait_token;
};

static struct stub_stream default_stream;
static struct stub_count *counts;

STUB_API void stub_count_register(struct stub_count *count)
{
	count->next = counts;
	counts = count;
}

STUB_API struct stub_count *stub_counts(void)
{
	return counts;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t kernel_ns(void)
{
	static uint64_t cached = UINT64_MAX;

	if (cached == UINT64_MAX) {
		const char *text = getenv(STUB_KERNEL_NS);

		cached = text ? strtoull(text, NULL, 10) : 10000;
	}
	return cached;
}

static struct stub_stream *stream_or_default(stub_stream_t stream)
{
	return stream ? stream : &default_stream;
}

static void enqueue(stub_stream_t handle, uint64_t gpu_ns)
{
	struct stub_stream *s = stream_or_default(handle);
	uint64_t idle_at = atomic_load(&s->idle_at_ns);
	uint64_t now = now_ns();

	atomic_store(&s->idle_at_ns, (idle_at > now ? idle_at : now) + gpu_ns);
}

static void drain(struct stub_stream *s)
{
	uint64_t idle_at = atomic_load(&s->idle_at_ns);
	struct timespec until = { .tv_sec = idle_at / 1000000000, .tv_nsec = idle_at % 1000000000 };

	/* An absolute time: a signal that interrupts the sleep does not prolong it. */
	while (now_ns() < idle_at && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
	if (s->wait) {
		s->wait(s->wait_arg, s->wait_token);
		s->wait = NULL;
	}
}

STUB_API void stub_stream_then_wait(stub_stream_t handle, void (*wait)(void *arg, uint32_t token), void *arg,
				    uint32_t token)
{
	struct stub_stream *s = stream_or_default(handle);

	s->wait_arg = arg;
	s->wait_token = token;
	s->wait = wait;
}

STUB_COUNTED(cuLaunchKernel)
STUB_API int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
			    unsigned bz, unsigned shared_bytes, stub_stream_t stream, void **args, void **extra)
{
	STUB_CALLED(cuLaunchKernel);
	enqueue(stream, kernel_ns());
	return 0;
}

STUB_COUNTED(cuLaunchKernelEx)
STUB_API int cuLaunchKernelEx(const struct stub_launch_config *config, void *function, void **args, void **extra)
{
	STUB_CALLED(cuLaunchKernelEx);
	enqueue(config->stream, kernel_ns());
	return 0;
}

STUB_COUNTED(cuMemcpy)
STUB_API int cuMemcpy(uint64_t dst, uint64_t src, size_t bytes)
{
	STUB_CALLED(cuMemcpy);
	enqueue(NULL, bytes / COPY_BYTES_PER_NS);
	drain(&default_stream);
	return 0;
}

STUB_COUNTED(cuMemcpyHtoD_v2)
STUB_API int cuMemcpyHtoD_v2(uint64_t dst, const void *src, size_t bytes)
{
	STUB_CALLED(cuMemcpyHtoD_v2);
	enqueue(NULL, bytes / COPY_BYTES_PER_NS);
	drain(&default_stream);
	return 0;
}

STUB_COUNTED(cuMemcpyDtoH_v2)
STUB_API int cuMemcpyDtoH_v2(void *dst, uint64_t src, size_t bytes)
{
	STUB_CALLED(cuMemcpyDtoH_v2);
	enqueue(NULL, bytes / COPY_BYTES_PER_NS);
	drain(&default_stream);
	return 0;
}

STUB_COUNTED(cuMemcpyAsync)
STUB_API int cuMemcpyAsync(uint64_t dst, uint64_t src, size_t bytes, stub_stream_t stream)
{
	STUB_CALLED(cuMemcpyAsync);
	enqueue(stream, bytes / COPY_BYTES_PER_NS);
	return 0;
}

STUB_COUNTED(cuMemAlloc_v2)
STUB_API int cuMemAlloc_v2(uint64_t *out, size_t bytes)
{
	/*
	 * Address space only: a device pointer is never followed on the host. The size is kept in the page before it.
	 */
	size_t mapped = bytes + 4096;
	size_t *base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	STUB_CALLED(cuMemAlloc_v2);
	if (base == MAP_FAILED)
		return 2; /* CUDA_ERROR_OUT_OF_MEMORY */
	*base = mapped;
	*out = (uint64_t)base + 4096;
	return 0;
}

STUB_COUNTED(cuMemFree_v2)
STUB_API int cuMemFree_v2(uint64_t pointer)
{
	size_t *base = (size_t *)(pointer - 4096);

	STUB_CALLED(cuMemFree_v2);
	return pointer && munmap(base, *base) ? 1 : 0;
}

STUB_COUNTED(cuCtxSynchronize)
STUB_API int cuCtxSynchronize(void)
{
	STUB_CALLED(cuCtxSynchronize);
	drain(&default_stream);
	return 0;
}

STUB_COUNTED(cuStreamSynchronize)
STUB_API int cuStreamSynchronize(stub_stream_t stream)
{
	STUB_CALLED(cuStreamSynchronize);
	drain(stream_or_default(stream));
	return 0;
}

STUB_API int cuStreamCreate(stub_stream_t *out, unsigned flags)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : 2;
}
