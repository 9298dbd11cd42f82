// The two products of attention with K and V of 8 bits, in whole numbers. q becomes whole numbers
// of 14 bits with a scale for each row; the weights of a tile, each times the scale of its
// position's V, become whole numbers of 15 bits with a scale for each row and tile. So the sums of
// a tile are exact, whoever adds them in whatever order, and a weight of 0 takes nothing from bytes
// that nobody wrote.
#pragma once

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/kv_scale.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

using ByteTile = TilePointers<std::int8_t>;

template <class V>
struct TileColumns<V, std::int8_t> {
  template <int R, int C>
  static void scores(const std::uint64_t* q, const KvHead& kv, const ByteTile& tile, int c,
                     const ByteTile* next, float* to);
  template <int R, int C>
  static void values(float* scores, const KvHead& kv, const std::int8_t* const* v,
                     const ByteTile* next, int begin, int end, float* to);
};

template <class V>
template <int R, int C>
void TileColumns<V, std::int8_t>::scores(const std::uint64_t* q, const KvHead& kv,
                                         const ByteTile& tile, int c, const ByteTile* next,
                                         float* to) {
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
      V::store(to + r * kTilePositions + 16 * (c + j), V::mul(x, V::load(tile.k_scales[c + j])));
    }
  }
}

// The scale of a row's weights lies behind them.
inline float* scale_of_weights(float* scores, int r) {
  return scores + r * kTilePositions + kTilePositions / 2;
}
inline constexpr float kWeightLevels = 32767.0f;

inline float power_of_two(int exponent) {
  const std::uint32_t bits = power_of_two_bits(exponent);
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
  V::store_64_factors(weights_of<V, std::int8_t>(scores, 0), whole(0), whole(1), whole(2),
                      whole(3));
}

template <class V>
template <int R, int C>
void TileColumns<V, std::int8_t>::values(float* scores, const KvHead& kv,
                                         const std::int8_t* const* v, const ByteTile* next,
                                         int begin, int end, float* to) {
  const int step = 4 * kv.padded_dim;
  typename V::Sums sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::begin_sums(0);
  }
  for (int i = begin / 4; i < end / 4; ++i) {
    const int row = i % 4 * step;
    if (next != nullptr) fetch_values(next->v[i / 4] + row, step);
    decltype(V::load_bytes(v[0])) x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = V::load_bytes(v[i / 4] + row + 64 * c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const typename V::Factors w = V::set_of_64_factors(weights_of<V, std::int8_t>(scores, r), i);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = V::dot(sum[r][c], x[c], w);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const typename V::F scale = V::set(*scale_of_weights(scores, r));
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      float* values = to + r * kv.padded_dim + 16 * c;
      V::store(values, V::fma(V::total(sum[r][c]), scale, V::load(values)));
    }
  }
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
    const TileKernels<V, std::int8_t>& kernels = tile_kernels<V, std::int8_t>(high - low);
    kernels.scores(s.query(low), job.kv, tile, end, next, s.scores);
    if (visible(low) == kTilePositions && hidden(high - 1) == 0) {
      const ValueSteps<V> values = value_steps<V, true>(tile, 0, kTilePositions);
      for (int r = low; r < high; ++r) weigh<true>(low, r, values);
    } else {
      for (int r = low; r < high; ++r) {
        weigh<false>(low, r, value_steps<V, false>(tile, hidden(r), visible(r)));
      }
    }
    kernels.values(s.scores, job.kv, tile, next, begin / 4 * 4, (end + 3) / 4 * 4,
                   s.row(set, low).values);
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
