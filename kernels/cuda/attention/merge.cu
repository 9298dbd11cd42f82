// Merges the splits of tokens whose row was cut: one warp for each token and query head, split
// after split in order.
#include "kernels/cuda/attention/merge.h"
#include "kernels/cuda/attention/merge_launch.h"
#include "kernels/cuda/attention/row_result.h"
#include "kernels/cuda/dev/launch.h"

namespace quire::cuda {
namespace {

constexpr int kWarps = 4;

// Token `number` of those the decode kernel may have had: counted through the batch, or so many a
// row. -1: there is no such one.
__device__ int token_of(const AttentionProblem& p, int number) {
  if (p.decode_tokens >= p.num_tokens) {
    return number < p.row_begin[p.num_rows] ? number : -1;
  }
  const int row = number / p.decode_tokens;
  const int token = p.row_begin[row] + number % p.decode_tokens;
  const int end = p.row_begin[row + 1];
  return token < end && end - p.row_begin[row] <= p.decode_tokens ? token : -1;
}

// kColumns: columns of a lane, a lane's 32 apart.
template <int kColumns>
__global__ void __launch_bounds__(kWarps* kWarpSize) merge_splits(AttentionProblem p, int count) {
  wait_for_previous_grid();
  const int number = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  const int token = number < count ? token_of(p, number / p.num_heads) : -1;
  if (token < 0) return;
  const int head = number % p.num_heads;
  const int first_slot = p.first_slot[token];
  if (first_slot < 0) return;
  const int position = p.positions[token];
  const int splits = position / kSplitPositions + 1 - first_seen(p, position) / kSplitPositions;

  const std::int64_t first = static_cast<std::int64_t>(first_slot) * p.num_heads + head;
  const float* tops = p.partial_tops + 2 * first;
  const float* values = p.partial_values + first * p.head_dim;
  const std::int64_t top_stride = 2 * p.num_heads;
  const std::int64_t value_stride = static_cast<std::int64_t>(p.num_heads) * p.head_dim;
  const auto load = [&](int split, int c) {
    const int column = lane_id() + c * kWarpSize;
    return column < p.head_dim ? values[split * value_stride + column] : 0.0f;
  };
  float highest = tops[0];
  float total = tops[1];
  float sums[kColumns];
  QUIRE_UNROLL
  for (int c = 0; c < kColumns; ++c) sums[c] = load(0, c);
#pragma unroll 4
  for (int split = 1; split < splits; ++split) {
    const Merge merge = merge_of(highest, tops[split * top_stride]);
    highest = merge.highest;
    total = merged(merge, total, tops[split * top_stride + 1]);
    QUIRE_UNROLL
    for (int c = 0; c < kColumns; ++c) sums[c] = merged(merge, sums[c], load(split, c));
  }
  const RowResult result = output_of(p, token, head);
  const float factor = 1.0f / total;
  QUIRE_UNROLL
  for (int c = 0; c < kColumns; ++c) {
    const int column = lane_id() + c * kWarpSize;
    if (column < p.head_dim) result.write(column, sums[c] * factor);
  }
}

}  // namespace

cudaError_t launch_merge(cudaStream_t stream, const AttentionProblem& p) {
  const bool all = p.decode_tokens >= p.num_tokens;
  const int count = (all ? p.num_tokens : p.num_rows * p.decode_tokens) * p.num_heads;
  const dim3 grid(static_cast<unsigned>((count + kWarps - 1) / kWarps));
  const auto kernel = p.head_dim <= 2 * kWarpSize   ? &merge_splits<2>
                      : p.head_dim <= 4 * kWarpSize ? &merge_splits<4>
                                                    : &merge_splits<8>;
  return launch_overlapped(kernel, grid, dim3(kWarps * kWarpSize), 0, stream, p, count);
}

}  // namespace quire::cuda
