// Causal attention over the paged arena, over the lanes of either instruction set.
//
// The rows of a job are its tokens times the query heads of one KV head, so K and V are read once
// for all of them. Tiles of kTilePositions and splits of kSplitPositions start at absolute position
// 0. Within a tile a row's scores are complete sums over d in order, its weights are summed in a
// fixed tree of lanes, and its values are added position by position: nothing depends on which
// other rows share the pass. Positions after a row's own are never weighted nor multiplied.
#pragma once

#include <utility>

#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/formats/half.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// Where a tile's K and V lie: one pointer per 16 positions.
template <class T>
struct TilePointers {
  const T* k[kTilePositions / 16];
  const T* v[kTilePositions / 16];
};

template <class T>
TilePointers<T> locate_tile(const AttendJob& job, std::size_t head_offset, int position,
                            int num_positions) {
  const KvHead& kv = job.kv;
  TilePointers<T> tile;
  for (int j = 0; j < kTilePositions / 16; ++j) {
    // Beyond the context the table has no blocks: read the first ones again, to no effect.
    const int p = 16 * j < num_positions ? position + 16 * j : position;
    const BlockId block = job.block_table[p / kv.block_size];
    const auto* base = reinterpret_cast<const T*>(
        kv.arena + static_cast<std::size_t>(block) * kv.block_bytes + head_offset);
    const int offset = p % kv.block_size;
    tile.k[j] = base + offset;
    tile.v[j] = base + kv.head_dim * kv.block_size + offset * kv.padded_dim;
  }
  return tile;
}

// A decoding row reads each K and V once, from memory rather than cache. So while the scores of a
// tile are computed the keys of the next one are fetched into L2, and while its values are added
// the next one's values: 1/64 of them per step.
template <class T>
void fetch_keys(const KvHead& kv, const TilePointers<T>& next, int d) {
  const int bytes = kv.block_size * static_cast<int>(sizeof(T));
  if (d * bytes % 64 != 0) return;  // in a line that has been asked for
  for (const T* k : next.k) __builtin_prefetch(k + d * kv.block_size, 0, 2);
}
template <class T>
void fetch_values(const KvHead& kv, const TilePointers<T>& next, int p) {
  const T* row = next.v[p / 16] + (p % 16) * kv.padded_dim;
  for (int i = 0; i < kv.padded_dim; i += static_cast<int>(64 / sizeof(T))) {
    __builtin_prefetch(row + i, 0, 2);
  }
}

// scores[r][p] = q[r] . k[p] for R rows and C vectors of positions from vector c of the tile on.
template <class V, class T, int R, int C>
void score_columns(const float* q, const KvHead& kv, const TilePointers<T>& tile, int c,
                   const TilePointers<T>* next, float* scores) {
  const int d_end = kv.head_dim;
  const int step = kv.block_size;
  typename V::F sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sum[r][j] = V::zero();
  }
  for (int d = 0; d < d_end; ++d) {
    if (next != nullptr) fetch_keys(kv, *next, d);
    typename V::F k[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) k[j] = V::load(tile.k[c + j] + d * step);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename V::F x = V::set(q[r * d_end + d]);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sum[r][j] = V::fma(x, k[j], sum[r][j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) V::store(scores + r * kTilePositions + 16 * (c + j), sum[r][j]);
  }
}

// The tile's first `seen` positions; what it writes behind them has no meaning.
template <class V, class T, int R>
void score_tile(const float* q, const KvHead& kv, const TilePointers<T>& tile, int seen,
                const TilePointers<T>* next, float* scores) {
  constexpr int kC = V::kColumns;
  for (int c = 0; 16 * c < seen; c += kC) {
    const TilePointers<T>* ahead = c == 0 ? next : nullptr;
    if (seen - 16 * c > 8 * kC) {
      score_columns<V, T, R, kC>(q, kv, tile, c, ahead, scores);
    } else {
      score_columns<V, T, R, (kC > 1 ? kC / 2 : 1)>(q, kv, tile, c, ahead, scores);
    }
  }
}

