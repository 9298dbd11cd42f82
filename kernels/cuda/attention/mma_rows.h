// The arithmetic of 16 pairs by one warp with tensor cores: scores of a tile, weights, sums. Every
// kernel that uses tensor cores goes through here, so a pair's bits do not depend on which one.
//
// Registers (group = lane / 4, lane pair = lane % 4): a lane holds rows group and group + 8 of the
// 16, at columns 8 n + 2 * (lane % 4) and + 1. q and the weights are rounded to T for the products;
// products are summed in fp32, weights in fp32 before rounding.
#pragma once

#include "kernels/cuda/attention/merge.h"
#include "kernels/cuda/attention/problem.h"
#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/exp2.h"
#include "kernels/cuda/dev/mma.h"
#include "kernels/cuda/dev/reduce.h"

namespace quire::cuda {

inline constexpr int kScoreTiles = kTilePositions / 8;

// Running softmax of a lane's two rows.
template <int kDim>
struct RowSums {
  float highest[2];  // score, in units of log2
  float total[2];    // this lane's columns only, until finish_split
  float values[kDim / 8][4];

  __device__ __forceinline__ void reset() {
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) {
      highest[h] = -INFINITY;
      total[h] = 0.0f;
    }
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      QUIRE_UNROLL
      for (int i = 0; i < 4; ++i) values[n][i] = 0.0f;
    }
  }
};

// scores = q k^T of 64 positions. `q(step, a)` gives the q operand of 16 columns.
template <typename T, int kDim, int kStride, typename Query>
__device__ __forceinline__ void score_tile(const Query& q, const T* keys,
                                           float (&scores)[kScoreTiles][4]) {
  QUIRE_UNROLL
  for (int n = 0; n < kScoreTiles; ++n) {
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
  }
  [[maybe_unused]] constexpr int kUnrolledSteps =
      kDim > 128 ? 2 : kDim / 16;  // q in registers needs all
  const int lane = lane_id();
  const T* row = keys + (lane % 8 + lane / 16 * 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll kUnrolledSteps
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[4];
    q(step, a);
    QUIRE_UNROLL
    for (int n = 0; n < kScoreTiles; n += 2) {
      uint32_t b[4];
      ldmatrix(b, row + 8 * n * kStride + 16 * step);
      mma<T>(scores[n], a, b[0], b[1]);
      mma<T>(scores[n + 1], a, b[2], b[3]);
    }
  }
}

// Capped scores in units of log2, of products of q and k.
__device__ __forceinline__ void cap_tile(float (&scores)[kScoreTiles][4],
                                         const AttentionProblem& p) {
  QUIRE_UNROLL
  for (int n = 0; n < kScoreTiles; ++n) {
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float e = exp2_approx(scores[n][i] * p.cap_rate);
      scores[n][i] = p.cap_log2e - __fdividef(2.0f * p.cap_log2e, e + 1.0f);
    }
  }
}

// Scores become weights; sums so far are rescaled to the new highest score. last[h]: the last
// position a row sees, counted from the tile's first; what is behind it or before the row's window
// gets weight zero.
template <int kDim>
__device__ __forceinline__ void weigh_tile(float (&scores)[kScoreTiles][4], const int (&last)[2],
                                           const AttentionProblem& p, RowSums<kDim>& sums) {
  const int column = lane_id() % 4 * 2;
  float factor[2];
  float scale_log2e = p.scale_log2e;
  if (p.cap_log2e > 0.0f) {
    cap_tile(scores, p);
    scale_log2e = 1.0f;
  }
  QUIRE_UNROLL
  for (int h = 0; h < 2; ++h) {
    float highest = -INFINITY;
    QUIRE_UNROLL
    for (int n = 0; n < kScoreTiles; ++n) {
      QUIRE_UNROLL
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * h + i];
        const int back = last[h] - column - (8 * n + i);  // from the last one that is seen
        const bool seen = static_cast<unsigned>(back) < static_cast<unsigned>(p.window);
        score = seen ? score : -INFINITY;
        highest = fmaxf(highest, score);
      }
    }
    highest = fmaxf(sums.highest[h], reduce_lanes<4>(highest, Max{}) * scale_log2e);
    const float shift = highest == -INFINITY ? 0.0f : -highest;
    factor[h] = exp2_approx(sums.highest[h] + shift);
    sums.highest[h] = highest;
    float total = 0.0f;
    QUIRE_UNROLL
    for (int n = 0; n < kScoreTiles; ++n) {
      QUIRE_UNROLL
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * h + i];
        score = exp2_approx(fmaf(score, scale_log2e, shift));
        total += score;
      }
    }
    sums.total[h] = fmaf(sums.total[h], factor[h], total);
  }
  if (any_lane(factor[0] != 1.0f || factor[1] != 1.0f)) {
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      QUIRE_UNROLL
      for (int i = 0; i < 4; ++i) sums.values[n][i] *= factor[i / 2];
    }
  }
}

