// Included before a .cu file when it is compiled for emulation (quire_cuda.cmake does so). Takes
// CUDA's own headers for types and conversions first, then gives the device keywords and the
// built-in variables and functions their meaning on the CPU.
#pragma once

#define QUIRE_CUDA_EMULATION 1

// The standard library first: CUDA's headers define names such as __noinline__ as macros.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __shared__ error_write_QUIRE_SHARED_or_QUIRE_DYN_SMEM_instead_of_bare_shared

#include "tests/cuda_emulation/async_copy.h"
#include "tests/cuda_emulation/atomics.h"
#include "tests/cuda_emulation/intrinsics.h"
#include "tests/cuda_emulation/lane.h"
#include "tests/cuda_emulation/launch.h"
#include "tests/cuda_emulation/matrix.h"
#include "tests/cuda_emulation/warp_ops.h"

#define warpSize 32
#define __syncthreads() ::quire::cuda_emulation::block_barrier(__FILE__, __LINE__)
#define __syncthreads_count(p) ::quire::cuda_emulation::block_count((p) != 0, __FILE__, __LINE__)
#define __syncthreads_or(p) (__syncthreads_count(p) != 0)
#define __syncthreads_and(p) (__syncthreads_count(!(p)) == 0)