// values[r] += weight[r][p] * v[p] for positions [begin, end) of the tile, C vectors wide.
template <class V, class T, int R, int C>
void value_columns(const float* weights, const KvHead& kv, const T* const* v,
                   const TilePointers<T>* next, int begin, int end, float* values) {
  const int padded_dim = kv.padded_dim;
  typename V::F sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::load(values + r * padded_dim + 16 * c);
  }
  for (int p = begin; p < end; ++p) {
    if (next != nullptr) fetch_values(kv, *next, p);
    const T* row = v[p / 16] + (p % 16) * padded_dim;
    typename V::F x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = V::load(row + 16 * c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename V::F w = V::set(weights[r * kTilePositions + p]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = V::fma(w, x[c], sum[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) V::store(values + r * padded_dim + 16 * c, sum[r][c]);
  }
}

// All columns.
template <class V, class T, int R>
void value_tile(const float* weights, const KvHead& kv, const TilePointers<T>& tile,
                const TilePointers<T>* next, int begin, int end, float* values) {
  constexpr int kWide = 16 * V::kColumns;
  const T* v[kTilePositions / 16];
  for (int d = 0; d < kv.padded_dim;) {
    for (int j = 0; j < kTilePositions / 16; ++j) v[j] = tile.v[j] + d;
    const TilePointers<T>* ahead = d == 0 ? next : nullptr;
    if (d + kWide <= kv.padded_dim) {
      value_columns<V, T, R, V::kColumns>(weights, kv, v, ahead, begin, end, values + d);
      d += kWide;
    } else {
      value_columns<V, T, R, 1>(weights, kv, v, ahead, begin, end, values + d);
      d += 16;
    }
  }
}

// The two passes by number of rows, 1..kRows.
template <class V, class T>
struct TileKernels {
  void (*scores)(const float*, const KvHead&, const TilePointers<T>&, int, const TilePointers<T>*,
                 float*);
  void (*values)(const float*, const KvHead&, const TilePointers<T>&, const TilePointers<T>*, int,
                 int, float*);
};

template <class V, class T, int... R>
const TileKernels<V, T>& tile_kernels(int rows, std::integer_sequence<int, R...>) {
  static constexpr TileKernels<V, T> kKernels[] = {
      {&score_tile<V, T, R + 1>, &value_tile<V, T, R + 1>}...};
  return kKernels[rows - 1];
}
template <class V, class T>
const TileKernels<V, T>& tile_kernels(int rows) {
  return tile_kernels<V, T>(rows, std::make_integer_sequence<int, V::kRows>());
}

// Running softmax of one row.
struct RowSums {
  float* highest;  // largest score so far
  float* total;    // sum of exp(score - highest)
  float* values;   // [Dp], sum of exp(score - highest) * v
};

template <class V>
void scale_values(float* values, int padded_dim, float factor) {
  const typename V::F f = V::set(factor);
  for (int d = 0; d < padded_dim; d += 16) V::store(values + d, V::mul(V::load(values + d), f));
}

// Turns a row's scores of a tile into weights and rescales what came before. Of the 64 scores the
// first n count; the others get weight 0.
template <class V>
void weigh_tile(float* scores, int n, int padded_dim, const RowSums& row) {
  typename V::F x[4];
  for (int j = 0; j < 4; ++j) {
    const int lanes = n - 16 * j < 0 ? 0 : n - 16 * j > 16 ? 16 : n - 16 * j;
    x[j] = V::fill_after(V::load(scores + 16 * j), lanes, -__builtin_inff());
  }
  const float tile_highest = V::largest(V::max(V::max(x[0], x[1]), V::max(x[2], x[3])));
  const float highest = tile_highest > *row.highest ? tile_highest : *row.highest;
  const typename V::F shift = V::set(highest);
  for (int j = 0; j < 4; ++j) {
    x[j] = exp<V>(V::sub(x[j], shift));
    V::store(scores + 16 * j, x[j]);
  }
  const float sum = V::sum(V::add(V::add(x[0], x[1]), V::add(x[2], x[3])));
  const float rescale = exp1<V>(*row.highest - highest);
  *row.total = *row.total * rescale + sum;
  *row.highest = highest;
  if (rescale != 1.0f) scale_values<V>(row.values, padded_dim, rescale);
}

// Adds the sums of a later split to those of earlier ones.
template <class V>
void merge_rows(const RowSums& into, const RowSums& later, int padded_dim) {
  const float highest = *into.highest > *later.highest ? *into.highest : *later.highest;
  const float a = exp1<V>(*into.highest - highest);
  const float b = exp1<V>(*later.highest - highest);
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

// The working memory of a job, cut from its scratch.
struct AttendScratch {
  float* scores;  // [kRows][kTilePositions]
  float* q;       // [rows][D], scaled
  float* sums;    // [2][rows][Dp + 2]: of all splits so far, of the current split
  int rows;
  int padded_dim;

  RowSums row(int set, int r) const {
    float* tops = sums + 2 * rows * padded_dim + 2 * (set * rows + r);
    return {tops, tops + 1, sums + (set * rows + r) * padded_dim};
  }
};

template <class V>
AttendScratch prepare_scratch(const AttendJob& job) {
  const int rows = job.num_tokens * job.num_heads;
  const int d_end = job.kv.head_dim;
  float* q = job.scratch + 8 * kTilePositions;
  AttendScratch s{job.scratch, q, q + rows * job.kv.padded_dim, rows, job.kv.padded_dim};
  const typename V::F scale = V::set(job.scale);
  for (int r = 0; r < rows; ++r) {
    const float* from = job.q + static_cast<std::size_t>(r / job.num_heads) * job.q_stride +
                        r % job.num_heads * d_end;
    for (int d = 0; d < d_end; d += 16) {
      const int n = d_end - d < 16 ? d_end - d : 16;
      V::store(s.q + r * d_end + d, V::mul(V::load(from + d, n), scale), n);
    }
  }
  return s;
}

// Positions of [position, position + kTilePositions) that row r sees.
inline int visible(const AttendJob& job, int r, int position) {
  const int n = job.positions[r / job.num_heads] + 1 - position;
  return n < 0 ? 0 : n > kTilePositions ? kTilePositions : n;
}

// One tile for rows [first, first + count), which see rising numbers of its positions. `next` is
// null unless memory is to be read ahead.
template <class V, class T>
void attend_tile(const AttendJob& job, const AttendScratch& s, const TilePointers<T>& tile,
                 const TilePointers<T>* next, int position, int first, int count, int set) {
  const int seen = visible(job, first + count - 1, position);
  tile_kernels<V, T>(count).scores(s.q + first * job.kv.head_dim, job.kv, tile, seen, next,
                                   s.scores);
  for (int r = 0; r < count; ++r) {
    const int n = visible(job, first + r, position);
    if (n > 0) {
      weigh_tile<V>(s.scores + r * kTilePositions, n, s.padded_dim, s.row(set, first + r));
    }
  }
  // Rows that see less drop out as the positions go on.
  int done = 0;
  for (int r = 0; r < count; ++r) {
    const int n = visible(job, first + r, position);
    if (n <= done) continue;
    tile_kernels<V, T>(count - r).values(s.scores + r * kTilePositions, job.kv, tile, next, done, n,
                                         s.row(set, first + r).values);
    done = n;
  }
}

// The first tile of what this thread attends to after the job.
template <class T>
TilePointers<T> first_tile_after(const AttendJob& job) {
  const int position = job.split_begin * kSplitPositions;
  return locate_tile<T>(job, job.next_head_offset, position,
                        visible(job, job.num_tokens * job.num_heads - 1, position));
}

template <class V, class T>
void attend_split(const AttendJob& job, const AttendScratch& s, int split, int set) {
  for (int r = 0; r < s.rows; ++r) {
    const RowSums row = s.row(set, r);
    *row.highest = -__builtin_inff();
    *row.total = 0.0f;
    for (int d = 0; d < s.padded_dim; d += 16) V::store(row.values + d, V::zero());
  }
  const int begin = split * kSplitPositions;
  int seen = visible(job, s.rows - 1, begin);
  TilePointers<T> tile = locate_tile<T>(job, job.kv.head_offset, begin, seen);
  for (int p = begin; seen > 0 && p < begin + kSplitPositions; p += kTilePositions) {
    const int position = p + kTilePositions;
    const int seen_next = visible(job, s.rows - 1, position);
    const bool last = seen_next == 0 || position == job.split_end * kSplitPositions;
    const TilePointers<T> next = last
                                     ? first_tile_after<T>(job)
                                     : locate_tile<T>(job, job.kv.head_offset, position, seen_next);
    const TilePointers<T>* ahead = s.rows <= V::kRows ? &next : nullptr;
    for (int first = 0; first < s.rows; first += V::kRows) {
      const int count = s.rows - first < V::kRows ? s.rows - first : V::kRows;
      if (visible(job, first + count - 1, p) == 0) continue;
      attend_tile<V, T>(job, s, tile, ahead, p, first, count, set);
    }
    tile = next;
    seen = seen_next;
  }
}

template <class V, class T>
void attend_as(const AttendJob& job) {
  const AttendScratch s = prepare_scratch<V>(job);
  attend_split<V, T>(job, s, job.split_begin, 0);
  for (int split = job.split_begin + 1; split < job.split_end; ++split) {
    attend_split<V, T>(job, s, split, 1);
    for (int r = 0; r < s.rows; ++r) {
      if (job.positions[r / job.num_heads] < split * kSplitPositions) continue;
      merge_rows<V>(s.row(0, r), s.row(1, r), s.padded_dim);
    }
  }
  for (int r = 0; r < s.rows; ++r) {
    const RowSums row = s.row(0, r);
    if (job.partial == nullptr) {
      write_result<V>(row, job.kv.head_dim,
                      job.out + static_cast<std::size_t>(r / job.num_heads) * job.out_stride +
                          r % job.num_heads * job.kv.head_dim);
    } else {
      float* partial = job.partial + static_cast<std::size_t>(r) * partial_stride(s.padded_dim);
      for (int d = 0; d < s.padded_dim; d += 16) V::store(partial + d, V::load(row.values + d));
      partial[s.padded_dim] = *row.highest;
      partial[s.padded_dim + 1] = *row.total;
    }
  }
}

template <class V>
void attend(const AttendJob& job) {
  switch (job.kv.dtype) {
    case DType::kF32:
      return attend_as<V, float>(job);
    case DType::kF16:
      return attend_as<V, Half>(job);
    case DType::kBf16:
      return attend_as<V, Bf16>(job);
    case DType::kF8E4M3:  // refused when the device is opened
      return;
  }
}

template <class V>
void merge_splits(float* partials, std::size_t split_stride, int num_splits, int head_dim,
                  int padded_dim, float* out) {
  const auto row = [&](int split) {
    float* p = partials + static_cast<std::size_t>(split) * split_stride;
    return RowSums{p + padded_dim, p + padded_dim + 1, p};
  };
  for (int split = 1; split < num_splits; ++split) {
    merge_rows<V>(row(0), row(split), padded_dim);
  }
  write_result<V>(row(0), head_dim, out);
}

}  // namespace
}  // namespace quire::cpu
