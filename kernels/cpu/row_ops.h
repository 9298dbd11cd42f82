// Row ops over the lanes of either instruction set: norm, combine, gated, and the conversion of
// what they produce to the layout the next linear wants, 32 columns at a time.
#pragma once

#include "kernels/cpu/activation.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/formats/half.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// 32 columns in two vectors.
template <class V>
struct Block32 {
  typename V::F a, b;
};

constexpr int clamp16(int n) {
  return n < 0 ? 0 : n > 16 ? 16 : n;
}

// Columns [i, i + 32) of a row of `columns`; those beyond its end are zero. Inlined by force, like
// all that passes a block: it would travel through memory.
template <class V>
[[gnu::always_inline]] inline Block32<V> load_block(const float* x, int i, int columns) {
  if (i + 32 <= columns) return {V::load(x + i), V::load(x + i + 16)};
  return {V::load(x + i, clamp16(columns - i)), V::load(x + i + 16, clamp16(columns - i - 16))};
}

// See activation.h. `up` is the largest x, `down` the largest -x. Which of them is larger nobody
// can foresee: written so that it takes no branch.
inline float larger_of(float a, float b) {
  return a > b ? a : b;
}
inline float smaller_of(float a, float b) {
  return a < b ? a : b;
}
float q8_scale(float up, float down) {
  const float scale = larger_of(larger_of(up, down) * (1.0f / kLargestQ8),
                                smaller_of(up, down) * (-1.0f / kSmallestQ8));
  return __builtin_copysignf(scale, up - down);
}

constexpr float kSmallestNormal = 0x1p-126f;  // a block of a smaller scale is zero

template <class V>
[[gnu::always_inline]] inline void put_q8(const RowTarget& out, std::byte* row, int i,
                                          Block32<V> x) {
  auto* values = reinterpret_cast<std::int8_t*>(row) + i;
  const auto negative = [](typename V::F y) { return V::sub(V::zero(), y); };
  const float scale =
      q8_scale(V::largest(V::max(x.a, x.b)), V::largest(V::max(negative(x.a), negative(x.b))));
  const bool is_zero = __builtin_fabsf(scale) < kSmallestNormal;
  int sum = 0;
  if (is_zero) {
    V::store_int8(values, V::zero(), V::zero());
  } else {
    const typename V::F inverse = V::set(1.0f / scale);
    const auto number = [&](typename V::F y) {  // what is no number becomes one: the smallest
      return V::max(V::round(V::mul(y, inverse)), V::set(kSmallestQ8));
    };
    sum = V::store_int8(values, number(x.a), number(x.b));
  }
  reinterpret_cast<float*>(row + out.scales_offset)[i / 32] = is_zero ? 0.0f : scale;
  reinterpret_cast<std::int32_t*>(row + out.sums_offset)[i / 32] = sum;
}

// put_q8 and q8_scale for four neighbouring blocks, where the instruction set has words to reduce
// them side by side: the same numbers as one after the other. False, and nothing written, if one of
// them is zero.
template <class V>
[[gnu::always_inline]] inline bool put_four_q8(const RowTarget& out, std::byte* row, int i,
                                               const Block32<V> (&x)[4]) {
  using F = typename V::F;
  const auto each = [&](auto pick) {
    return V::four_largest(pick(x[0]), pick(x[1]), pick(x[2]), pick(x[3]));
  };
  const F up = each([](Block32<V> b) { return V::max(b.a, b.b); });
  const F down = each([](Block32<V> b) { return V::sub(V::zero(), V::min(b.a, b.b)); });
  const F scale = V::with_sign_of(V::max(V::mul(V::max(up, down), V::set(1.0f / kLargestQ8)),
                                         V::mul(V::min(up, down), V::set(-1.0f / kSmallestQ8))),
                                  V::sub(up, down));
  if (V::mask_lt(V::abs(scale), V::set(kSmallestNormal)) != 0) return false;
  const F inverse = V::div(V::set(1.0f), scale);
  const auto number = [](F y, F by) { return V::max(V::mul(y, by), V::set(kSmallestQ8)); };
  auto* values = reinterpret_cast<std::int8_t*>(row) + i;
  const F i0 = V::template lanes_of<0>(inverse), i1 = V::template lanes_of<1>(inverse);
  const auto low = V::store_64_int8(values, number(x[0].a, i0), number(x[0].b, i0),
                                    number(x[1].a, i1), number(x[1].b, i1));
  const F i2 = V::template lanes_of<2>(inverse), i3 = V::template lanes_of<3>(inverse);
  const auto high = V::store_64_int8(values + 64, number(x[2].a, i2), number(x[2].b, i2),
                                     number(x[3].a, i3), number(x[3].b, i3));
  V::store_four(reinterpret_cast<float*>(row + out.scales_offset) + i / 32, scale);
  V::store_four_sums(reinterpret_cast<std::int32_t*>(row + out.sums_offset) + i / 32, low, high);
  return true;
}

