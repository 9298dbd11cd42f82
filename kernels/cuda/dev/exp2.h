// 2^x by the hardware's special function unit in one instruction: relative error below 2^-22, tiny
// results become zero, 2^-inf is exactly zero. exp2f is the exact twin (denormals cost it more).
#pragma once

#include "kernels/cuda/dev/platform.h"

namespace quire::cuda {

__device__ __forceinline__ float exp2_approx(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
#endif
}

}  // namespace quire::cuda
