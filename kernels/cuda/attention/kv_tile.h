// Tiles of K and V on their way from the arena to shared memory: 64 positions of one KV head,
// copied in the background 16 bytes a thread, or where they are fp8 made bf16 on the way. Positions
// outside of [begin, end) become zeros and are not read: what lies there may be stale, and no block
// of the table need exist for them.
#pragma once

#include "kernels/cuda/attention/work.h"
#include "kernels/cuda/dev/async_copy.h"
#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/memory.h"
#include "kernels/kv_scale.h"

namespace quire::cuda {

enum class KvHalf : int { kKeys, kValues };

// The row's blocks, as one warp sees them: a lane holds the block of every fourth run of 16
// positions (blocks are 16, 32 or 64 positions).
class KvSource {
 public:
  __device__ KvSource(const AttentionProblem& p, const WorkItem& item, int begin, int end)
      : p_(p),
        table_(p.block_tables + static_cast<std::int64_t>(item.row) * p.max_blocks),
        kv_head_(item.kv_head),
        begin_(begin),
        end_(end) {}

  __device__ __forceinline__ int begin() const { return begin_; }
  // The first position that is not there any more.
  __device__ __forceinline__ int end() const { return end_; }
  __device__ __forceinline__ BlockId block_of_lane(int tile) const {
    const int position = tile * kTilePositions + lane_id() % 4 * 16;
    return position < end_ && position + 16 > begin_ ? table_[position / p_.block_size] : 0;
  }
  // K or V at the 16 positions from `position` on, contiguous; all lanes together.
  __device__ __forceinline__ const std::byte* run(KvHalf half, BlockId block_of_lane, int position,
                                                  int position_bytes) const {
    const BlockId block = shuffle(block_of_lane, position % kTilePositions / 16);
    const int head = static_cast<int>(half) * p_.num_kv_heads + kv_head_;
    const int offset = head * p_.block_size + (position & (p_.block_size - 1));
    return p_.kv + block * p_.block_bytes + static_cast<std::int64_t>(offset) * position_bytes;
  }

  // Where K and V are fp8: the factor of each of the 16 positions, as powers of two.
  __device__ __forceinline__ const std::uint8_t* scales(KvHalf half, BlockId block_of_lane,
                                                        int position) const {
    const BlockId block = shuffle(block_of_lane, position % kTilePositions / 16);
    const int head = static_cast<int>(half) * p_.num_kv_heads + kv_head_;
    const int values = 2 * p_.num_kv_heads * p_.block_size * p_.head_dim;
    const int offset = head * p_.block_size + (position & (p_.block_size - 1));
    return reinterpret_cast<const std::uint8_t*>(p_.kv) + block * p_.block_bytes + values + offset;
  }

 private:
  const AttentionProblem& p_;
  const BlockId* table_;
  int kv_head_;
  int begin_;
  int end_;
};

__device__ __forceinline__ float scale_of(std::uint8_t stored) {
  return __uint_as_float(power_of_two_bits(stored - kKvExponentBias));
}

// Four fp8 as bf16, exactly.
__device__ __forceinline__ uint2 dequantized(uint32_t four, float scale) {
  const float2 low = unpack_fp8x2<e4m3>(four);
  const float2 high = unpack_fp8x2<e4m3>(four >> 16);
  return make_uint2(pack2<bf16>(low.x * scale, low.y * scale),
                    pack2<bf16>(high.x * scale, high.y * scale));
}

// The tile of an fp8 arena: read, made bf16 and stored by this thread at once, 16 elements a time.
template <int kDim, int kStride, int kThreads>
__device__ __forceinline__ void dequantize_tile(bf16* shared, const KvSource& source, KvHalf half,
                                                BlockId block_of_lane, int tile) {
  static_assert(kDim % 16 == 0);
  constexpr int kRowChunks = kDim / 16;
  constexpr int kRunChunks = 16 * kRowChunks;
  constexpr int kChunks = (kRunChunks + kThreads - 1) / kThreads;
  QUIRE_NO_UNROLL
  for (int run = 0; run < kTilePositions / 16; ++run) {
    const int position = tile * kTilePositions + 16 * run;
    const std::byte* from = source.run(half, block_of_lane, position, kDim);
    const std::uint8_t* scales = source.scales(half, block_of_lane, position);
    uint4 values[kChunks];
    float factors[kChunks];
    QUIRE_UNROLL
    for (int i = 0; i < kChunks; ++i) {
      const int chunk = i * kThreads + thread_rank();
      const int row = chunk / kRowChunks;
      const bool exists =
          chunk < kRunChunks && position + row >= source.begin() && position + row < source.end();
      values[i] = exists ? load16(from + 16 * chunk) : make_uint4(0, 0, 0, 0);
      factors[i] = exists ? scale_of(scales[row]) : 0.0f;
    }
    QUIRE_UNROLL
    for (int i = 0; i < kChunks; ++i) {
      const int chunk = i * kThreads + thread_rank();
      if (kRunChunks % kThreads != 0 && chunk >= kRunChunks) break;
      bf16* to = shared + (16 * run + chunk / kRowChunks) * kStride + chunk % kRowChunks * 16;
      const uint2 a = dequantized(values[i].x, factors[i]);
      const uint2 b = dequantized(values[i].y, factors[i]);
      const uint2 c = dequantized(values[i].z, factors[i]);
      const uint2 d = dequantized(values[i].w, factors[i]);
      store16(to, make_uint4(a.x, a.y, b.x, b.y));
      store16(to + 8, make_uint4(c.x, c.y, d.x, d.y));
    }
  }
}

// Starts the copy of one tile by all threads of the block. Rows of kDim 2-byte elements are
// kStride elements apart in shared memory.
template <int kDim, int kStride, int kThreads, typename T>
__device__ __forceinline__ void copy_tile(T* shared, const KvSource& source, KvHalf half,
                                          BlockId block_of_lane, int tile) {
  static_assert(sizeof(T) == 2 && kDim % 8 == 0);
  constexpr int kRowChunks = kDim / 8;
  constexpr int kRunChunks = 16 * kRowChunks;  // one run of 16 positions is contiguous
  QUIRE_NO_UNROLL
  for (int run = 0; run < kTilePositions / 16; ++run) {
    const int position = tile * kTilePositions + 16 * run;
    const std::byte* from = source.run(half, block_of_lane, position, kDim * 2);
    T* to = shared + 16 * run * kStride;
    const int before = (source.begin() - position) * kRowChunks;  // chunks that do not exist
    const int count = (source.end() - source.begin()) * kRowChunks;
    QUIRE_UNROLL
    for (int i = 0; i < (kRunChunks + kThreads - 1) / kThreads; ++i) {
      const int chunk = i * kThreads + thread_rank();
      if (kRunChunks % kThreads != 0 && chunk >= kRunChunks) break;
      async_copy_or_zero<16>(to + chunk / kRowChunks * kStride + chunk % kRowChunks * 8,
                             from + 16 * chunk,
                             static_cast<unsigned>(chunk - before) < static_cast<unsigned>(count));
    }
  }
}

}  // namespace quire::cuda
