// One way to run attention: the kernels for a KV type and head size, and what a launch of them
// needs. Kernels of one variant give a token the same bits; kernels of different variants do not.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/cuda/attention/problem.h"
#include "kernels/tensor.h"

namespace quire::cuda {

using AttentionKernel = void (*)(AttentionProblem);

// A kernel whose blocks take work items of `rows` pairs each.
struct AttentionLaunch {
  AttentionKernel kernel = nullptr;
  int rows = 0;
  int threads = 0;
  int shared_bytes = 0;
};

struct AttentionVariant {
  const char* arithmetic = "";  // "mma" or "simt"
  DType dtype = DType::kF32;    // of K and V
  int head_dim = 0;             // 0: any up to kMaxHeadDim
  AttentionLaunch decode;       // any number of blocks: they divide the items among themselves
  AttentionLaunch prefill;      // one block an item
  AttentionLaunch shared;       // as decode; after it, for splits that rows share
};

// "attention bfloat16 128 mma, decode 16x32 threads 43 KiB, ..."
std::string describe(const AttentionVariant& variant);

}  // namespace quire::cuda
