// The walk all matrix products share: a thread's panels in groups of a few, and for each group all
// tokens in tiles of a few, so a group's weights stay in cache over the tokens. A tile sums each
// leaf of the SumPlan in registers and merges the leaves on a small stack.
//
// An element (token, row) takes the same float operations in the same order whichever group and
// tile it falls in: group and tile sizes only say how many elements run side by side.
#pragma once

#include <utility>

#include "kernels/cpu/linear_job.h"
#include "kernels/cpu/panel.h"

namespace quire::cpu {
namespace {  // each file has its own copy, compiled for its own instruction set

// Lines to be fetched into L2 while a tile computes, a few at each step: many at once would wait
// for one another, and the computation for them. First [next, end), then [more, more_end), weights;
// beside them what is read after the product. Fetched into L1 they would drive out what is being
// read.
struct Prefetch {
  const std::byte* next = nullptr;
  const std::byte* end = nullptr;
  const std::byte* more = nullptr;
  const std::byte* more_end = nullptr;
  int lines_per_step = 0;
  AheadLines* ahead = nullptr;  // or null

  void step() {
    step_weights();
    if (ahead != nullptr) step_ahead(*ahead);
  }

 private:
  static void step_ahead(AheadLines& a) {
    a.due += a.rate;
    for (; a.due >= kAheadUnits && a.piece != a.end; a.due -= kAheadUnits) {
      __builtin_prefetch(*a.piece + a.next, 0, 2);
      a.next += 64;
      if (a.next < a.piece_bytes) continue;
      a.next = 0;
      ++a.piece;
    }
  }

  void step_weights() {
    for (int i = 0; i < lines_per_step; ++i, next += 64) {
      if (next >= end) {
        if (more >= more_end) return;
        next = more;
        end = more_end;
        more = more_end;
      }
      __builtin_prefetch(next, 0, 2);
    }
  }
};

// Where a tile of R panels x T tokens reads.
template <int R, int T>
struct TileInput {
  const std::byte* values;   // panel 0; panel r is r * panel_bytes further on
  const std::byte* headers;  // of panel 0
  const std::byte* pair_sums;
  std::size_t panel_bytes;
  const std::byte* tokens;  // activation row of token 0, or the tile as the kernel packed it
  std::size_t token_bytes;
  Prefetch prefetch;

  const std::byte* value(int r) const { return values + static_cast<std::size_t>(r) * panel_bytes; }
  const std::byte* header(int r) const {
    return headers + static_cast<std::size_t>(r) * panel_bytes;
  }
  const std::byte* token(int t) const { return tokens + static_cast<std::size_t>(t) * token_bytes; }

  void next_unit(const PanelUnit& unit) {
    values += unit.value_bytes;
    headers += unit.header_bytes;
  }
};

template <class V, int R, int T>
[[gnu::always_inline]] inline void clear(typename V::F (&sum)[R][T]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) sum[r][t] = V::zero();
  }
}

template <class V, int R, int T>
[[gnu::always_inline]] inline void copy(const typename V::F (&from)[R][T],
                                        typename V::F (&to)[R][T]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) to[r][t] = from[r][t];
  }
}

// Output `index` of the SumPlan.
template <class V, int R, int T>
[[gnu::always_inline]] inline void store_sums(const LinearJob& job,
                                              const typename V::F (&sums)[R][T], int index,
                                              int panel, int token) {
  float* first = job.out + static_cast<std::size_t>(index) * job.out_subtree_stride +
                 static_cast<std::size_t>(token) * job.out_stride;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int row = (panel + r) * kPanelRows;
    const int n = job.rows - row < kPanelRows ? job.rows - row : kPanelRows;
    float* out = first + row;
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t, out += job.out_stride) {
      auto sum = sums[r][t];
      if (job.bias != nullptr) sum = V::add(sum, V::load(job.bias + row, n));
      if (n == kPanelRows) {
        V::store(out, sum);
      } else {
        V::store(out, sum, n);
      }
    }
  }
}

// The lines store_sums will write are fetched while the tile computes: stores retire in order, and
// each would wait for its own line.
template <int R, int T>
void prefetch_out(const LinearJob& job, int panel, int token) {
  const float* out = job.out + static_cast<std::size_t>(token) * job.out_stride +
                     static_cast<std::size_t>(panel) * kPanelRows;
  for (int t = 0; t < T; ++t, out += job.out_stride) {
    for (int r = 0; r < R; ++r) __builtin_prefetch(out + r * kPanelRows, 1, 3);
  }
}

