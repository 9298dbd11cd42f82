// Sums and maxima over a warp or a block, in one fixed order: a butterfly over the lanes (distance
// 16, 8, 4, 2, 1), then the warps' results in warp order by one thread's loop. Every thread gets
// the result, and it has the same bits on every thread and in every run. Block reductions contain
// two barriers: all threads of the block call them.
#pragma once

#include "kernels/cuda/dev/warp.h"

namespace quire::cuda {

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over groups of kLanes neighbouring lanes (a power of two, 32: the warp).
template <int kLanes = kWarpSize, typename T, typename Op>
__device__ __forceinline__ T reduce_lanes(T value, Op op) {
  static_assert(kLanes > 0 && kLanes <= kWarpSize && (kLanes & (kLanes - 1)) == 0);
  QUIRE_UNROLL
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = op(value, shuffle_xor(value, distance));
  }
  return value;
}
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  return reduce_lanes(value, Sum{});
}
template <typename T>
__device__ __forceinline__ T warp_max(T value) {
  return reduce_lanes(value, Max{});
}

// The block must be a whole number of warps.
template <typename T, typename Op>
__device__ __forceinline__ T block_reduce(T value, Op op) {
  QUIRE_SHARED(partials, T[32]);
  value = reduce_lanes(value, op);
  if (lane_id() == 0) partials[warp_id()] = value;
  __syncthreads();
  T total = partials[0];
  for (int warp = 1; warp < block_warps(); ++warp) total = op(total, partials[warp]);
  __syncthreads();  // the next reduction writes the partials again
  return total;
}
template <typename T>
__device__ __forceinline__ T block_sum(T value) {
  return block_reduce(value, Sum{});
}
template <typename T>
__device__ __forceinline__ T block_max(T value) {
  return block_reduce(value, Max{});
}

}  // namespace quire::cuda
