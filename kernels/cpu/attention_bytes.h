// The two products of attention with K and V of 8 bits, in whole numbers. q becomes whole numbers
// of 14 bits with a scale for each row; the weights of a tile, each times the scale of its
// position's V, become whole numbers of 15 bits with a scale for each row and tile. So the sums of
// a tile are exact, whoever adds them in whatever order, and a weight of 0 takes nothing from bytes
// that nobody wrote.
#pragma once

#include <utility>

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tile.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

using ByteTile = TilePointers<std::int8_t>;

// scores[r][p] = q[r] . k[p] for R rows and C vectors of positions from vector c of the tile on.
template <class V, int R, int C>
void score_byte_columns(const std::uint64_t* q, const KvHead& kv, const ByteTile& tile, int c,
                        const ByteTile* next, float* scores) {
  const int units = kv.key_dim / 4, step = 4 * kv.block_size;
  const int stride = KvWords<V, std::int8_t>::query_stride(kv);
  typename V::Sums sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) {
      sum[r][j] = V::begin_sums(byte_query(q + r * stride, kv).start);
    }
  }
  for (int i = 0; i < units; ++i) {
    if (next != nullptr) fetch_keys(*next, i, step);
    decltype(V::load_bytes(tile.k[0])) k[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) k[j] = V::load_bytes(tile.k[c + j] + i * step);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const typename V::Factors x = V::set_factors(q + r * stride + i);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sum[r][j] = V::dot(sum[r][j], k[j], x);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const typename V::F scale = V::set(byte_query(q + r * stride, kv).scale);
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) {
      const typename V::F x = V::mul(V::total(sum[r][j]), scale);
      V::store(scores + r * kTilePositions + 16 * (c + j),
               V::mul(x, V::load(tile.k_scales[c + j])));
    }
  }
}

// The tile's first `seen` positions; what it writes behind them has no meaning.
template <class V, int R>
void score_byte_tile(const std::uint64_t* q, const KvHead& kv, const ByteTile& tile, int seen,
                     const ByteTile* next, float* scores) {
  constexpr int kC = V::kColumns;
  for (int c = 0; 16 * c < seen; c += kC) {
    const ByteTile* ahead = c == 0 ? next : nullptr;
    if (seen - 16 * c > 8 * kC) {
      score_byte_columns<V, R, kC>(q, kv, tile, c, ahead, scores);
    } else {
      score_byte_columns<V, R, (kC > 1 ? kC / 2 : 1)>(q, kv, tile, c, ahead, scores);
    }
  }
}

// Of a row of a tile: its weights, in the place of its scores, and behind them their scale.
inline std::uint64_t* byte_weights(float* scores, int r) {
  return reinterpret_cast<std::uint64_t*>(scores + r * kTilePositions);
}
inline float* scale_of_weights(float* scores, int r) {
  return scores + r * kTilePositions + kTilePositions / 2;
}
inline constexpr float kWeightLevels = 32767.0f;

inline float power_of_two(int exponent) {
  const std::int32_t bits = (exponent + 127) << 23;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// The scales of V of a tile, as far as a row sees them, so that they are whole numbers' steps:
// times weights of at most 1 they are within kWeightLevels.
template <class V>
struct ValueSteps {
  typename V::F steps[4];
  float scale;
};
template <class V, bool Whole>
[[gnu::always_inline]] inline ValueSteps<V> value_steps(const ByteTile& tile, int hidden, int n) {
  ValueSteps<V> to;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) to.steps[j] = V::load(tile.v_scales[j]);
  fill_unseen<V, Whole>(to.steps, hidden, n, 0.0f);
  const float most =
      V::largest(V::max(V::max(to.steps[0], to.steps[1]), V::max(to.steps[2], to.steps[3])));
  const bool zeros = most < 0x1p-100f;
  to.scale = zeros ? 0.0f : most * (1.0f / kWeightLevels);
  const typename V::F inverse = V::set(zeros ? 0.0f : kWeightLevels / most);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) to.steps[j] = V::mul(to.steps[j], inverse);
  return to;
}

// x: the weights of the row of `scores`, at most 2^-below.
template <class V>
[[gnu::always_inline]] inline void store_byte_weights(const typename V::F (&x)[4], float below,
                                                      const ValueSteps<V>& values, float* scores) {
  const int power = static_cast<int>(below < 126.0f ? below : 126.0f);
  *scale_of_weights(scores, 0) = values.scale * power_of_two(-power);
  const typename V::F up = V::set(power_of_two(power));
  const auto whole = [&](int j) { return V::mul(V::mul(x[j], up), values.steps[j]); };
  V::store_64_factors(byte_weights(scores, 0), whole(0), whole(1), whole(2), whole(3));
}

