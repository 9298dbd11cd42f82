// Atomics and flags under CUDA's names: real atomics of the host, because kernels of several host
// threads (ranks) may run at once. Each may let another lane go first, so that loops around them
// move on and orders vary with the seed.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

template <typename T, typename Update>
T atomic_update(T* address, Update update) {
  perhaps_yield();
  std::atomic_ref<T> word(*address);
  T seen = word.load();
  while (!word.compare_exchange_weak(seen, update(seen))) {
  }
  return seen;
}

inline uint32_t load_flag(const uint32_t* flag) {
  yield_lane();
  return std::atomic_ref<uint32_t>(*const_cast<uint32_t*>(flag)).load(std::memory_order_acquire);
}
inline void store_flag(uint32_t* flag, uint32_t value) {
  std::atomic_ref<uint32_t>(*flag).store(value, std::memory_order_release);
  perhaps_yield();
}

template <typename T>
using Same = std::type_identity_t<T>;

}  // namespace quire::cuda_emulation

template <typename T>
T atomicAdd(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address,
                                              [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicSub(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address,
                                              [=](T old) { return static_cast<T>(old - value); });
}
template <typename T>
T atomicMin(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address,
                                              [=](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address,
                                              [=](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicAnd(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address, [=](T old) { return old & value; });
}
template <typename T>
T atomicOr(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address, [=](T old) { return old | value; });
}
template <typename T>
T atomicXor(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address, [=](T old) { return old ^ value; });
}
template <typename T>
T atomicExch(T* address, quire::cuda_emulation::Same<T> value) {
  return quire::cuda_emulation::atomic_update(address, [=](T) { return value; });
}
// Old value back; counts up to `limit`, then starts again at 0.
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return quire::cuda_emulation::atomic_update(
      address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}
template <typename T>
T atomicCAS(T* address, quire::cuda_emulation::Same<T> expected,
            quire::cuda_emulation::Same<T> desired) {
  quire::cuda_emulation::perhaps_yield();
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, desired);
  return expected;
}

inline void __threadfence_block() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
inline void __threadfence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
inline void __threadfence_system() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
inline void __nanosleep(unsigned) {
  quire::cuda_emulation::yield_lane();
}
