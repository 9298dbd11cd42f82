// cp.async: copies from global to shared memory that run behind the thread's back, in groups.
//
//   async_copy<16>(shared, global);                  4, 8 or 16 bytes, both sides aligned to them
//   async_copy_or_zero<16>(shared, global, inside);  zeros and no read where `inside` is false
//   async_commit();                                  what was issued since the last one: a group
//   async_wait<1>();                                 returns when at most 1 group is under way
//
// Only the issuing thread's copies are waited for: a barrier after async_wait shows them to others.
// Emulation: the destination holds NaN bytes from the issue to the wait, then the data.
#pragma once

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

template <int kBytes>
__device__ __forceinline__ void async_copy_or_zero(void* shared, const void* global, bool inside) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#ifdef __CUDACC__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int read = inside ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
                 "r"(read)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(global),
                 "n"(kBytes), "r"(read)
                 : "memory");
  }
#else
  cuda_emulation::async_copy(shared, inside ? global : nullptr, kBytes);
#endif
}

template <int kBytes>
__device__ __forceinline__ void async_copy(void* shared, const void* global) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#ifdef __CUDACC__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(global),
                 "n"(kBytes)
                 : "memory");
  }
#else
  async_copy_or_zero<kBytes>(shared, global, true);
#endif
}

__device__ __forceinline__ void async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  cuda_emulation::async_commit();
#endif
}

template <int kPending>
__device__ __forceinline__ void async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  cuda_emulation::async_wait(kPending);
#endif
}

}  // namespace quire::cuda
