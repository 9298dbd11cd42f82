// The kernels in plain fp32 arithmetic, and the variant made of them. Included once by each file
// that instantiates one.
#pragma once

#include "kernels/cuda/attention/shared_rows.h"
#include "kernels/cuda/attention/simt_item.h"
#include "kernels/cuda/attention/table.h"
#include "kernels/cuda/dev/launch.h"

namespace quire::cuda {

template <typename T>
static __global__ void __launch_bounds__(SimtItem<T>::kThreads, 4) decode_simt(AttentionProblem p) {
  using Item = SimtItem<T>;
  QUIRE_DYN_SMEM(float, shared);
  WorkList<true, Item::kRows> list(p);
  WorkItem item;
  for (int i = static_cast<int>(blockIdx.x); list.find(i, item); i += static_cast<int>(gridDim.x)) {
    Item(p, item, shared).run();
  }
  allow_next_grid();
}

template <typename T>
static __global__ void __launch_bounds__(SimtItem<T>::kThreads, 4)
    prefill_simt(AttentionProblem p) {
  using Item = SimtItem<T>;
  QUIRE_DYN_SMEM(float, shared);
  WorkList<false, Item::kRows> list(p);
  WorkItem item;
  if (list.find(static_cast<int>(blockIdx.x), item)) Item(p, item, shared).run();
}

template <typename T>
static __global__ void __launch_bounds__(SimtItem<T>::kThreads, 4) shared_simt(AttentionProblem p) {
  using Item = SimtItem<T, SharedRows>;
  QUIRE_DYN_SMEM(float, shared);
  SharedList<Item::kRows> list(p);
  WorkItem item;
  for (int i = static_cast<int>(blockIdx.x); list.find(i, item); i += static_cast<int>(gridDim.x)) {
    Item(p, item, shared).run();
  }
  allow_next_grid();
}

template <typename T>
AttentionVariant simt_variant(DType dtype, int head_dim) {
  using Item = SimtItem<T>;
  const int bytes = static_cast<int>(sizeof(float)) * Item::shared_floats(head_dim);
  return {"simt",
          dtype,
          0,
          {&decode_simt<T>, Item::kRows, Item::kThreads, bytes},
          {&prefill_simt<T>, Item::kRows, Item::kThreads, bytes},
          {&shared_simt<T>, Item::kRows, Item::kThreads, bytes}};
}

}  // namespace quire::cuda
