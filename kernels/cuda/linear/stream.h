// The weight-streaming kernels, for few tokens: a block owns 32 rows of the matrix and reads each
// weight once, with wide loads straight to registers. What the two kernels share is here.
//
// Order of an output element's sum: the steps (32 columns) of its range are dealt to the warps in
// groups of `unroll`, group after group; a warp adds its steps in order, then the warps' sums are
// added in warp order. None of it depends on the number of tokens.
#pragma once

#include <algorithm>

#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/input.h"

namespace quire::cuda {

inline constexpr int kStreamTokens = 16;  // the most of stream_mma
inline constexpr int kStreamMaxWarps = 16;

// Steps whose loads are in flight at once: about 100 bytes a lane.
constexpr int stream_unroll(Format format) {
  if (format == Format::kF32) return 1;
  return is_plain(format) || is_eight_bits(format) || is_superblock(format) ? 2 : 4;
}

// Half the warps where the matrix is high enough for two blocks on each of an H100's 132
// multiprocessors; fewer where there are no steps for them.
inline int stream_warps(const LinearJob& job, int unroll) {
  int steps = 1;
  for (int o = 0; o < job.num_outputs; ++o) {
    const Columns range = job.outputs[o];
    steps = std::max(steps, (range.end + kStep - 1) / kStep - range.begin / kStep);
  }
  const int most = job.rows >= 2 * 132 * kPanelRows ? kStreamMaxWarps / 2 : kStreamMaxWarps;
  int warps = 1;
  while (warps < most && warps * unroll < steps) warps *= 2;
  return warps;
}

inline dim3 stream_grid(const LinearJob& job, int block_tokens) {
  return dim3(static_cast<unsigned>((job.rows + kPanelRows - 1) / kPanelRows),
              static_cast<unsigned>(job.num_outputs),
              static_cast<unsigned>((job.tokens + block_tokens - 1) / block_tokens));
}

// The lane's weights of the steps from `step` that are before `last`; the others are left alone.
template <Format kFormat, int kUnroll>
__device__ __forceinline__ void load_steps(const MatrixView& view, int panel, int step, int last,
                                           int lane, Panel<kFormat> (&weights)[kUnroll]) {
  QUIRE_UNROLL
  for (int u = 0; u < kUnroll; ++u) {
    if (step + u < last) weights[u].load(view, panel, step + u, lane);
  }
}

// Adds the warps' sums [warp][kTokens][32] and stores them; called by the whole block after a
// barrier.
template <int kTokens>
__device__ __forceinline__ void merge_warps(const LinearJob& job, const float* sums,
                                            int first_token) {
  float* out = job.out + blockIdx.y * job.out_subtree_stride;
  const int warps = block_warps();
  for (int i = thread_rank(); i < kTokens * kPanelRows; i += block_threads()) {
    const int token = first_token + i / kPanelRows;
    const int row = static_cast<int>(blockIdx.x) * kPanelRows + i % kPanelRows;
    if (token >= job.tokens || row >= job.rows) continue;
    float sum = sums[i];
    for (int w = 1; w < warps; ++w) sum += sums[w * kTokens * kPanelRows + i];
    if (job.row_scales != nullptr) sum *= job.row_scales[row];
    if (job.bias != nullptr) sum += job.bias[row];
    out[static_cast<size_t>(token) * job.out_stride + static_cast<size_t>(row)] = sum;
  }
}

}  // namespace quire::cuda
