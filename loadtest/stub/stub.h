/*
 * What the stub libraries and the training program share. The declarations of CUDA and NCCL are our own, reduced to
 * what a tracer can see: names, argument order and argument sizes.
 */
#ifndef CAUSEWAY_STUB_H
#define CAUSEWAY_STUB_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define STUB_API __attribute__((visibility("default"), noinline))

typedef struct stub_stream *stub_stream_t;
typedef struct {
	unsigned x, y, z;
} stub_dim3;

/* ---- exact accounting: every exported API function counts its own calls ---- */

struct stub_count {
	const char *name;
	_Atomic uint64_t calls;
	struct stub_count *next;
};

/* Links a counter into the list of the process. */
STUB_API void stub_count_register(struct stub_count *count);
STUB_API struct stub_count *stub_counts(void);

#define STUB_COUNTED(function)                                                                                         \
	static struct stub_count count_##function = { .name = #function };                                             \
	__attribute__((constructor)) static void register_##function(void)                                             \
	{                                                                                                              \
		stub_count_register(&count_##function);                                                                \
	}

#define STUB_CALLED(function) atomic_fetch_add_explicit(&count_##function.calls, 1, memory_order_relaxed)

/* ---- libcuda ---- */

struct stub_launch_config {
	unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
	stub_stream_t stream;
	void *attributes;
	unsigned attribute_count;
};

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		   unsigned shared_bytes, stub_stream_t stream, void **args, void **extra);
int cuLaunchKernelEx(const struct stub_launch_config *config, void *function, void **args, void **extra);
int cuMemcpy(uint64_t dst, uint64_t src, size_t bytes);
int cuMemcpyHtoD_v2(uint64_t dst, const void *src, size_t bytes);
int cuMemcpyDtoH_v2(void *dst, uint64_t src, size_t bytes);
int cuMemcpyAsync(uint64_t dst, uint64_t src, size_t bytes, stub_stream_t stream);
int cuMemAlloc_v2(uint64_t *out, size_t bytes);
int cuMemFree_v2(uint64_t pointer);
int cuCtxSynchronize(void);
int cuStreamSynchronize(stub_stream_t stream);
int cuStreamCreate(stub_stream_t *out, unsigned flags);

/* The next synchronisation of `stream` also waits for `wait(arg, token)`: how the collective makes the stream wait. */
void stub_stream_then_wait(stub_stream_t stream, void (*wait)(void *arg, uint32_t token), void *arg, uint32_t token);

/* ---- libcudart ---- */

int cudaLaunchKernel(const void *function, stub_dim3 grid, stub_dim3 block, void **args, size_t shared_bytes,
		     stub_stream_t stream);
int cudaLaunchKernelExC(const struct stub_launch_config *config, const void *function, void **args);
int cudaMalloc(void **out, size_t bytes);
int cudaFree(void *pointer);
int cudaMemcpy(void *dst, const void *src, size_t bytes, int kind);
int cudaMemcpyAsync(void *dst, const void *src, size_t bytes, int kind, stub_stream_t stream);
int cudaStreamCreate(stub_stream_t *out);
int cudaStreamSynchronize(stub_stream_t stream);
int cudaDeviceSynchronize(void);

/* ---- libnccl ---- */

typedef struct stub_comm *stub_comm_t;
typedef struct {
	char internal[128];
} stub_unique_id;

int ncclCommInitRank(stub_comm_t *out, int ranks, stub_unique_id id, int rank);
int ncclCommDestroy(stub_comm_t comm);
int ncclAllReduce(const void *send, void *receive, size_t count, int dtype, int op, stub_comm_t comm,
		  stub_stream_t stream);

/* ---- memory shared by the ranks of a job; its descriptor is inherited, its number in STUB_SHARED_FD ---- */

struct stub_shared {
	_Atomic uint32_t arrived;
	_Atomic uint32_t generation; /* futex word: completed all-reduces */
	_Atomic uint32_t ranks;
	_Atomic uint32_t aborted; /* a rank died: the others must not wait for it */
	_Atomic uint64_t stop_at; /* no rank begins this iteration; written by rank 0 before it arrives */
	_Atomic uint32_t stop_wanted;
};

#define STUB_SHARED_FD "STUB_SHARED_FD"
/* Nanoseconds of GPU time per kernel launch. */
#define STUB_KERNEL_NS "STUB_KERNEL_NS"

#endif