// Writes columns [i, i + 32) of a row in the target's layout; rows are padded with zeros to 64
// bytes, so only the second half of a float block can lie outside.
template <class V>
[[gnu::always_inline]] inline void put_block(const RowTarget& out, std::byte* row, int i,
                                             Block32<V> x) {
  switch (out.layout) {
    case ActivationLayout::kF32: {
      float* p = reinterpret_cast<float*>(row) + i;
      V::store(p, x.a);
      if (i + 16 < out.columns) V::store(p + 16, x.b);
      return;
    }
    case ActivationLayout::kBf16: {
      Bf16* p = reinterpret_cast<Bf16*>(row) + i;
      V::store(p, x.a);
      V::store(p + 16, x.b);
      return;
    }
    case ActivationLayout::kQ8:
      put_q8<V>(out, row, i, x);
      return;
  }
}

// Columns [begin, end) of a row, as block_at(i) makes them: inlined by force, see load_block.
template <class V, class BlockAt>
[[gnu::always_inline]] inline void put_blocks(const RowTarget& out, std::byte* row, int begin,
                                              int end, BlockAt block_at) {
  int i = begin;
  if constexpr (V::kFourBlocks) {
    for (; out.layout == ActivationLayout::kQ8 && i + 128 <= end; i += 128) {
      const Block32<V> x[4] = {block_at(i), block_at(i + 32), block_at(i + 64), block_at(i + 96)};
      if (put_four_q8<V>(out, row, i, x)) continue;
      for (int j = 0; j < 4; ++j) put_q8<V>(out, row, i + 32 * j, x[j]);
    }
  }
  for (; i < end; i += 32) put_block<V>(out, row, i, block_at(i));
}

// Zeroes what lies between the last block of 32 and the 64-byte boundaries of a kQ8 row.
template <class V>
void finish_row(const RowTarget& out, std::byte* row) {
  if (out.layout != ActivationLayout::kQ8) return;
  const int blocks = (out.columns + 31) / 32;
  if (blocks % 2 != 0) {
    auto* values = reinterpret_cast<std::int8_t*>(row) + blocks * 32;
    V::store_int8(values, V::zero(), V::zero());
  }
  float* scales = reinterpret_cast<float*>(row + out.scales_offset);
  auto* sums = reinterpret_cast<std::int32_t*>(row + out.sums_offset);
  for (int i = blocks; i % 16 != 0; ++i) {
    scales[i] = 0.0f;
    sums[i] = 0;
  }
}

template <class V>
void store_row(const float* x, const RowTarget& out, int row) {
  std::byte* to = out.data + static_cast<std::size_t>(row) * out.stride;
  const auto block_at = [&](int i) __attribute__((always_inline)) {
    return load_block<V>(x, i, out.columns);
  };
  put_blocks<V>(out, to, 0, out.columns, block_at);
  finish_row<V>(out, to);
}

// Sum of squares in four chains by block of 32, then the fixed tree of lanes.
template <class V>
class SquareSum {
 public:
  void add(int i, Block32<V> x) {
    typename V::F* pair = chains_ + (i / 32 % 2) * 2;
    pair[0] = V::fma(x.a, x.a, pair[0]);
    pair[1] = V::fma(x.b, x.b, pair[1]);
  }
  // 1 / sqrt(mean + eps)
  float inverse_rms(int columns, float eps) const {
    const float sum =
        V::sum(V::add(V::add(chains_[0], chains_[1]), V::add(chains_[2], chains_[3])));
    const float mean = sum / static_cast<float>(columns);
    return 1.0f / V::first_lane(V::sqrt(V::set(mean + eps)));
  }

