// Lanes and warps: who am I, shuffles, votes. T of a shuffle is any 4- or 8-byte value. All lanes
// of the warp take part unless a mask is given; a mask names the caller and no lane that has
// returned.
#pragma once

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

// Linear thread number within the block, for blocks of any shape.
__device__ __forceinline__ int thread_rank() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
__device__ __forceinline__ int block_threads() {
  return static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
}
__device__ __forceinline__ int lane_id() {
  return thread_rank() % kWarpSize;
}
__device__ __forceinline__ int warp_id() {
  return thread_rank() / kWarpSize;
}
__device__ __forceinline__ int block_warps() {
  return (block_threads() + kWarpSize - 1) / kWarpSize;
}

// The value of lane (own ^ lane_mask), (own + delta), (own - delta), or `source`; a lane without
// such a partner gets its own value back.
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int lane_mask, unsigned mask = kAllLanes) {
  return __shfl_xor_sync(mask, value, lane_mask);
}
template <typename T>
__device__ __forceinline__ T shuffle_down(T value, unsigned delta, unsigned mask = kAllLanes) {
  return __shfl_down_sync(mask, value, delta);
}
template <typename T>
__device__ __forceinline__ T shuffle_up(T value, unsigned delta, unsigned mask = kAllLanes) {
  return __shfl_up_sync(mask, value, delta);
}
template <typename T>
__device__ __forceinline__ T shuffle(T value, int source, unsigned mask = kAllLanes) {
  return __shfl_sync(mask, value, source);
}

// Bit i of the result: lane i's predicate.
__device__ __forceinline__ unsigned ballot(bool predicate, unsigned mask = kAllLanes) {
  return __ballot_sync(mask, predicate);
}
__device__ __forceinline__ bool any_lane(bool predicate, unsigned mask = kAllLanes) {
  return __any_sync(mask, predicate) != 0;
}
__device__ __forceinline__ bool all_lanes(bool predicate, unsigned mask = kAllLanes) {
  return __all_sync(mask, predicate) != 0;
}

}  // namespace quire::cuda
