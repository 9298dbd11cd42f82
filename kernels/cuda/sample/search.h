// Searches over sums of integers: where a running sum reaches a target, and the same in an order
// that is found by radix, without sorting.
#pragma once

#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/sample/passes.h"

namespace quire::cuda::sampling {

// Inclusive sums over the lanes of a warp.
__device__ __forceinline__ Mass warp_prefix(Mass value) {
  QUIRE_UNROLL
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const Mass lower = shuffle_up(value, static_cast<unsigned>(distance));
    if (lane_id() >= distance) value += lower;
  }
  return value;
}

struct Crossing {
  int index;    // the first at which the sum reaches the target; the number of items if none
  Mass before;  // the sum of the items before it
};

// The crossing of get(0) + get(1) + ... + get(items - 1); a whole warp calls, all lanes get it.
// kPer: items that a lane sums before lanes are compared.
template <int kPer, typename Get>
__device__ Crossing warp_crossing(int items, Mass target, Get get) {
  Mass before = 0;
  for (int base = 0; base < items; base += kPer * kWarpSize) {
    const int first = base + kPer * lane_id();
    Mass own = 0;
    for (int i = 0; i < kPer; ++i) own += first + i < items ? get(first + i) : 0;
    const Mass up_to = warp_prefix(own);
    const unsigned reached = ballot(before + up_to >= target);
    if (reached == 0) {
      before += shuffle(up_to, kWarpSize - 1);
      continue;
    }
    const int lane = __ffs(static_cast<int>(reached)) - 1;
    Crossing found = {first, before + up_to - own};
    if (lane_id() == lane) {
      for (int i = 0; i + 1 < kPer; ++i) {
        const Mass next = found.before + get(found.index);
        if (next >= target) break;
        found.before = next;
        ++found.index;
      }
    }
    return {shuffle(found.index, lane), shuffle(found.before, lane)};
  }
  return {items, before};
}

// get(begin) + ... + get(end - 1), on all lanes.
template <typename Get>
__device__ Mass warp_total(int begin, int end, Get get) {
  Mass own = 0;
  for (int i = begin + lane_id(); i < end; i += kWarpSize) own += get(i);
  return warp_sum(own);
}

// 64-bit sums in shared memory, added up with the fast 32-bit atomics: exact, as every carry is
// seen by one thread.
template <int kCount>
struct SharedSums {
  std::uint32_t low[kCount];
  std::uint32_t high[kCount];

  __device__ __forceinline__ void clear() {
    for (int i = thread_rank(); i < kCount; i += block_threads()) low[i] = high[i] = 0;
  }
  __device__ __forceinline__ void add(int i, Mass amount) {
    const auto low_part = static_cast<std::uint32_t>(amount);
    const std::uint32_t old = atomicAdd(&low[i], low_part);
    const auto carry = static_cast<std::uint32_t>(amount >> 32) + (old + low_part < old ? 1u : 0u);
    if (carry != 0) atomicAdd(&high[i], carry);
  }
  __device__ __forceinline__ Mass get(int i) const {
    return static_cast<Mass>(high[i]) << 32 | low[i];
  }
};

// The largest value v such that the amounts of all items with a value of at least v sum up to at
// least `target` (at least 1, at most the sum of all). Values have kBits bits. `each(fn)` calls
// fn(value, amount function) for the items of this thread and does so again for each digit. All
// threads of the block call, all get v.
template <int kBits, typename Each>
__device__ Rank select_from_largest(Mass target, Each each) {
  constexpr int kDigit = 8;
  constexpr int kValues = 1 << kDigit;
  static_assert(kBits % kDigit == 0);
  struct Chosen {
    int digit;
    Mass before;
  };
  QUIRE_SHARED(sums, SharedSums<(1 << 8)>);
  QUIRE_SHARED(chosen, Chosen);
  Rank prefix = 0;  // the digits chosen so far
  for (int shift = kBits - kDigit; shift >= 0; shift -= kDigit) {
    sums.clear();
    __syncthreads();
    each([&](Rank value, auto amount) {
      const bool matches = shift + kDigit >= kBits || value >> (shift + kDigit) == prefix;
      if (matches) sums.add(static_cast<int>(value >> shift) & (kValues - 1), amount());
    });
    __syncthreads();
    if (warp_id() == 0) {
      const Crossing found = warp_crossing<kValues / kWarpSize>(
          kValues, target, [&](int i) { return sums.get(kValues - 1 - i); });
      if (lane_id() == 0) {
        chosen.digit = kValues - 1 - (found.index < kValues ? found.index : kValues - 1);
        chosen.before = found.before;
      }
    }
    __syncthreads();
    prefix = prefix << kDigit | static_cast<Rank>(chosen.digit);
    target -= chosen.before;
  }
  __syncthreads();  // the next selection writes `chosen` again
  return prefix;
}

}  // namespace quire::cuda::sampling
