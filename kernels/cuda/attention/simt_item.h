// One work item in plain fp32 arithmetic, for K and V of any type and heads of any size: 8 pairs a
// block, tile after tile through one shared buffer. A score is one chain of fused multiply-adds
// over d, a value one over positions, and masked positions take no part in either.
#pragma once

#include "kernels/cuda/attention/kv_tile.h"
#include "kernels/cuda/attention/merge.h"
#include "kernels/cuda/attention/row_result.h"
#include "kernels/cuda/dev/reduce.h"

namespace quire::cuda {

// Rows: ItemRows, or SharedRows.
template <typename T, typename Rows = ItemRows>
class SimtItem {
 public:
  static constexpr int kRows = 8;
  static constexpr int kThreads = 128;
  __host__ __device__ static constexpr int shared_floats(int head_dim) {
    return kTilePositions * (head_dim + 1) + kRows * (3 * head_dim + kTilePositions + kRowFloats);
  }

  __device__ SimtItem(const AttentionProblem& p, const WorkItem& item, float* shared)
      : p_(p), rows_(p, item), item_(item), dim_(p.head_dim) {
    tile_ = shared;
    query_ = tile_ + kTilePositions * (dim_ + 1);
    sums_ = query_ + kRows * dim_;
    earlier_ = sums_ + kRows * dim_;
    weights_ = earlier_ + kRows * dim_;
    row_floats_ = weights_ + kRows * kTilePositions;
    begin_ = rows_.first_position(0);
    end_ = rows_.last_position(0, kRows) + 1;
    // Warp w looks after rows 2 w and 2 w + 1.
    QUIRE_UNROLL
    for (int i = 0; i < kWarpRows; ++i) row_[i] = rows_.at(kWarpRows * warp_id() + i);
  }

  __device__ void run() {
    const int end =
        min(item_.split_end * kSplitTiles, (end_ + kTilePositions - 1) / kTilePositions);
    __syncthreads();  // the item before is done with the shared memory
    load_query();
    reset();
    const KvSource source(p_, item_, begin_, end_);
    const int begin = max(item_.split_begin * kSplitTiles, begin_ / kTilePositions);
    first_split_ = begin / kSplitTiles;
    for (int tile = begin; tile < end; ++tile) {
      const BlockId block = source.block_of_lane(tile);
      load_tile(source, KvHalf::kKeys, block, tile);
      __syncthreads();
      score();
      __syncthreads();
      load_tile(source, KvHalf::kValues, block, tile);
      weigh(tile);
      __syncthreads();
      add_values(tile);
      __syncthreads();
      const bool more = tile + 1 < end;
      if ((tile + 1) % kSplitTiles == 0 || !more) finish_split(tile / kSplitTiles, more);
    }
    write();
  }

 private:
  static constexpr bool kScaled = std::is_same_v<T, e4m3>;
  static constexpr int kWarpRows = kRows / (kThreads / kWarpSize);
  static constexpr int kRowFloats = 2;  // [kRows]: factor of a rescale or merge; last position

  // Row i of this warp within the block.
  __device__ int local(int i) const { return kWarpRows * warp_id() + i; }

  __device__ void load_query() {
    for (int i = 0; i < kWarpRows; ++i) {
      const float* q = rows_.query(row_[i]);
      for (int d = lane_id(); d < dim_; d += kWarpSize) {
        query_[local(i) * dim_ + d] = row_[i].position >= 0 ? q[d] : 0.0f;
      }
    }
  }

  __device__ void reset() {
    for (int i = 0; i < kWarpRows; ++i) {
      highest_[i] = -INFINITY;
      total_[i] = 0.0f;
      for (int d = lane_id(); d < dim_; d += kWarpSize) sums_[local(i) * dim_ + d] = 0.0f;
    }
  }

  __device__ __forceinline__ float value_at(const T* run, const std::uint8_t* scales, int i) const {
    if constexpr (kScaled) {
      return to_float(run[i]) * scale_of(scales[i / dim_]);
    } else {
      return to_float(run[i]);
    }
  }

  // Rows of dim + 1 floats: neighbouring positions lie in different banks.
  __device__ void load_tile(const KvSource& source, KvHalf half, BlockId block, int tile) {
    for (int run = 0; run < kTilePositions / 16; ++run) {
      const int position = tile * kTilePositions + 16 * run;
      const T* from = reinterpret_cast<const T*>(
          source.run(half, block, position, dim_ * static_cast<int>(sizeof(T))));
      [[maybe_unused]] const std::uint8_t* scales = nullptr;
      if constexpr (kScaled) scales = source.scales(half, block, position);
      const int before = (source.begin() - position) * dim_;
      const int inside = (source.end() - position) * dim_;
      for (int i = thread_rank(); i < 16 * dim_; i += kThreads) {
        tile_[(16 * run + i / dim_) * (dim_ + 1) + i % dim_] =
            i >= before && i < inside ? value_at(from, scales, i) : 0.0f;
      }
    }
  }

