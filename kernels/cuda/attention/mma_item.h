// One work item with tensor cores: 16 pairs for each of the block's warps, K and V of a tile shared
// by all of them. Copies run one half tile (K or V) ahead of the arithmetic or more:
//   one warp     K of the next tile is asked for as soon as its scores are done, V likewise
//   many warps   V is asked for before the scores and K of the next tile before the values, so that
//                two barriers a tile are enough
#pragma once

#include "kernels/cuda/attention/kv_tile.h"
#include "kernels/cuda/attention/mma_rows.h"
#include "kernels/cuda/attention/row_result.h"

namespace quire::cuda {

// T: what is multiplied. Kv: what is stored, T or e4m3. Rows: ItemRows, or SharedRows.
template <typename T, int kDim, int kWarps, typename Kv = T, typename Rows = ItemRows>
class MmaItem {
 public:
  static constexpr int kRows = 16 * kWarps;
  static constexpr int kThreads = kWarpSize * kWarps;
  static constexpr int kStride = kDim + 8;  // an odd number of 16-byte chunks: no bank conflicts
  static constexpr bool kQueryInShared = kDim > 128;  // else in registers

 private:
  static constexpr int kTileElements = kTilePositions * kStride;
  static constexpr int kTileBytes = kTileElements * static_cast<int>(sizeof(T));
  static constexpr int kEarlierBytes =
      Rows::kOneSplit ? 0 : kWarps * EarlierSplits<kDim>::kBytesPerWarp;
  static constexpr int kQueryBytes =
      kQueryInShared ? kRows * kStride * static_cast<int>(sizeof(T)) : 0;

 public:
  static constexpr int kSharedBytes = 2 * kTileBytes + kEarlierBytes + kQueryBytes;

  // No pair sees anything outside of [begin, end).
  __device__ MmaItem(const AttentionProblem& p, const WorkItem& item, int begin, int end,
                     unsigned char* shared)
      : p_(p),
        item_(item),
        rows_(p, item),
        keys_(reinterpret_cast<T*>(shared)),
        values_(keys_ + kTileElements),
        earlier_(reinterpret_cast<float*>(shared + 2 * kTileBytes) +
                 warp_id() * EarlierSplits<kDim>::kBytesPerWarp / 4),
        query_(reinterpret_cast<T*>(shared + 2 * kTileBytes + kEarlierBytes) +
               warp_id() * 16 * kStride),
        source_(p, item, begin, end) {
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) last_[h] = row(h).position;
    last_of_warp_ = rows_.last_position(16 * warp_id(), 16);
  }