template <class Kernel, int R, int T>
void compute_tile(const LinearJob& job, int panel, int token, const Prefetch& prefetch) {
  using V = typename Kernel::V;
  const std::byte* base = job.panels + static_cast<std::size_t>(panel) * job.panel_bytes;
  typename Kernel::template Tile<R, T> tile(
      {base, base + job.header_offset,
       job.pair_sums + static_cast<std::size_t>(panel) * job.num_units * kPairSumBytes,
       job.panel_bytes, job.in + static_cast<std::size_t>(token) * job.in_stride, job.in_stride,
       prefetch});
  prefetch_out<R, T>(job, panel, token);
  typename V::F stack[kMaxSumDepth][R][T];  // [depth][panel][token], below the sum at hand
  typename V::F sum[R][T];
  int depth = 0;
  for (int leaf = 0; leaf < job.num_leaves; ++leaf) {
    if (leaf > 0) copy<V>(sum, stack[depth++]);
    clear<V>(sum);
    tile.add_leaf(job.leaves[leaf].begin, job.leaves[leaf].end, sum);
    for (int m = job.leaves[leaf].merges; m > 0; --m) {
      --depth;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) sum[r][t] = V::add(stack[depth][r][t], sum[r][t]);
      }
    }
  }
  for (int o = 0; o < depth; ++o) store_sums<V, R, T>(job, stack[o], o, panel, token);
  if (job.num_leaves > 0) store_sums<V, R, T>(job, sum, depth, panel, token);
}

// Calls compute_tile<Kernel, R, tokens>.
template <class Kernel, int R, int... kT>
void dispatch_tile(std::integer_sequence<int, kT...>, const LinearJob& job, int panel, int token,
                   int tokens, const Prefetch& prefetch) {
  using Fn = void (*)(const LinearJob&, int, int, const Prefetch&);
  static constexpr Fn kTiles[] = {compute_tile<Kernel, R, kT + 1>...};
  kTiles[tokens - 1](job, panel, token, prefetch);
}

constexpr std::size_t kFetchAhead = std::size_t{48} << 10;  // bytes

// What tile i of num_tiles fetches while the group at `panel` is computed: its share of the bytes
// kFetchAhead or at least one group later in the thread's walk, which goes on from the end of its
// share to job.next, the beginning of its share of the matrix that follows.
template <class Kernel, int R>
Prefetch fetch_ahead(const LinearJob& job, int panel, int i, int num_tiles) {
  const auto bytes = [&job](int panels) {
    return static_cast<std::size_t>(panels) * job.panel_bytes;
  };
  const std::size_t group = bytes(R);
  const std::size_t first =
      bytes(panel - job.panel_begin) + (group < kFetchAhead ? kFetchAhead : group);
  const auto line = [&](int tile) {
    return first +
           group / 64 * static_cast<std::size_t>(tile) / static_cast<std::size_t>(num_tiles) * 64;
  };
  const std::size_t begin = line(i), end = line(i + 1);
  const std::size_t own = bytes(job.panel_end - job.panel_begin);
  const auto clip = [](std::size_t x, std::size_t limit) { return x < limit ? x : limit; };
  const std::byte* base = job.panels + bytes(job.panel_begin);
  Prefetch fetch;
  fetch.ahead = job.ahead;
  fetch.next = base + clip(begin, own);
  fetch.end = base + clip(end, own);
  fetch.more = job.next + clip(begin < own ? 0 : begin - own, job.next_bytes);
  fetch.more_end = job.next + clip(end < own ? 0 : end - own, job.next_bytes);
  const std::size_t steps =
      static_cast<std::size_t>(num_tiles) * job.num_units * Kernel::kFetchesPerUnit;
  if (steps > 0) fetch.lines_per_step = static_cast<int>((group / 64 + steps - 1) / steps);
  return fetch;
}

// Tokens are cut into tiles of equal size, give or take one: tile i of n has these.
struct TokenRange {
  int begin;
  int count;
};
constexpr TokenRange tile_tokens(int tokens, int i, int num_tiles) {
  const int begin = tokens * i / num_tiles;
  return {begin, tokens * (i + 1) / num_tiles - begin};
}
constexpr int count_tiles(int tokens, int max_tokens) {
  return (tokens + max_tokens - 1) / max_tokens;
}

template <class Kernel, int R, int kMaxTokens>
void compute_group(const LinearJob& job, int panel) {
  const int num_tiles = count_tiles(job.tokens, kMaxTokens);
  for (int i = 0; i < num_tiles; ++i) {
    const TokenRange tokens = tile_tokens(job.tokens, i, num_tiles);
    dispatch_tile<Kernel, R>(std::make_integer_sequence<int, kMaxTokens>(), job, panel,
                             tokens.begin, tokens.count,
                             fetch_ahead<Kernel, R>(job, panel, i, num_tiles));
  }
}

// All groups of R panels that are left.
template <class Kernel, int R, int kMaxTokens>
int compute_groups(const LinearJob& job, int panel) {
  for (; panel + R <= job.panel_end; panel += R) compute_group<Kernel, R, kMaxTokens>(job, panel);
  return panel;
}

