// The emulated device's size: how many blocks it holds at once.
#pragma once

#include <cstddef>

namespace quire::cuda_emulation {

inline constexpr int kMultiprocessors = 4;
inline constexpr size_t kSharedPerBlock = 48 * 1024;        // without asking
inline constexpr size_t kSharedPerBlockOptIn = 227 * 1024;  // with cudaFuncSetAttribute
inline constexpr size_t kSharedPerMultiprocessor = 228 * 1024;

// Blocks on one multiprocessor: two, or one where two would be over 1,024 threads or over its
// shared memory; 0 where not even one fits.
inline int blocks_per_multiprocessor(int threads, size_t dynamic_bytes) {
  if (threads < 1 || threads > 1024 || dynamic_bytes > kSharedPerBlockOptIn) return 0;
  return threads > 512 || 2 * dynamic_bytes > kSharedPerMultiprocessor ? 1 : 2;
}
inline size_t resident_limit(int threads, size_t dynamic_bytes) {
  return static_cast<size_t>(kMultiprocessors * blocks_per_multiprocessor(threads, dynamic_bytes));
}

}  // namespace quire::cuda_emulation
