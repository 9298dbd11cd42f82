// Causal attention over the paged arena, over the lanes of either instruction set.
//
// The rows of a job are its tokens times the query heads of one KV head, so K and V are read once
// for all of them. Tiles of kTilePositions and splits of kSplitPositions start at absolute position
// 0. Within a tile a row's scores are complete sums over d in order, its weights are summed in a
// fixed tree of lanes, and its values are added position by position: nothing depends on which
// other rows share the pass. Positions that a row does not see, after its own or before its window,
// are never weighted nor multiplied; tiles that no row sees are not read.
#pragma once

#include <utility>

#include "kernels/cpu/attention_softmax.h"
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

inline int within_tile(int n) {
  return n < 0 ? 0 : n > kTilePositions ? kTilePositions : n;
}
// Of the positions [position, position + kTilePositions) row r sees [hidden, visible).
inline int visible(const AttendJob& job, int r, int position) {
  return within_tile(job.positions[r / job.num_heads] + 1 - position);
}
inline int hidden(const AttendJob& job, int r, int position) {
  if (job.window == 0) return 0;
  return within_tile(job.positions[r / job.num_heads] + 1 - job.window - position);
}
// The first tile of a split that any row sees.
inline int first_tile(const AttendJob& job, int split) {
  const int begin = split * kSplitPositions;
  if (job.window == 0) return begin;
  const int first = job.positions[0] + 1 - job.window;
  return first < begin ? begin : first / kTilePositions * kTilePositions;
}

// Adds the values of a tile to rows [first, first + count), of which `scores` are the weights. At
// any position those that see it are neighbours: run after run of positions that the same ones see.
template <class V, class T>
void add_tile(const AttendJob& job, const AttendScratch& s, const TilePointers<T>& tile,
              const TilePointers<T>* next, int position, int first, int count, int set) {
  const int seen = visible(job, first + count - 1, position);
  for (int begin = hidden(job, first, position); begin < seen;) {
    int low = 0;
    while (visible(job, first + low, position) <= begin) ++low;
    int high = low;
    while (high < count && hidden(job, first + high, position) <= begin) ++high;
    int end = visible(job, first + low, position);
    if (high < count) {
      const int joins = hidden(job, first + high, position);
      if (joins < end || high == low) end = joins;
    }
    if (high > low) {
      tile_kernels<V, T>(high - low)
          .values(s.scores + low * kTilePositions, job.kv, tile, next, begin, end,
                  s.row(set, first + low).values);
    }
    begin = end;
  }
}

// One tile for rows [first, first + count), which see rising ranges of its positions. `next` is
// null unless memory is to be read ahead.
template <class V, class T>
void attend_tile(const AttendJob& job, const AttendScratch& s, const TilePointers<T>& tile,
                 const TilePointers<T>* next, int position, int first, int count, int set) {
  const int seen = visible(job, first + count - 1, position);
  tile_kernels<V, T>(count).scores(s.q + first * job.kv.head_dim, job.kv, tile, seen, next,
                                   s.scores);
  for (int r = 0; r < count; ++r) {
    const int begin = hidden(job, first + r, position);
    const int end = visible(job, first + r, position);
    if (begin >= end) continue;
    weigh_tile<V>(s.scores + r * kTilePositions, begin, end, job.soft_cap, s.padded_dim,
                  s.row(set, first + r));
  }
  add_tile<V, T>(job, s, tile, next, position, first, count, set);
}

// The first tile of what this thread attends to after the job.
template <class T>
TilePointers<T> first_tile_after(const AttendJob& job) {
  const int position = first_tile(job, job.split_begin);
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
  const int begin = first_tile(job, split);
  const int end = (split + 1) * kSplitPositions;
  int seen = begin < end ? visible(job, s.rows - 1, begin) : 0;
  if (seen == 0) return;
  TilePointers<T> tile = locate_tile<T>(job, job.kv.head_offset, begin, seen);
  for (int p = begin; seen > 0 && p < end; p += kTilePositions) {
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
      if (hidden(job, first, p) == kTilePositions) continue;
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

}  // namespace
}  // namespace quire::cpu
