// Launching a kernel, in place of <<<>>>. `launch` is an ordinary launch; `launch_overlapped` lets
// the kernel begin while the one before it on the stream still runs (programmatic dependent launch,
// sm_90 and newer; elsewhere it is an ordinary launch): such a kernel calls
// `wait_for_previous_grid` before it reads or writes what the one before touches, and that one may
// call `allow_next_grid` once its own blocks have all begun their last work. Both return the
// launch's error, not the run's.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

// Programmatic dependent launch, from sm_90 on. A process computes on one kind of GPU.
inline bool overlaps_grids() {
  static const bool yes = [] {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 9;
  }();
  return yes;
}

template <typename... KernelArgs, typename... Args>
cudaError_t launch_with(bool overlapped, void (*kernel)(KernelArgs...), dim3 grid, dim3 block,
                        size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  static_assert(sizeof...(KernelArgs) == sizeof...(Args), "argument count of the kernel");
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
#ifdef __CUDACC__
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlapped && overlaps_grids() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<KernelArgs>(args)...);
#else
  static_cast<void>(overlapped);
  return cuda_emulation::launch_kernel(config, kernel, static_cast<KernelArgs>(args)...);
#endif
}

template <typename... KernelArgs, typename... Args>
cudaError_t launch(void (*kernel)(KernelArgs...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args&&... args) {
  return launch_with(false, kernel, grid, block, shared_bytes, stream, std::forward<Args>(args)...);
}

template <typename... KernelArgs, typename... Args>
cudaError_t launch_overlapped(void (*kernel)(KernelArgs...), dim3 grid, dim3 block,
                              size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  return launch_with(true, kernel, grid, block, shared_bytes, stream, std::forward<Args>(args)...);
}

// More than 48 KiB of dynamic shared memory must be asked for once per kernel and device.
template <typename... KernelArgs>
cudaError_t allow_shared_bytes(void (*kernel)(KernelArgs...), size_t bytes) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

__device__ __forceinline__ void wait_for_previous_grid() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void allow_next_grid() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace quire::cuda