  // A thread: one position, every second row.
  __device__ void score() {
    const int position = thread_rank() % kTilePositions;
    const float* key = tile_ + position * (dim_ + 1);
    const float* q = query_ + thread_rank() / kTilePositions * dim_;
    float sum[kRows / 2] = {};
    for (int d = 0; d < dim_; ++d) {
      const float k = key[d];
      QUIRE_UNROLL
      for (int r = 0; r < kRows / 2; ++r) sum[r] = fmaf(q[2 * r * dim_ + d], k, sum[r]);
    }
    QUIRE_UNROLL
    for (int r = 0; r < kRows / 2; ++r) {
      weights_[(thread_rank() / kTilePositions + 2 * r) * kTilePositions + position] = sum[r];
    }
  }

  // In units of log2, of a product of q and k at `back` positions before the last one seen.
  __device__ float score_of(float product, int back) const {
    if (static_cast<unsigned>(back) >= static_cast<unsigned>(p_.window)) return -INFINITY;
    if (p_.cap_log2e == 0.0f) return product * p_.scale_log2e;
    return p_.cap_log2e - 2.0f * p_.cap_log2e / (exp2f(product * p_.cap_rate) + 1.0f);
  }

  __device__ void weigh(int tile) {
    for (int i = 0; i < kWarpRows; ++i) {
      const int last = row_[i].position - tile * kTilePositions;
      float* w = weights_ + local(i) * kTilePositions + lane_id();
      const float x0 = score_of(w[0], last - lane_id());
      const float x1 = score_of(w[kWarpSize], last - lane_id() - kWarpSize);
      const float highest = fmaxf(highest_[i], warp_max(fmaxf(x0, x1)));
      const float shift = highest == -INFINITY ? 0.0f : highest;
      const float factor = exp2f(highest_[i] - shift);
      w[0] = exp2f(x0 - shift);
      w[kWarpSize] = exp2f(x1 - shift);
      total_[i] = fmaf(total_[i], factor, warp_sum(w[0] + w[kWarpSize]));
      highest_[i] = highest;
      if (lane_id() == 0) {
        row_floats_[local(i)] = factor;
        row_floats_[kRows + local(i)] = __int_as_float(last);
      }
    }
  }

  __device__ void add_values(int) {
    for (int i = thread_rank(); i < kRows * dim_; i += kThreads) {
      const int r = i / dim_;
      const int seen = __float_as_int(row_floats_[kRows + r]);
      const int first = max(seen + 1 - p_.window, 0);
      const int last = min(seen, kTilePositions - 1);
      const float* value = tile_ + i % dim_;
      const float* w = weights_ + r * kTilePositions;
      float sum = sums_[i] * row_floats_[r];
      for (int k = first; k <= last; ++k) sum = fmaf(w[k], value[k * (dim_ + 1)], sum);
      sums_[i] = sum;
    }
  }

  // Sums of this warp's rows are complete (a barrier ago) and no other warp touches them.
  __device__ void finish_split(int split, bool more) {
    for (int i = 0; i < kWarpRows; ++i) {
      const bool seen = highest_[i] != -INFINITY;
      const bool seen_before = earlier_highest_[i] != -INFINITY;
      if (split > first_split_ && seen_before) {
        const Merge merge = merge_of(earlier_highest_[i], highest_[i]);
        for (int d = lane_id(); d < dim_; d += kWarpSize) {
          const int at = local(i) * dim_ + d;
          sums_[at] = seen ? merged(merge, earlier_[at], sums_[at]) : earlier_[at];
        }
        total_[i] = seen ? merged(merge, earlier_total_[i], total_[i]) : earlier_total_[i];
        highest_[i] = merge.highest;
      }
      if (!more) continue;
      earlier_highest_[i] = highest_[i];
      earlier_total_[i] = total_[i];
      for (int d = lane_id(); d < dim_; d += kWarpSize) {
        earlier_[local(i) * dim_ + d] = sums_[local(i) * dim_ + d];
      }
    }
    if (more) reset();
  }

  __device__ void write() {
    for (int i = 0; i < kWarpRows; ++i) {
      if (lane_id() == 0) rows_.note_slot(row_[i]);
      if (!rows_.sees(row_[i])) continue;
      const RowResult result = rows_.result(row_[i]);
      const float factor = result.is_partial ? 1.0f : 1.0f / total_[i];
      for (int d = lane_id(); d < dim_; d += kWarpSize) {
        result.write(d, sums_[local(i) * dim_ + d] * factor);
      }
      if (lane_id() == 0) rows_.note(result, highest_[i], total_[i]);
    }
  }

  const AttentionProblem& p_;
  const Rows rows_;
  const WorkItem item_;
  const int dim_;
  int begin_;  // the first position that a pair sees
  int first_split_ = 0;
  int end_;            // the first position that no pair sees
  float* tile_;        // [kTilePositions][D + 1], K then V
  float* query_;       // [kRows][D]
  float* sums_;        // [kRows][D] of the split
  float* earlier_;     // [kRows][D] of the splits before
  float* weights_;     // [kRows][kTilePositions]
  float* row_floats_;  // [kRowFloats][kRows]
  ItemRow row_[kWarpRows];
  float highest_[kWarpRows], total_[kWarpRows];
  float earlier_highest_[kWarpRows] = {};
  float earlier_total_[kWarpRows] = {};
};

}  // namespace quire::cuda
