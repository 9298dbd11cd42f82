// The kernels that use tensor cores, and the variant made of them. Included once by each file that
// instantiates one.
#pragma once

#include "kernels/cuda/attention/mma_item.h"
#include "kernels/cuda/attention/shared_rows.h"
#include "kernels/cuda/attention/variant.h"
#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/launch.h"

namespace quire::cuda {

template <typename T, int kDim, typename Kv>
static __global__ void __launch_bounds__(kWarpSize) decode_mma(AttentionProblem p) {
  using Item = MmaItem<T, kDim, 1, Kv>;
  QUIRE_DYN_SMEM(unsigned char, shared);
  WorkList<true, Item::kRows> list(p);
  WorkItem item;
  QUIRE_NO_UNROLL
  for (int i = static_cast<int>(blockIdx.x); list.find(i, item); i += static_cast<int>(gridDim.x)) {
    // What the row sees: no load to wait for.
    const int begin = first_seen(p, item.context - item.num_tokens);
    Item(p, item, begin, item.context, shared).run();
  }
  allow_next_grid();
}

template <typename T, int kDim, int kWarps, typename Kv>
static __global__ void __launch_bounds__(kWarpSize* kWarps, kDim <= 64 ? 2 : 1)
    prefill_mma(AttentionProblem p) {
  using Item = MmaItem<T, kDim, kWarps, Kv>;
  QUIRE_DYN_SMEM(unsigned char, shared);
  WorkList<false, Item::kRows> list(p);
  WorkItem item;
  if (list.find(static_cast<int>(blockIdx.x), item)) {
    const ItemRows rows(p, item);
    Item(p, item, rows.first_position(0), rows.last_position(0, Item::kRows) + 1, shared).run();
  }
}

template <typename T, int kDim, int kWarps, typename Kv>
static __global__ void __launch_bounds__(kWarpSize* kWarps) shared_mma(AttentionProblem p) {
  using Item = MmaItem<T, kDim, kWarps, Kv, SharedRows>;
  QUIRE_DYN_SMEM(unsigned char, shared);
  SharedList<Item::kRows> list(p);
  WorkItem item;
  QUIRE_NO_UNROLL
  for (int i = static_cast<int>(blockIdx.x); list.find(i, item); i += static_cast<int>(gridDim.x)) {
    const int begin = item.split_begin * kSplitPositions;
    Item(p, item, begin, begin + kSplitPositions, shared).run();
  }
  allow_next_grid();
}

template <typename T, int kDim, int kWarps, typename Kv = T>
AttentionVariant mma_variant(DType dtype) {
  constexpr int kSharedWarps = kWarps < 4 ? kWarps : 4;
  using Shared = MmaItem<T, kDim, kSharedWarps, Kv, SharedRows>;
  using Decode = MmaItem<T, kDim, 1, Kv>;
  using Prefill = MmaItem<T, kDim, kWarps, Kv>;
  return {
      "mma",
      dtype,
      kDim,
      {&decode_mma<T, kDim, Kv>, Decode::kRows, Decode::kThreads, Decode::kSharedBytes},
      {&prefill_mma<T, kDim, kWarps, Kv>, Prefill::kRows, Prefill::kThreads, Prefill::kSharedBytes},
      {&shared_mma<T, kDim, kSharedWarps, Kv>, Shared::kRows, Shared::kThreads,
       Shared::kSharedBytes}};
}

}  // namespace quire::cuda
