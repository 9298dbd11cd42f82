// The ends of a row: the draw over segments, and what goes into the result.
#pragma once

#include "kernels/cuda/sample/order.h"
#include "kernels/cuda/sample/philox.h"
#include "kernels/cuda/sample/search.h"

namespace quire::cuda::sampling {

__device__ __forceinline__ bool is_greedy(const SampleWish& wish) {
  return wish.temperature < 1e-5f;
}
__device__ __forceinline__ bool has_filters(const SampleWish& wish, int vocab) {
  return (wish.top_k > 0 && wish.top_k < vocab) || wish.top_p < 1.0f || wish.min_p > 0.0f;
}

// The smallest mass that reaches top_p's share of `total`.
__device__ __forceinline__ Mass top_p_target(const SampleWish& wish, Mass total) {
  const double share = static_cast<double>(wish.top_p) * static_cast<double>(total);
  const Mass down = static_cast<Mass>(share);
  const Mass target = static_cast<double>(down) < share ? down + 1 : down;
  return target > 0 ? target : 1;
}

// The draw belongs to the first id, in id order, with which the running mass reaches this.
__device__ __forceinline__ Mass draw_target(const SampleWish& wish, Mass total) {
  const double uniform = static_cast<double>(philox_draw(wish)) * 0x1p-24;
  const Mass target = static_cast<Mass>(static_cast<double>(total) * uniform) + 1;
  return target < total ? target : total;
}

// The id of a segment with which the running mass reaches `target`, which the segment's mass does.
// mass(logit, id): an id's mass. A whole warp calls.
template <typename MassOf>
__device__ TokenId draw_in_segment(const SegmentReader& reader, int vocab, Mass target,
                                   MassOf mass) {
  Mass before = 0;
  for (int j = 0; j < SegmentReader::kQuads; ++j) {
    const float4 q = reader.load(j);
    const float logits[4] = {q.x, q.y, q.z, q.w};
    Mass masses[4];
    Mass own = 0;
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const TokenId id = reader.id(j) + i;
      masses[i] = id < vocab ? mass(logits[i], id) : 0;
      own += masses[i];
    }
    const Mass up_to = warp_prefix(own);
    const unsigned reached = ballot(before + up_to >= target);
    if (reached == 0) {
      before += shuffle(up_to, kWarpSize - 1);
      continue;
    }
    Mass sum = before + up_to - own;
    int pick = -1;
    QUIRE_UNROLL
    for (int i = 0; i < 4; ++i) {
      sum += masses[i];
      if (pick < 0 && sum >= target) pick = i;
    }
    return shuffle(reader.id(j) + pick, __ffs(static_cast<int>(reached)) - 1);
  }
  return -1;  // not with targets up to the segment's mass
}

// Blocks of a pass over segments, `warps` at a time: with many rows each has fewer, with few rows
// every segment has its own warp.
inline dim3 grid_of_pass(const PassParams& p, int warps) {
  constexpr int kEnoughBlocks = 1024;
  const int most = (num_segments(p.vocab) + warps - 1) / warps;
  const int enough = (kEnoughBlocks + p.num_rows - 1) / p.num_rows;
  return dim3(static_cast<unsigned>(most < enough ? most : enough),
              static_cast<unsigned>(p.num_rows));
}

// By one thread, once the token is known.
__device__ inline void store_token(const PassParams& p, int row, RowState& state, TokenId token) {
  SampledRow& out = p.out[row];
  out.token = token;
  if (p.ids != nullptr) p.ids[row] = token;
  const bool wants_logprobs = p.wishes[row].num_logprobs >= 0;
  out.token_logprob =
      wants_logprobs ? static_cast<float>(logit_at(p, row, token) - state.log_sum) : 0.0f;
  state.stage = Stage::kDone;
}

}  // namespace quire::cuda::sampling
