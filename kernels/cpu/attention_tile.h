// The two products of attention, over one tile of kTilePositions positions of one KV head and up to
// kRows query rows: scores q . k and values p . v. Written once over the lanes of every instruction
// set (V) and the dtypes of the arena (T).
//
// A row's scores are complete sums over d in order, its values are added unit by unit of positions:
// nothing depends on which other rows share the pass.
#pragma once

#include <utility>

#include "kernels/cpu/attention_words.h"
#include "kernels/cpu/kv_bytes.h"
#include "kernels/cpu/vector_ops.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// Where a tile's K and V lie: one pointer per 16 positions.
template <class T>
struct TilePointers {
  const T* k[kTilePositions / 16];
  const T* v[kTilePositions / 16];

  // Vector j begins at position `offset` of the block whose part of this head is at `head`.
  template <class Words>
  void point(int j, const KvHead& kv, const std::byte* head, int offset) {
    const T* base = reinterpret_cast<const T*>(head);
    k[j] = base + offset * Words::kPair;
    v[j] = base + kv.key_dim * kv.block_size + offset * kv.padded_dim;
  }
};
// Of 8 bits: also where their scales lie.
template <>
struct TilePointers<std::int8_t> {
  const std::uint8_t* k[kTilePositions / 16];
  const float* k_scales[kTilePositions / 16];
  const std::int8_t* v[kTilePositions / 16];
  const float* v_scales[kTilePositions / 16];

  template <class Words>
  void point(int j, const KvHead& kv, const std::byte* head, int offset) {
    const KvBytes at = kv_bytes(kv);
    k[j] = reinterpret_cast<const std::uint8_t*>(head) + 4 * offset;
    k_scales[j] = reinterpret_cast<const float*>(head + at.key_scales) + offset;
    v[j] = reinterpret_cast<const std::int8_t*>(head + at.values) + offset * kv.padded_dim;
    v_scales[j] = reinterpret_cast<const float*>(head + at.value_scales) + offset;
  }
};

template <class V, class T>
TilePointers<T> locate_tile(const KvHead& kv, const BlockId* block_table, std::size_t head_offset,
                            int position, int num_positions) {
  TilePointers<T> tile;
  for (int j = 0; j < kTilePositions / 16; ++j) {
    // Beyond the context the table has no blocks: read the first ones again, to no effect.
    const int p = 16 * j < num_positions ? position + 16 * j : position;
    const BlockId block = block_table[p / kv.block_size];
    const std::byte* head =
        kv.arena + static_cast<std::size_t>(block) * kv.block_bytes + head_offset;
    tile.template point<KvWords<V, T>>(j, kv, head, p % kv.block_size);
  }
  return tile;
}

// A decoding row reads each K and V once, from memory rather than cache. So while the scores of a
// tile are computed the keys of the next one are fetched into L2, and while its values are added
// the next one's values. `step` and `stride` are in elements.
template <class T>
void fetch_keys(const TilePointers<T>& next, int i, int step) {
  if (i * step * static_cast<int>(sizeof(T)) % 64 != 0) return;  // in a line that was asked for
  for (const auto* k : next.k) __builtin_prefetch(k + i * step, 0, 2);
}
template <class T>
void fetch_values(const T* row, int stride) {
  for (int i = 0; i < stride; i += static_cast<int>(64 / sizeof(T))) {
    __builtin_prefetch(row + i, 0, 2);
  }
}

// Weights of row r of a tile: they take the place of its scores.
template <class V, class T>
auto* weights_of(float* scores, int r) {
  return reinterpret_cast<typename KvWords<V, T>::Factor*>(scores + r * kTilePositions);
}

// The products of R rows and C vectors. Of 8 bits: attention_bytes.h.
template <class V, class T>
struct TileColumns {
  using W = KvWords<V, T>;

  // scores[r][p] = q[r] . k[p] for the positions from vector c of the tile on.
  template <int R, int C>
  static void scores(const typename W::Factor* q, const KvHead& kv, const TilePointers<T>& tile,
                     int c, const TilePointers<T>* next, float* to);
  // values[r] += weight[r][p] * v[p] for whole units of positions [begin, end). The weights are
  // those of `scores`.
  template <int R, int C>
  static void values(float* scores, const KvHead& kv, const T* const* v,
                     const TilePointers<T>* next, int begin, int end, float* to);
};