  __device__ void run() {
    const int end =
        min(item_.split_end * kSplitTiles, (source_.end() + kTilePositions - 1) / kTilePositions);
    int tile = first_tile();
    if (tile >= end) return;
    if (lane_id() % 4 == 0) {
      QUIRE_UNROLL
      for (int h = 0; h < 2; ++h) rows_.note_slot(row(h));
    }
    block_now_ = source_.block_of_lane(tile);
    copy_keys(block_now_, tile);
    if constexpr (kWarps == 1) copy_values(block_now_, tile);
    load_query();
    sums_.reset();
    for (; tile < end; ++tile) {
      block_next_ = source_.block_of_lane(tile + 1);
      const bool more = tile + 1 < end;
      if constexpr (kWarps == 1) {
        run_tile_eager(tile, more);
      } else {
        run_tile(tile, more);
      }
      block_now_ = block_next_;
      if ((tile + 1) % kSplitTiles == 0 || !more) finish_split(tile / kSplitTiles, more);
    }
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) write(h);
  }

 private:
  __device__ __forceinline__ int first_tile() const {
    return max(item_.split_begin * kSplitTiles, source_.begin() / kTilePositions);
  }
  // Of this lane. Asked for again at the end rather than kept in registers.
  __device__ __forceinline__ ItemRow row(int h) const {
    return rows_.at(16 * warp_id() + lane_id() / 4 + 8 * h);
  }

  template <KvHalf kHalf>
  __device__ __forceinline__ void copy(T* to, BlockId block, int tile) {
    if constexpr (std::is_same_v<Kv, T>) {
      copy_tile<kDim, kStride, kThreads>(to, source_, kHalf, block, tile);
    } else {
      dequantize_tile<kDim, kStride, kThreads>(to, source_, kHalf, block, tile);
    }
    async_commit();
  }
  __device__ __forceinline__ void copy_keys(BlockId block, int tile) {
    copy<KvHalf::kKeys>(keys_, block, tile);
  }
  __device__ __forceinline__ void copy_values(BlockId block, int tile) {
    copy<KvHalf::kValues>(values_, block, tile);
  }

  __device__ __forceinline__ void run_tile_eager(int tile, bool more) {
    float scores[kScoreTiles][4];
    async_wait<1>();
    __syncthreads();
    score(scores);
    __syncthreads();
    if (more) {
      copy_keys(block_next_, tile + 1);
    } else {
      async_commit();
    }
    weigh(tile, scores);
    async_wait<1>();
    __syncthreads();
    add_values<T, kDim, kStride>(scores, values_, sums_);
    __syncthreads();
    if (more) {
      copy_values(block_next_, tile + 1);
    } else {
      async_commit();
    }
  }

  __device__ __forceinline__ void run_tile(int tile, bool more) {
    // A warp whose pairs all lie before the tile only helps with the copies.
    const bool sees = tile * kTilePositions <= last_of_warp_;
    float scores[kScoreTiles][4];
    async_wait<0>();
    __syncthreads();  // these keys have come, the values before are used up
    copy_values(block_now_, tile);
    if (sees) {
      score(scores);
      weigh(tile, scores);
    }
    async_wait<0>();
    __syncthreads();  // the values have come, these keys are used up
    if (more) copy_keys(block_next_, tile + 1);
    if (sees) add_values<T, kDim, kStride>(scores, values_, sums_);
  }

  __device__ __forceinline__ void score(float (&scores)[kScoreTiles][4]) {
    score_tile<T, kDim, kStride>(
        [this](int step, uint32_t(&a)[4]) {
          if constexpr (kQueryInShared) {
            const int lane = lane_id();
            ldmatrix(a, query_ + lane % 16 * kStride + 16 * step + lane / 16 * 8);
          } else {
            QUIRE_UNROLL
            for (int i = 0; i < 4; ++i) a[i] = query_regs_[step][i];
          }
        },
        keys_, scores);
  }
  __device__ __forceinline__ void weigh(int tile, float (&scores)[kScoreTiles][4]) {
    const int first = tile * kTilePositions;
    const int last[2] = {last_[0] - first, last_[1] - first};
    weigh_tile<kDim>(scores, last, p_, sums_);
  }

  __device__ __forceinline__ void load_query() {
    const int column = lane_id() % 4 * 2;
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float* q = rows_.query(row(h)) + column;
      const bool exists = last_[h] >= 0;
      QUIRE_UNROLL
      for (int n = 0; n < kDim / 8; ++n) {
        float2 x = make_float2(0.0f, 0.0f);
        if (exists) x = *reinterpret_cast<const float2*>(q + 8 * n);
        const uint32_t packed = pack2<T>(x.x, x.y);
        if constexpr (kQueryInShared) {
          T* to = query_ + (lane_id() / 4 + 8 * h) * kStride + 8 * n + column;
          *reinterpret_cast<uint32_t*>(to) = packed;
        } else {
          query_regs_[n / 2][n % 2 * 2 + h] = packed;
        }
      }
    }
    if constexpr (kQueryInShared) __syncwarp();
  }

  __device__ __forceinline__ void finish_split(int split, bool more) {
    QUIRE_UNROLL
    for (int h = 0; h < 2; ++h) sums_.total[h] = reduce_lanes<4>(sums_.total[h], Sum{});
    if constexpr (!Rows::kOneSplit) {
      if (split > first_tile() / kSplitTiles) earlier_.add_to(sums_);
      if (!more) return;
      earlier_.take(sums_);
      sums_.reset();
    }
  }

  __device__ __forceinline__ void write(int h) {
    const ItemRow pair = row(h);
    if (!rows_.sees(pair)) return;
    const RowResult result = rows_.result(pair);
    const float factor = result.is_partial ? 1.0f : 1.0f / sums_.total[h];
    const int column = lane_id() % 4 * 2;
    QUIRE_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      result.write2(8 * n + column, sums_.values[n][2 * h] * factor,
                    sums_.values[n][2 * h + 1] * factor);
    }
    if (lane_id() % 4 == 0) rows_.note(result, sums_.highest[h], sums_.total[h]);
  }

  const AttentionProblem& p_;
  const WorkItem item_;
  const Rows rows_;
  T* const keys_;
  T* const values_;
  EarlierSplits<kDim> earlier_;
  T* const query_;
  const KvSource source_;
  int last_[2];  // position that a pair sees last; -1: no such pair
  int last_of_warp_;
  BlockId block_now_ = 0;
  BlockId block_next_ = 0;
  uint32_t query_regs_[kQueryInShared ? 1 : kDim / 16][4];
  RowSums<kDim> sums_;
};

}  // namespace quire::cuda
