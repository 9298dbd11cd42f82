// One product as its kernel gets it: by value, nothing of it lives on the host afterwards.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/cuda/linear/linear.h"

namespace quire::cuda {

// The most partial sums of one matrix (CombineJob has the same limit).
inline constexpr int kMaxOutputs = 64;

struct LinearJob {
  const std::byte* data = nullptr;    // layout.h
  int rows = 0;                       // N
  int columns = 0;                    // K
  int first_column = 0;               // in its superblock
  const float* row_scales = nullptr;  // [N], where the format has them
  const void* in = nullptr;           // [T][K] float or bf16
  int tokens = 0;                     // T
  const float* bias = nullptr;        // [N] or null
  float* out = nullptr;
  std::size_t out_stride = 0;
  std::size_t out_subtree_stride = 0;
  int num_outputs = 0;
  Columns outputs[kMaxOutputs] = {};
};

// What of it the matrix alone says.
LinearJob make_job(const PackedMatrix& weight, const void* in, int tokens);

// Whether pieces of 8 columns of the input are 16-byte aligned and lie in or out of every output.
inline bool has_whole_pieces(const LinearJob& job) {
  bool whole = job.columns % 8 == 0 && reinterpret_cast<std::size_t>(job.in) % 16 == 0;
  for (int o = 0; o < job.num_outputs; ++o) {
    whole = whole && job.outputs[o].begin % 8 == 0 && job.outputs[o].end % 8 == 0;
  }
  return whole;
}

}  // namespace quire::cuda