template <class V, class T>
template <int R, int C>
void TileColumns<V, T>::scores(const typename W::Factor* q, const KvHead& kv,
                               const TilePointers<T>& tile, int c, const TilePointers<T>* next,
                               float* to) {
  const int units = kv.key_dim / W::kPair;
  const int step = kv.block_size * W::kPair;
  typename V::F sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sum[r][j] = V::zero();
  }
  for (int i = 0; i < units; ++i) {
    if (next != nullptr) fetch_keys(*next, i, step);
    typename W::Units k[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) k[j] = W::load(tile.k[c + j] + i * step);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename W::Units x = W::set(q + r * kv.key_dim + i * W::kPair);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sum[r][j] = W::dot(sum[r][j], x, k[j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) V::store(to + r * kTilePositions + 16 * (c + j), sum[r][j]);
  }
}

template <class V, class T>
template <int R, int C>
void TileColumns<V, T>::values(float* scores, const KvHead& kv, const T* const* v,
                               const TilePointers<T>* next, int begin, int end, float* to) {
  const int padded_dim = kv.padded_dim;
  typename V::F sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::load(to + r * padded_dim + 16 * c);
  }
  for (int p = begin; p < end; p += W::kPair) {
    const int row = p % 16 * padded_dim;
    if (next != nullptr) fetch_values(next->v[p / 16] + row, padded_dim * W::kPair);
    typename W::Units x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = W::load(v[p / 16] + row + 16 * c * W::kPair);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename W::Units w = W::set(weights_of<V, T>(scores, r) + p);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = W::dot(sum[r][c], w, x[c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) V::store(to + r * padded_dim + 16 * c, sum[r][c]);
  }
}

// The tile's first `seen` positions; what it writes behind them has no meaning.
template <class V, class T, int R>
void score_tile(const typename KvWords<V, T>::Factor* q, const KvHead& kv,
                const TilePointers<T>& tile, int seen, const TilePointers<T>* next, float* scores) {
  constexpr int kC = V::kColumns;
  for (int c = 0; 16 * c < seen; c += kC) {
    const TilePointers<T>* ahead = c == 0 ? next : nullptr;
    if (seen - 16 * c > 8 * kC) {
      TileColumns<V, T>::template scores<R, kC>(q, kv, tile, c, ahead, scores);
    } else {
      TileColumns<V, T>::template scores<R, (kC > 1 ? kC / 2 : 1)>(q, kv, tile, c, ahead, scores);
    }
  }
}

// All columns.
template <class V, class T, int R>
void value_tile(float* scores, const KvHead& kv, const TilePointers<T>& tile,
                const TilePointers<T>* next, int begin, int end, float* values) {
  constexpr int kWide = 16 * V::kColumns;
  const T* v[kTilePositions / 16];
  for (int d = 0; d < kv.padded_dim;) {
    for (int j = 0; j < kTilePositions / 16; ++j) v[j] = tile.v[j] + d * KvWords<V, T>::kPair;
    const TilePointers<T>* ahead = d == 0 ? next : nullptr;
    if (d + kWide <= kv.padded_dim) {
      TileColumns<V, T>::template values<R, V::kColumns>(scores, kv, v, ahead, begin, end,
                                                         values + d);
      d += kWide;
    } else {
      TileColumns<V, T>::template values<R, 1>(scores, kv, v, ahead, begin, end, values + d);
      d += 16;
    }
  }
}

// values += weight[p] * v[p] for one row and one position p, whose neighbour in the unit it does
// not see.
template <class V, class T>
void value_alone(const typename KvWords<V, T>::Factor* weights, const KvHead& kv,
                 const TilePointers<T>& tile, int p, float* values) {
  using W = KvWords<V, T>;
  const int unit = p / W::kPair * W::kPair;
  const T* v = tile.v[p / 16] + unit % 16 * kv.padded_dim;
  const typename W::Units w = W::set(weights + unit);
  for (int d = 0; d < kv.padded_dim; d += 16) {
    const typename W::Units x = W::keep(W::load(v + d * W::kPair), p - unit);
    V::store(values + d, W::dot(V::load(values + d), w, x));
  }
}

// The two passes by number of rows, 1..kRows.
template <class V, class T>
struct TileKernels {
  void (*scores)(const typename KvWords<V, T>::Factor*, const KvHead&, const TilePointers<T>&, int,
                 const TilePointers<T>*, float*);
  void (*values)(float*, const KvHead&, const TilePointers<T>&, const TilePointers<T>*, int, int,
                 float*);
};

template <class V, class T, int... R>
const TileKernels<V, T>& tile_kernels(int rows, std::integer_sequence<int, R...>) {
  static constexpr TileKernels<V, T> kKernels[] = {
      {&score_tile<V, T, R + 1>, &value_tile<V, T, R + 1>}...};
  return kKernels[rows - 1];
}
template <class V, class T>
const TileKernels<V, T>& tile_kernels(int rows) {
  return tile_kernels<V, T>(rows, std::make_integer_sequence<int, KvWords<V, T>::kRows>());
}

}  // namespace
}  // namespace quire::cpu
