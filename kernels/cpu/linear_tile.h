// The walk all matrix products share: a thread's panels in groups of 1, 2 or 4, and for each group
// all tokens in tiles of a few, so a group's weights stay in cache over the
// tokens. A tile sums each leaf of the SumPlan in registers and merges the leaves on a small stack.
//
// An element (token, row) takes the same float operations in the same order whichever group and
// tile it falls in: group and tile sizes only say how many elements run side by side.
#pragma once

#include <utility>

#include "kernels/cpu/linear_job.h"
#include "kernels/cpu/panel.h"

namespace quire::cpu {

// Where a tile of R panels x T tokens reads.
template <int R, int T>
struct TileInput {
  const std::byte* values;   // panel 0; panel r is r * panel_bytes further on
  const std::byte* headers;  // of panel 0
  std::size_t panel_bytes;
  const std::byte* tokens;  // activation row of token 0
  std::size_t token_bytes;
  // Bytes from here to the same place of the next group where that is to be prefetched, else 0.
  std::size_t ahead;

  const std::byte* value(int r) const { return values + static_cast<std::size_t>(r) * panel_bytes; }
  const std::byte* header(int r) const {
    return headers + static_cast<std::size_t>(r) * panel_bytes;
  }
  const std::byte* token(int t) const { return tokens + static_cast<std::size_t>(t) * token_bytes; }

  // To be called once per unit (or line) that is read: fetches its counterpart into L2.
  template <int kValueBytes, int kHeaderBytes>
  void prefetch() const {
    if (ahead == 0) return;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int i = 0; i < kValueBytes; i += 64) __builtin_prefetch(value(r) + ahead + i, 0, 2);
      if constexpr (kHeaderBytes > 0) __builtin_prefetch(header(r) + ahead, 0, 2);
    }
  }
};

template <class V, int R, int T>
inline void clear(typename V::F (&sum)[R][T]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) sum[r][t] = V::zero();
  }
}

template <class V, int R, int T>
void store_sums(const LinearJob& job, const typename V::F (*sums)[R][T], int count, int panel,
                int token) {
  for (int o = 0; o < count; ++o) {
    for (int r = 0; r < R; ++r) {
      const int row = (panel + r) * kPanelRows;
      const int n = job.rows - row < kPanelRows ? job.rows - row : kPanelRows;
      float* out = job.out + static_cast<std::size_t>(o) * job.out_subtree_stride +
                   static_cast<std::size_t>(token) * job.out_stride + row;
      for (int t = 0; t < T; ++t, out += job.out_stride) {
        auto sum = sums[o][r][t];
        if (job.bias != nullptr) sum = V::add(sum, V::load(job.bias + row, n));
        if (n == kPanelRows) {
          V::store(out, sum);
        } else {
          V::store(out, sum, n);
        }
      }
    }
  }
}

template <class Kernel, int R, int T>
void compute_tile(const LinearJob& job, int panel, int token, std::size_t ahead) {
  using V = typename Kernel::V;
  const std::byte* base = job.panels + static_cast<std::size_t>(panel) * job.panel_bytes;
  typename Kernel::template Tile<R, T> tile(
      job, {base, base + job.header_offset, job.panel_bytes,
            job.in + static_cast<std::size_t>(token) * job.in_stride, job.in_stride, ahead});
  typename V::F stack[kMaxSumDepth][R][T];  // [depth][panel][token]
  int depth = 0;
  for (int leaf = 0; leaf < job.num_leaves; ++leaf) {
    typename V::F sum[R][T];
    clear<V>(sum);
    tile.add_leaf(job.leaves[leaf].begin, job.leaves[leaf].end, sum);
    for (int m = job.leaves[leaf].merges; m > 0; --m) {
      --depth;
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) sum[r][t] = V::add(stack[depth][r][t], sum[r][t]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) stack[depth][r][t] = sum[r][t];
    }
    ++depth;
  }
  store_sums<V, R, T>(job, stack, depth, panel, token);
}

// Calls compute_tile<Kernel, R, tokens>.
template <class Kernel, int R, int... kT>
void dispatch_tile(std::integer_sequence<int, kT...>, const LinearJob& job, int panel, int token,
                   int tokens, std::size_t ahead) {
  using Fn = void (*)(const LinearJob&, int, int, std::size_t);
  static constexpr Fn kTiles[] = {compute_tile<Kernel, R, kT + 1>...};
  kTiles[tokens - 1](job, panel, token, ahead);
}

template <class Kernel, int R, int kMaxTokens>
void compute_group(const LinearJob& job, int panel) {
  const int num_tiles = (job.tokens + kMaxTokens - 1) / kMaxTokens;
  const bool last = panel + R >= job.panel_end;
  int token = 0;
  for (int i = 0; i < num_tiles; ++i) {  // tiles of equal size, give or take one
    const int tokens = (job.tokens - token) / (num_tiles - i);
    const std::size_t ahead = i == 0 && !last ? R * job.panel_bytes : 0;
    dispatch_tile<Kernel, R>(std::make_integer_sequence<int, kMaxTokens>(), job, panel, token,
                             tokens, ahead);
    token += tokens;
  }
}

// Groups of 4 panels up to Shape.wide_limit tokens (few tokens need many panels, to have enough
// independent sums side by side), else of 2: tiles as large as the registers hold.
template <class Kernel>
void compute(const LinearJob& job) {
  constexpr TileShape kShape = Kernel::kShape;
  int panel = job.panel_begin;
  if (job.tokens <= kShape.wide_limit) {
    for (; panel + 4 <= job.panel_end; panel += 4) {
      compute_group<Kernel, 4, kShape.wide_tokens>(job, panel);
    }
  }
  for (; panel + 2 <= job.panel_end; panel += 2) {
    compute_group<Kernel, 2, kShape.tokens>(job, panel);
  }
  for (; panel < job.panel_end; ++panel) compute_group<Kernel, 1, kShape.tokens>(job, panel);
}

}  // namespace quire::cpu