// values[r] += weight[r][p] * v[p] for fours of positions [begin, end), C vectors wide.
template <class V, int R, int C>
void value_byte_columns(float* scores, const KvHead& kv, const std::int8_t* const* v,
                        const ByteTile* next, int begin, int end, float* values) {
  const int step = 4 * kv.padded_dim;
  typename V::Sums sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::begin_sums(0);
  }
  for (int i = begin; i < end; ++i) {
    const int row = i % 4 * step;
    if (next != nullptr) fetch_values(next->v[i / 4] + row, step);
    decltype(V::load_bytes(v[0])) x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = V::load_bytes(v[i / 4] + row + 64 * c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const typename V::Factors w = V::set_of_64_factors(byte_weights(scores, r), i);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = V::dot(sum[r][c], x[c], w);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const typename V::F scale = V::set(*scale_of_weights(scores, r));
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      float* to = values + r * kv.padded_dim + 16 * c;
      V::store(to, V::fma(V::total(sum[r][c]), scale, V::load(to)));
    }
  }
}

// All columns.
template <class V, int R>
void value_byte_tile(float* scores, const KvHead& kv, const ByteTile& tile, const ByteTile* next,
                     int begin, int end, float* values) {
  constexpr int kWide = 16 * V::kColumns;
  const std::int8_t* v[kTilePositions / 16];
  for (int d = 0; d < kv.padded_dim;) {
    for (int j = 0; j < kTilePositions / 16; ++j) v[j] = tile.v[j] + 4 * d;
    const ByteTile* ahead = d == 0 ? next : nullptr;
    if (d + kWide <= kv.padded_dim) {
      value_byte_columns<V, R, V::kColumns>(scores, kv, v, ahead, begin, end, values + d);
      d += kWide;
    } else {
      value_byte_columns<V, R, 1>(scores, kv, v, ahead, begin, end, values + d);
      d += 16;
    }
  }
}

// The two passes by number of rows.
struct ByteKernels {
  void (*scores)(const std::uint64_t*, const KvHead&, const ByteTile&, int, const ByteTile*,
                 float*);
  void (*values)(float*, const KvHead&, const ByteTile&, const ByteTile*, int, int, float*);
};
template <class V, int... R>
const ByteKernels& byte_kernels(int rows, std::integer_sequence<int, R...>) {
  static constexpr ByteKernels kKernels[] = {
      {&score_byte_tile<V, R + 1>, &value_byte_tile<V, R + 1>}...};
  return kKernels[rows - 1];
}
template <class V>
const ByteKernels& byte_kernels(int rows) {
  constexpr int kRows = KvWords<V, std::int8_t>::kRows;
  return byte_kernels<V>(rows, std::make_integer_sequence<int, kRows>());
}

template <class V, class T>
struct TilePass;  // attention.h

// One tile and the rows [first, first + count) that attend to it.
template <class V>
struct TilePass<V, std::int8_t> {
  const AttendJob& job;
  const ScratchOf<V, std::int8_t>& s;
  const ByteTile& tile;
  const ByteTile* next;
  int position;
  int first;
  int count;
  int set;  // of sums

  int hidden(int r) const { return s.hidden(r, position, job.window); }
  int visible(int r) const { return s.visible(r, position); }

  void run() const {
    // Rows that see nothing of the tile come before or behind those that do, and are left alone.
    int low = first, high = first + count;
    while (low < high && visible(low) == 0) ++low;
    while (low < high && hidden(high - 1) == kTilePositions) --high;
    if (low == high) return;
    const int begin = hidden(low), end = visible(high - 1);
    const ByteKernels& kernels = byte_kernels<V>(high - low);
    kernels.scores(s.query(low), job.kv, tile, end, next, s.scores);
    if (visible(low) == kTilePositions && hidden(high - 1) == 0) {
      const ValueSteps<V> values = value_steps<V, true>(tile, 0, kTilePositions);
      for (int r = low; r < high; ++r) weigh<true>(low, r, values);
    } else {
      for (int r = low; r < high; ++r) {
        weigh<false>(low, r, value_steps<V, false>(tile, hidden(r), visible(r)));
      }
    }
    kernels.values(s.scores, job.kv, tile, next, begin / 4, (end + 3) / 4, s.row(set, low).values);
  }

  // Turns the scores of row r, which lie behind those of row `low`, into weights.
  template <bool Whole>
  void weigh(int low, int r, const ValueSteps<V>& values) const {
    float* scores = s.scores + (r - low) * kTilePositions;
    typename V::F x[4];
    const float below = weigh_scores<V, Whole>(scores, hidden(r), visible(r), job.soft_cap,
                                               s.padded_dim, s.row(set, r), x);
    sum_weights<V>(x, s.row(set, r));
    store_byte_weights<V>(x, below, values, scores);
  }
};

}  // namespace
}  // namespace quire::cpu
