// The softmax of attention, row by row, in powers of two: scores of a tile become weights, sums of
// tiles and splits are put together in order. One row never looks at another.
#pragma once

#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vector_ops.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// What q is multiplied by, besides the scale, so that scores are exponents of 2. A soft cap needs
// them as they are.
inline constexpr float kLog2E = 0x1.715476p+0f;
inline float score_factor(float soft_cap) {
  return soft_cap > 0.0f ? 1.0f : kLog2E;
}

// Running softmax of one row. Within a split the sum of weights is kept lane by lane.
struct RowSums {
  float* highest;  // largest score so far
  float* total;    // sum of 2^(score - highest)
  float* values;   // [Dp], sum of 2^(score - highest) * v
  float* lanes;    // [16], whose sum is the total in the end
};

template <class V>
void clear_row(const RowSums& row, int padded_dim) {
  *row.highest = -__builtin_inff();
  *row.total = 0.0f;
  V::store(row.lanes, V::zero());
  for (int d = 0; d < padded_dim; d += 16) V::store(row.values + d, V::zero());
}

template <class V>
void scale_values(float* values, int padded_dim, float factor) {
  const typename V::F f = V::set(factor);
  for (int d = 0; d < padded_dim; d += 16) V::store(values + d, V::mul(V::load(values + d), f));
}

// Of vector j of a tile: how many lanes lie before position n of the tile.
inline int lanes_before(int n, int j) {
  return n - 16 * j < 0 ? 0 : n - 16 * j > 16 ? 16 : n - 16 * j;
}

// Sets all but lanes [hidden, n) of a tile, unless Whole says that there are none others.
template <class V, bool Whole>
[[gnu::always_inline]] inline void fill_unseen(typename V::F (&x)[4], int hidden, int n,
                                               float fill) {
  if constexpr (!Whole) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      x[j] = V::fill_after(x[j], lanes_before(n, j), fill);
      x[j] = V::fill_before(x[j], lanes_before(hidden, j), fill);
    }
  }
}

// x = the weights of a row's scores of a tile; rescales what came before. Of the 64 scores
// [hidden, n) count; the others get weight 0. cap: AttentionSpec::soft_cap. Returns by how much the
// highest of them lies below the highest so far.
template <class V, bool Whole>
[[gnu::always_inline]] inline float weigh_scores(const float* scores, int hidden, int n, float cap,
                                                 int padded_dim, const RowSums& row,
                                                 typename V::F (&x)[4]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    x[j] = V::load(scores + 16 * j);
    if (cap > 0.0f) x[j] = V::mul(soft_cap<V>(x[j], cap), V::set(kLog2E));
  }
  fill_unseen<V, Whole>(x, hidden, n, -__builtin_inff());
  const float tile_highest = V::largest(V::max(V::max(x[0], x[1]), V::max(x[2], x[3])));
  if (tile_highest > *row.highest) {
    const float rescale = exp2_1<V>(*row.highest - tile_highest);
    V::store(row.lanes, V::mul(V::load(row.lanes), V::set(rescale)));
    scale_values<V>(row.values, padded_dim, rescale);
    *row.highest = tile_highest;
  }
  const typename V::F shift = V::set(*row.highest);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) x[j] = exp2<V>(V::sub(x[j], shift));
  fill_unseen<V, Whole>(x, hidden, n, 0.0f);
  return *row.highest - tile_highest;
}

template <class V>
[[gnu::always_inline]] inline void sum_weights(const typename V::F (&x)[4], const RowSums& row) {
  const typename V::F sum = V::add(V::add(x[0], x[1]), V::add(x[2], x[3]));
  V::store(row.lanes, V::add(V::load(row.lanes), sum));
}

// Turns a row's scores of a tile into weights, which may take their place; their sum is of what
// values are multiplied by.
template <class V, bool Whole, class Factor>
void weigh_tile(const float* scores, Factor* weights, int hidden, int n, float cap, int padded_dim,
                const RowSums& row) {
  typename V::F x[4];
  weigh_scores<V, Whole>(scores, hidden, n, cap, padded_dim, row, x);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    V::store(weights + 16 * j, x[j]);
    x[j] = V::load(weights + 16 * j);
  }
  sum_weights<V>(x, row);
}

// Adds the sums of a later split to those of earlier ones. What a row has not seen changes no bit.
template <class V>
void merge_rows(const RowSums& into, const RowSums& later, int padded_dim) {
  if (*later.highest == -__builtin_inff()) return;
  if (*into.highest == -__builtin_inff()) {
    *into.highest = *later.highest;
    *into.total = *later.total;
    for (int d = 0; d < padded_dim; d += 16) V::store(into.values + d, V::load(later.values + d));
    return;
  }
  const float highest = *into.highest > *later.highest ? *into.highest : *later.highest;
  const float a = exp2_1<V>(*into.highest - highest);
  const float b = exp2_1<V>(*later.highest - highest);
  *into.total = *into.total * a + *later.total * b;
  *into.highest = highest;
  const typename V::F fa = V::set(a), fb = V::set(b);
  for (int d = 0; d < padded_dim; d += 16) {
    const typename V::F sum =
        V::fma(V::load(later.values + d), fb, V::mul(V::load(into.values + d), fa));
    V::store(into.values + d, sum);
  }
}

template <class V>
void write_result(const RowSums& row, int head_dim, float* out) {
  const typename V::F factor = V::set(1.0f / *row.total);
  for (int d = 0; d < head_dim; d += 16) {
    const int n = head_dim - d < 16 ? head_dim - d : 16;
    V::store(out + d, V::mul(V::load(row.values + d), factor), n);
  }
}

template <class V>
void merge_splits(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                  int padded_dim, float* out) {
  const auto row = [&](int split) {
    float* p = partials + static_cast<std::size_t>(split) * split_stride;
    return RowSums{p + padded_dim, p + padded_dim + 1, p, nullptr};
  };
  for (int split = 1; split < num_splits; ++split) {
    merge_rows<V>(row(0), row(split), padded_dim);
  }
  write_result<V>(row(0), head_dim, out);
}

}  // namespace
}  // namespace quire::cpu
