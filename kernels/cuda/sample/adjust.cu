// The pass before the first (passes.h): copies the rows that are adjusted and applies their masks
// and entries, a segment of 1,024 ids per warp. The arithmetic and its order: kernels/sampling.h.
#include "kernels/cuda/sample/order.h"

namespace quire::cuda::sampling {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

__device__ __forceinline__ float adjusted(float logit, const AdjustEntry& entry,
                                          const RowAdjust& row) {
  float x = logit + entry.bias;
  if (entry.count >= 0) x = x > 0.0f ? x / row.repetition : x * row.repetition;
  if (entry.count > 0) {
    x = x - row.frequency * static_cast<float>(entry.count);
    x = x - row.presence;
  }
  return x;
}

// Quads of ids never straddle two words of the mask.
__device__ void copy_segment(const SegmentReader& reader, int vocab, const std::uint32_t* mask,
                             float* out) {
  for (int j = 0; j < SegmentReader::kQuads; ++j) {
    const TokenId at = reader.id(j);
    if (at >= vocab) continue;
    float4 q = reader.load(j);
    if (mask != nullptr) {
      const std::uint32_t bits = mask[at / 32] >> (at % 32);
      if ((bits & 1u) == 0) q.x = minus_infinity();
      if ((bits & 2u) == 0) q.y = minus_infinity();
      if ((bits & 4u) == 0) q.z = minus_infinity();
      if ((bits & 8u) == 0) q.w = minus_infinity();
    }
    store16(out + at, make_uint4(__float_as_uint(q.x), __float_as_uint(q.y), __float_as_uint(q.z),
                                 __float_as_uint(q.w)));
  }
}

// An entry at most a warp's width before the first whose id is at least `id`. A whole warp calls.
__device__ int near_lower_bound(const AdjustEntry* entries, int count, TokenId id) {
  int low = 0;
  int high = count;  // the entry lies in [low, high]
  while (high - low > kWarpSize) {
    const int step = (high - low + kWarpSize - 1) / kWarpSize;
    const int at = low + lane_id() * step;
    const int below = __popc(ballot(at < high && entries[at].token < id));
    if (below == 0) return low;
    high = low + below * step < high ? low + below * step : high;
    low += (below - 1) * step;
  }
  return low;
}

__global__ void __launch_bounds__(kThreads) adjust_kernel(const __grid_constant__ PassParams p) {
  const RowAdjust adjust = p.adjusts[blockIdx.y];
  const int segment = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  if (adjust.row < 0 || segment >= num_segments(p.vocab)) return;
  float* out = p.adjusted + blockIdx.y * adjusted_stride(p.vocab);
  const std::uint32_t* mask =
      adjust.mask < 0 ? nullptr
                      : p.masks + static_cast<std::size_t>(adjust.mask) * mask_words(p.vocab);
  copy_segment(SegmentReader(p, adjust.row, segment, -1), p.vocab, mask, out);
  __syncwarp();
  const AdjustEntry* entries = p.entries + adjust.first_entry;
  const TokenId begin = segment * kSegment;
  const TokenId end = begin + kSegment;
  for (int i = near_lower_bound(entries, adjust.num_entries, begin); i < adjust.num_entries;
       i += kWarpSize) {
    const int own = i + lane_id();
    const bool exists = own < adjust.num_entries;
    const AdjustEntry entry = exists ? entries[own] : AdjustEntry{};
    if (exists && entry.token >= begin && entry.token < end) {
      out[entry.token] = adjusted(out[entry.token], entry, adjust);
    }
    if (ballot(exists && entry.token >= end) != 0) return;
  }
}

}  // namespace

cudaError_t launch_adjust(cudaStream_t stream, const PassParams& params) {
  const int parts = (num_segments(params.vocab) + kWarps - 1) / kWarps;
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(params.num_adjusts));
  return launch(adjust_kernel, grid, dim3(kThreads), 0, stream, params);
}

}  // namespace quire::cuda::sampling