// A group of panels and as much that is fetched ahead should not fill more than an L2 of 1 MB.
constexpr std::size_t kGroupBytes = std::size_t{600} << 10;

template <class Kernel>
void compute_chunk(const LinearJob& job) {
  constexpr TileShape kShape = Kernel::kShape;
  int panel = job.panel_begin;
  if (job.tokens == 1 && kShape.one * job.panel_bytes <= kGroupBytes) {
    panel = compute_groups<Kernel, kShape.one, 1>(job, panel);
  }
  if (job.tokens <= kShape.few.tokens) {
    panel = compute_groups<Kernel, kShape.few.panels, kShape.few.tokens>(job, panel);
  }
  panel = compute_groups<Kernel, kShape.many.panels, kShape.many.tokens>(job, panel);
  compute_groups<Kernel, 1, kShape.many.tokens>(job, panel);
}

// The tokens of a job as its tiles read them. Few tokens are one tile, whichever groups read it.
template <class Kernel>
void pack_tokens(const LinearJob& job, std::byte* out) {
  static_assert(Kernel::kShape.few.tokens <= Kernel::kShape.many.tokens);
  const int num_tiles = count_tiles(job.tokens, Kernel::kShape.many.tokens);
  for (int i = 0; i < num_tiles; ++i) {
    const TokenRange tokens = tile_tokens(job.tokens, i, num_tiles);
    Kernel::pack_tile(
        job, tokens.begin, tokens.count,
        out + static_cast<std::size_t>(tokens.begin) * Kernel::packed_token_bytes(job));
  }
}

// Many tokens are taken in chunks: their activations stay in L2 and their outputs in reach of the
// TLB, while reading the weights again costs little beside so much work. f(chunk) for each.
template <class F>
void for_chunks(const LinearJob& job, int max_tokens, F f) {
  LinearJob chunk = job;
  for (int token = 0; token < job.tokens; token += chunk.tokens) {
    chunk.tokens = job.tokens - token < max_tokens ? job.tokens - token : max_tokens;
    chunk.in = job.in + static_cast<std::size_t>(token) * job.in_stride;
    chunk.out = job.out + static_cast<std::size_t>(token) * job.out_stride;
    const bool last = token + chunk.tokens == job.tokens;
    chunk.next =
        last ? job.next : job.panels + static_cast<std::size_t>(job.panel_begin) * job.panel_bytes;
    chunk.next_bytes =
        last ? job.next_bytes
             : static_cast<std::size_t>(job.panel_end - job.panel_begin) * job.panel_bytes;
    f(chunk);
  }
}

constexpr int kChunkTokens = 96;

// Spreads what is read after the product evenly over its steps.
template <class Kernel>
void set_pace(const LinearJob& job, AheadLines& ahead) {
  constexpr TileSize kTile = Kernel::kShape.many;
  const auto groups = static_cast<std::size_t>((job.panel_end - job.panel_begin) / kTile.panels);
  const auto tiles = static_cast<std::size_t>(count_tiles(job.tokens, kTile.tokens));
  const std::size_t steps = groups * tiles * job.num_units * Kernel::kFetchesPerUnit;
  const auto pieces = static_cast<std::size_t>(ahead.end - ahead.piece);
  const std::size_t lines = pieces * ((ahead.piece_bytes + 63) / 64);
  ahead.rate = static_cast<std::uint32_t>(lines * kAheadUnits / (steps + 1));
}

// For kernels that read activations as they are.
template <class Kernel>
void compute(const LinearJob& job) {
  if (job.ahead != nullptr) set_pace<Kernel>(job, *job.ahead);
  for_chunks(job, kChunkTokens, [](const LinearJob& chunk) { compute_chunk<Kernel>(chunk); });
}

// For kernels that want the tokens of a tile side by side: each thread packs its own copy of a
// chunk, on its stack.
template <class Kernel>
void compute_packed(const LinearJob& job) {
  if (job.ahead != nullptr) set_pace<Kernel>(job, *job.ahead);
  alignas(64) std::byte room[kPackedTokensBytes];
  const std::size_t token_bytes = Kernel::packed_token_bytes(job);
  const std::size_t fit = token_bytes == 0 ? kChunkTokens : sizeof(room) / token_bytes;
  const int tokens = fit < kChunkTokens ? static_cast<int>(fit) : kChunkTokens;
  constexpr int kTile = Kernel::kShape.many.tokens;
  for_chunks(job, tokens < kTile ? tokens : tokens / kTile * kTile, [&](LinearJob chunk) {
    pack_tokens<Kernel>(chunk, room);
    chunk.in = room;
    chunk.in_stride = token_bytes;
    compute_chunk<Kernel>(chunk);
  });
}

}  // namespace
}  // namespace quire::cpu
