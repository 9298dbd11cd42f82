// Tiles of K and V on their way from the arena to shared memory: 64 positions of one KV head,
// copied in the background 16 bytes a thread. Positions at and after `end` become zeros and are not
// read: what lies there may be stale, and no block of the table need exist for them.
#pragma once

#include "kernels/cuda/attention/work.h"
#include "kernels/cuda/dev/async_copy.h"

namespace quire::cuda {

// The row's blocks, as one warp sees them: a lane holds the block of every fourth run of 16
// positions (blocks are 16, 32 or 64 positions).
class KvSource {
 public:
  __device__ KvSource(const AttentionProblem& p, const WorkItem& item, int element_bytes, int end)
      : table_(p.block_tables + static_cast<std::int64_t>(item.row) * p.max_blocks),
        block_bytes_(p.block_bytes),
        position_bytes_(p.head_dim * element_bytes),
        block_size_(p.block_size),
        end_(end) {
    const std::int64_t head_bytes = static_cast<std::int64_t>(block_size_) * position_bytes_;
    keys_ = p.kv + item.kv_head * head_bytes;
    values_ = keys_ + p.num_kv_heads * head_bytes;
  }

  __device__ BlockId block_of_lane(int tile) const {
    const int position = tile * kTilePositions + lane_id() % 4 * 16;
    return position < end_ ? table_[position / block_size_] : 0;
  }
  __device__ const std::byte* keys() const { return keys_; }
  __device__ const std::byte* values() const { return values_; }
  __device__ int end() const { return end_; }
  // Of `base` (keys or values) at the 16 positions from `position` on; all lanes together.
  __device__ const std::byte* run(const std::byte* base, BlockId block_of_lane,
                                  int position) const {
    const BlockId block = shuffle(block_of_lane, position % kTilePositions / 16);
    return base + block * block_bytes_ + (position & (block_size_ - 1)) * position_bytes_;
  }

 private:
  const BlockId* table_;
  const std::byte* keys_;
  const std::byte* values_;
  std::int64_t block_bytes_;
  int position_bytes_;
  int block_size_;
  int end_;
};

// Starts the copy of one tile by all threads of the block. Rows of kDim 2-byte elements are
// kStride elements apart in shared memory.
template <int kDim, int kStride, int kThreads, typename T>
__device__ __forceinline__ void copy_tile(T* shared, const KvSource& source, const std::byte* base,
                                          BlockId block_of_lane, int tile) {
  static_assert(sizeof(T) == 2 && kDim % 8 == 0);
  constexpr int kRowChunks = kDim / 8;
  constexpr int kRunChunks = 16 * kRowChunks;  // one run of 16 positions is contiguous
  QUIRE_NO_UNROLL
  for (int run = 0; run < kTilePositions / 16; ++run) {
    const int position = tile * kTilePositions + 16 * run;
    const std::byte* from = source.run(base, block_of_lane, position);
    T* to = shared + 16 * run * kStride;
    const int inside = (source.end() - position) * kRowChunks;  // chunks that exist
    QUIRE_UNROLL
    for (int i = 0; i < (kRunChunks + kThreads - 1) / kThreads; ++i) {
      const int chunk = i * kThreads + thread_rank();
      if (kRunChunks % kThreads != 0 && chunk >= kRunChunks) break;
      async_copy_or_zero<16>(to + chunk / kRowChunks * kStride + chunk % kRowChunks * 8,
                             from + 16 * chunk, chunk < inside);
    }
  }
}

}  // namespace quire::cuda
