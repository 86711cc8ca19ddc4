/* Stub libcudart: every call goes through to the driver, as in the real runtime. */
#include "stub.h"

STUB_COUNTED(cudaLaunchKernel)
STUB_API int cudaLaunchKernel(const void *function, stub_dim3 grid, stub_dim3 block, void **args, size_t shared_bytes,
			      stub_stream_t stream)
{
	STUB_CALLED(cudaLaunchKernel);
	return cuLaunchKernel((void *)function, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, stream,
			      args, NULL);
}

STUB_COUNTED(cudaLaunchKernelExC)
STUB_API int cudaLaunchKernelExC(const struct stub_launch_config *config, const void *function, void **args)
{
	STUB_CALLED(cudaLaunchKernelExC);
	return cuLaunchKernelEx(config, (void *)function, args, NULL);
}

STUB_COUNTED(cudaMalloc)
STUB_API int cudaMalloc(void **out, size_t bytes)
{
	STUB_CALLED(cudaMalloc);
	return cuMemAlloc_v2((uint64_t *)out, bytes);
}

STUB_COUNTED(cudaFree)
STUB_API int cudaFree(void *pointer)
{
	STUB_CALLED(cudaFree);
	return cuMemFree_v2((uint64_t)pointer);
}

STUB_COUNTED(cudaMemcpy)
STUB_API int cudaMemcpy(void *dst, const void *src, size_t bytes, int kind)
{
	STUB_CALLED(cudaMemcpy);
	switch (kind) {
	case 1:
		return cuMemcpyHtoD_v2((uint64_t)dst, src, bytes);
	case 2:
		return cuMemcpyDtoH_v2(dst, (uint64_t)src, bytes);
	default:
		return cuMemcpy((uint64_t)dst, (uint64_t)src, bytes);
	}
}

STUB_COUNTED(cudaMemcpyAsync)
STUB_API int cudaMemcpyAsync(void *dst, const void *src, size_t bytes, int kind, stub_stream_t stream)
{
	STUB_CALLED(cudaMemcpyAsync);
	return cuMemcpyAsync((uint64_t)dst, (uint64_t)src, bytes, stream);
}

STUB_API int cudaStreamCreate(stub_stream_t *out)
{
	return cuStreamCreate(out, 0);
}

STUB_COUNTED(cudaStreamSynchronize)
STUB_API int cudaStreamSynchronize(stub_stream_t stream)
{
	STUB_CALLED(cudaStreamSynchronize);
	return cuStreamSynchronize(stream);
}

STUB_COUNTED(cudaDeviceSynchronize)
STUB_API int cudaDeviceSynchronize(void)
{
	STUB_CALLED(cudaDeviceSynchronize);
	return cuCtxSynchronize();
}
