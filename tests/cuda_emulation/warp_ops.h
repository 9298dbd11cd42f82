// Shuffles, votes and warp-wide reductions under CUDA's names. Each is one warp operation: the last
// lane to arrive computes everybody's result.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

// value: what the lane gives; source: the lane it reads (already resolved to its own lane where
// CUDA gives the own value back). A source outside the mask gives NaN bytes: undefined in CUDA.
template <typename T>
struct Shuffle {
  T value;
  T result;
  int source;

  static void run(void* const* args, uint32_t mask) {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      auto* mine = static_cast<Shuffle*>(args[std::countr_zero(rest)]);
      const auto* other = static_cast<const Shuffle*>(args[mine->source]);
      if (mask >> mine->source & 1) {
        mine->result = other->value;
      } else {
        std::memset(static_cast<void*>(&mine->result), 0xff, sizeof(T));
      }
    }
  }
};

template <typename T>
T shuffle_from(uint32_t mask, T value, int source, const char* name) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "shuffle 4 or 8 bytes");
  Shuffle<T> record{value, value, source};
  warp_operation(mask, &record, &Shuffle<T>::run, name);
  return record.result;
}

struct Vote {
  bool predicate;
  uint32_t ballot;
  static void run(void* const* args, uint32_t mask);
};
uint32_t ballot_of(uint32_t mask, bool predicate);

struct Match {
  uint64_t value;
  uint32_t same;
  static void run(void* const* args, uint32_t mask);
};

struct IntegerReduction {
  uint32_t value;
  uint32_t sum, least, most, both, either;
  int32_t signed_least, signed_most;
  static void run(void* const* args, uint32_t mask);
};
IntegerReduction reduce_integers(uint32_t mask, uint32_t value);

inline int lane_index() {
  return current_lane->index;
}

}  // namespace quire::cuda_emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = quire::cuda_emulation::lane_index();
  return quire::cuda_emulation::shuffle_from(
      mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "__shfl_sync");
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = quire::cuda_emulation::lane_index();
  const int source = lane ^ lane_mask;
  return quire::cuda_emulation::shuffle_from(
      mask, value, source >= ((lane & ~(width - 1)) + width) || source > 31 ? lane : source,
      "__shfl_xor_sync");
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = quire::cuda_emulation::lane_index();
  const bool inside = (lane & (width - 1)) + delta < static_cast<unsigned>(width);
  return quire::cuda_emulation::shuffle_from(
      mask, value, inside ? lane + static_cast<int>(delta) : lane, "__shfl_down_sync");
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = quire::cuda_emulation::lane_index();
  const bool inside = static_cast<unsigned>(lane & (width - 1)) >= delta;
  return quire::cuda_emulation::shuffle_from(
      mask, value, inside ? lane - static_cast<int>(delta) : lane, "__shfl_up_sync");
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return quire::cuda_emulation::ballot_of(mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, !predicate) == 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  static_assert(std::is_integral_v<T> || std::is_floating_point_v<T>);
  quire::cuda_emulation::Match record{0, 0};
  std::memcpy(&record.value, &value, sizeof(T));
  quire::cuda_emulation::warp_operation(mask, &record, &quire::cuda_emulation::Match::run,
                                        "__match_any_sync");
  return record.same;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  quire::cuda_emulation::warp_operation(mask, nullptr, nullptr, "__syncwarp");
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return quire::cuda_emulation::reduce_integers(mask, value).sum;
}
inline int __reduce_add_sync(unsigned mask, int value) {
  return static_cast<int>(
      quire::cuda_emulation::reduce_integers(mask, static_cast<uint32_t>(value)).sum);
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return quire::cuda_emulation::reduce_integers(mask, value).least;
}
inline int __reduce_min_sync(unsigned mask, int value) {
  return quire::cuda_emulation::reduce_integers(mask, static_cast<uint32_t>(value)).signed_least;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return quire::cuda_emulation::reduce_integers(mask, value).most;
}
inline int __reduce_max_sync(unsigned mask, int value) {
  return quire::cuda_emulation::reduce_integers(mask, static_cast<uint32_t>(value)).signed_most;
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return quire::cuda_emulation::reduce_integers(mask, value).either;
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return quire::cuda_emulation::reduce_integers(mask, value).both;
}