// values += weights v.
template <typename T, int kDim, int kStride>
__device__ __forceinline__ void add_values(const float (&weights)[kScoreTiles][4], const T* values,
                                           RowSums<kDim>& sums) {
  const int lane = lane_id();
  const T* row = values + (lane % 8 + lane / 8 % 2 * 8) * kStride + lane / 16 * 8;
  QUIRE_UNROLL
  for (int step = 0; step < kTilePositions / 16; ++step) {
    const float(&low)[4] = weights[2 * step];
    const float(&high)[4] = weights[2 * step + 1];
    const uint32_t a[4] = {pack2<T>(low[0], low[1]), pack2<T>(low[2], low[3]),
                           pack2<T>(high[0], high[1]), pack2<T>(high[2], high[3])};
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      ldmatrix_trans(b, row + 16 * step * kStride + 8 * n);
      mma<T>(sums.values[n], a, b[0], b[1]);
      mma<T>(sums.values[n + 1], a, b[2], b[3]);
    }
  }
}

// Sums of all splits so far, of which the values wait in shared memory: each lane's own, 16 bytes
// at a time with lanes side by side.
template <int kDim>
class EarlierSplits {
 public:
  static constexpr int kBytesPerWarp = 16 * kDim * static_cast<int>(sizeof(float));

  __device__ explicit EarlierSplits(float* of_warp)
      : values_(reinterpret_cast<float4*>(of_warp) + lane_id()) {}

  // sums = the splits so far + sums, and forgets. Rows that saw nothing of the last split, or of
  // those before, keep the bits of what they have.
  __device__ void add_to(RowSums<kDim>& sums) const {
    Merge merge[2];
    bool seen[2];
    bool seen_before[2];
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) {
      seen[h] = sums.highest[h] != -INFINITY;
      seen_before[h] = highest_[h] != -INFINITY;
      merge[h] = merge_of(highest_[h], sums.highest[h]);
      sums.highest[h] = merge[h].highest;
      const float total =
          seen_before[h] ? merged(merge[h], total_[h], sums.total[h]) : sums.total[h];
      sums.total[h] = seen[h] ? total : total_[h];
    }
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const float4 before = values_[n * kWarpSize];
      const float earlier[4] = {before.x, before.y, before.z, before.w};
      QUIRE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float value = sums.values[n][i];
        const float sum = seen_before[i / 2] ? merged(merge[i / 2], earlier[i], value) : value;
        sums.values[n][i] = seen[i / 2] ? sum : earlier[i];
      }
    }
  }
  __device__ void take(const RowSums<kDim>& sums) {
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) {
      highest_[h] = sums.highest[h];
      total_[h] = sums.total[h];
    }
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const float(&v)[4] = sums.values[n];
      values_[n * kWarpSize] = make_float4(v[0], v[1], v[2], v[3]);
    }
  }

 private:
  float4* values_;
  float highest_[2];
  float total_[2];
};

}  // namespace quire::cuda
