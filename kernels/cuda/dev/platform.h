// What both worlds need first: the CUDA headers, the two ways to name shared memory, unrolling.
//
//   QUIRE_SHARED(sums, float[4][32]);       static shared memory: name, type; 16-byte aligned
//   QUIRE_DYN_SMEM(float, tiles);           dynamic shared memory: `float* tiles`, 16-byte aligned
//                                           (128 where the launch asked for a multiple of 128
//                                           bytes)
//
// Bare __shared__ does not compile under emulation: blocks are interleaved there, so a variable of
// a block must be found through the block. All blocks start with NaN bytes in both.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#if !defined(__CUDACC__) && !defined(QUIRE_CUDA_EMULATION)
#error "compile device code with nvcc or with tests/cuda_emulation (quire_emulated_cuda_library)"
#endif

namespace quire::cuda {
template <typename T>
using SharedType = T;

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
}  // namespace quire::cuda

#ifdef __CUDACC__
#define QUIRE_SHARED(name, ...) __shared__ __align__(16)::quire::cuda::SharedType<__VA_ARGS__> name
#define QUIRE_DYN_SMEM(T, name)                                          \
  extern __shared__ __align__(128) unsigned char quire_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(quire_dynamic_shared)
#define QUIRE_UNROLL _Pragma("unroll")
#define QUIRE_NO_UNROLL _Pragma("unroll 1")
#else
#define QUIRE_SHARED(name, ...)                                                                \
  static constexpr ::quire::cuda_emulation::SharedKey quire_key_##name{#name};                 \
  auto& name = ::quire::cuda_emulation::static_shared<::quire::cuda::SharedType<__VA_ARGS__>>( \
      &quire_key_##name)
#define QUIRE_DYN_SMEM(T, name) \
  T* const name = static_cast<T*>(::quire::cuda_emulation::dynamic_shared())
#define QUIRE_UNROLL
#define QUIRE_NO_UNROLL
#endif
