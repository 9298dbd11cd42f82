// How the sums of a split are added to those of the splits before it. The one place that says so:
// decode's merge kernel and the kernels that walk over splits themselves get the same bits.
#pragma once

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

// Of one pair: highest score in units of log2 (weights are 2^(score - highest)), and the factors
// that both sides' sums get.
struct Merge {
  float highest;
  float before;
  float after;
};

__device__ __forceinline__ Merge merge_of(float highest_before, float highest_after) {
  const float highest = fmaxf(highest_before, highest_after);
  return {highest, exp2f(highest_before - highest), exp2f(highest_after - highest)};
}
__device__ __forceinline__ float merged(const Merge& m, float before, float after) {
  return fmaf(after, m.after, before * m.before);
}

}  // namespace quire::cuda
