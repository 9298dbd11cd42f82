// Loads and stores that say more than a plain pointer: wide, read-once, and the flags by which
// blocks, kernels and peers wait for each other. Vector accesses need an address aligned to their
// size (emulation aborts otherwise). Rules for flags: data is written plainly, then the flag by
// store_release (or fence + store_relaxed); who waits spins on load_acquire with spin_pause, then
// reads plainly. `_gpu` orders within one device, `_sys` also peers and the host.
#pragma once

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

// 16 bytes at once.
__device__ __forceinline__ uint4 load16(const void* from) {
#ifndef __CUDACC__
  cuda_emulation::check_aligned(from, 16, "load16");
#endif
  return *static_cast<const uint4*>(from);
}
__device__ __forceinline__ void store16(void* to, uint4 value) {
#ifndef __CUDACC__
  cuda_emulation::check_aligned(to, 16, "store16");
#endif
  *static_cast<uint4*>(to) = value;
}

// 16 and 4 bytes that nobody writes while the kernel runs and that are read once (weights): through
// the read-only path, not kept in L1.
__device__ __forceinline__ uint4 load16_once(const void* from) {
#ifdef __CUDACC__
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
#else
  return load16(from);
#endif
}
__device__ __forceinline__ uint2 load8_once(const void* from) {
#ifdef __CUDACC__
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(from));
  return v;
#else
  cuda_emulation::check_aligned(from, 8, "load8_once");
  return *static_cast<const uint2*>(from);
#endif
}
__device__ __forceinline__ uint32_t load4_once(const void* from) {
#ifdef __CUDACC__
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
#else
  cuda_emulation::check_aligned(from, 4, "load4_once");
  return *static_cast<const uint32_t*>(from);
#endif
}

// 16 bytes of memory that a peer device wrote before the flag we acquired.
__device__ __forceinline__ uint4 load16_peer(const void* from) {
#ifdef __CUDACC__
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
#else
  return load16(from);
#endif
}

// Flags: naturally aligned 32-bit words.
__device__ __forceinline__ uint32_t load_acquire_gpu(const uint32_t* flag) {
#ifdef __CUDACC__
  uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
  return v;
#else
  return cuda_emulation::load_flag(flag);
#endif
}
__device__ __forceinline__ uint32_t load_acquire_sys(const uint32_t* flag) {
#ifdef __CUDACC__
  uint32_t v;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
  return v;
#else
  return cuda_emulation::load_flag(flag);
#endif
}
__device__ __forceinline__ void store_release_gpu(uint32_t* flag, uint32_t value) {
#ifdef __CUDACC__
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
#else
  cuda_emulation::store_flag(flag, value);
#endif
}
__device__ __forceinline__ void store_release_sys(uint32_t* flag, uint32_t value) {
#ifdef __CUDACC__
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
#else
  cuda_emulation::store_flag(flag, value);
#endif
}
// Adds and returns the value before; releases what was written before, acquires what others
// released.
__device__ __forceinline__ uint32_t add_acq_rel_gpu(uint32_t* counter, uint32_t amount) {
#ifdef __CUDACC__
  uint32_t v;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(v)
               : "l"(counter), "r"(amount)
               : "memory");
  return v;
#else
  return atomicAdd(counter, amount);
#endif
}

__device__ __forceinline__ void fence_block() {
  __threadfence_block();
}
__device__ __forceinline__ void fence_gpu() {
  __threadfence();
}
__device__ __forceinline__ void fence_sys() {
  __threadfence_system();
}

// The body of a loop that waits for another block or device.
__device__ __forceinline__ void spin_pause() {
  __nanosleep(32);
}

}  // namespace quire::cuda