 private:
  typename V::F chains_[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
};

template <class V>
void put_normed(const float* x, const float* weight, float inverse, const RowTarget& out, int row) {
  const typename V::F factor = V::set(inverse);
  std::byte* to = out.data + static_cast<std::size_t>(row) * out.stride;
  const auto block_at = [&](int i) __attribute__((always_inline)) {
    const Block32<V> v = load_block<V>(x, i, out.columns);
    const Block32<V> w = load_block<V>(weight, i, out.columns);
    return Block32<V>{V::mul(V::mul(v.a, factor), w.a), V::mul(V::mul(v.b, factor), w.b)};
  };
  put_blocks<V>(out, to, 0, out.columns, block_at);
  finish_row<V>(out, to);
}

template <class V>
void norm_row(const float* x, const float* weight, float eps, const RowTarget& out, int row) {
  SquareSum<V> squares;
  for (int i = 0; i < out.columns; i += 32) squares.add(i, load_block<V>(x, i, out.columns));
  put_normed<V>(x, weight, squares.inverse_rms(out.columns, eps), out, row);
}

// Runs the post-order program over 32 columns at offset `at` of the partials.
template <class V>
[[gnu::always_inline]] inline Block32<V> combine_block(const CombineJob& job, std::size_t at,
                                                       int i) {
  if (job.program_size == 1)
    return load_block<V>(job.partials[job.program[0]] + at, i, job.columns);
  Block32<V> stack[kMaxCombineDepth];
  int depth = 0;
  for (int step = 0; step < job.program_size; ++step) {
    const int entry = job.program[step];
    if (entry >= 0) {
      stack[depth++] = load_block<V>(job.partials[entry] + at, i, job.columns);
    } else {
      --depth;
      stack[depth - 1].a = V::add(stack[depth - 1].a, stack[depth].a);
      stack[depth - 1].b = V::add(stack[depth - 1].b, stack[depth].b);
    }
  }
  return stack[0];
}

template <class V>
[[gnu::always_inline]] inline void store_block(float* x, int i, int columns, Block32<V> v) {
  V::store(x + i, v.a, clamp16(columns - i));
  V::store(x + i + 16, v.b, clamp16(columns - i - 16));
}

template <class V>
void combine_row(const CombineJob& job, int row) {
  const std::size_t at = static_cast<std::size_t>(row) * static_cast<std::size_t>(job.columns);
  float* residual = job.residual + at;
  SquareSum<V> squares;
  for (int i = 0; i < job.columns; i += 32) {
    Block32<V> x = combine_block<V>(job, at, i);
    if (job.bias != nullptr) {
      const Block32<V> bias = load_block<V>(job.bias, i, job.columns);
      x = {V::add(x.a, bias.a), V::add(x.b, bias.b)};
    }
    const Block32<V> old = load_block<V>(residual, i, job.columns);
    x = {V::add(old.a, x.a), V::add(old.b, x.b)};
    store_block<V>(residual, i, job.columns, x);
    squares.add(i, x);
  }
  if (job.norm_weight == nullptr) return;
  put_normed<V>(residual, job.norm_weight, squares.inverse_rms(job.columns, job.eps), job.out, row);
}

template <class V>
void gated_span(Gate gate, const float* x, const float* up, int begin, int end,
                const RowTarget& out, int row) {
  std::byte* to = out.data + static_cast<std::size_t>(row) * out.stride;
  const auto gated = [&](auto function) {
    const auto block_at = [&](int i) __attribute__((always_inline)) {
      const Block32<V> g = load_block<V>(x, i, out.columns);
      const Block32<V> u = load_block<V>(up, i, out.columns);
      return Block32<V>{V::mul(function(g.a), u.a), V::mul(function(g.b), u.b)};
    };
    put_blocks<V>(out, to, begin, end, block_at);
  };
  if (gate == Gate::kSilu) {
    gated([](typename V::F y) { return silu<V>(y); });
  } else {
    gated([](typename V::F y) { return gelu_tanh<V>(y); });
  }
  if (end == out.columns) finish_row<V>(out, to);
}

}  // namespace
}  // namespace quire::cpu
