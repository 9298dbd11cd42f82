// The sampler's passes over a run of logits, over the lanes of either instruction set.
#pragma once

#include "kernels/cpu/rope_ops.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/vector_ops.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

inline constexpr float kMinusInfinity = -__builtin_inff();

// Lanes [0, n) of x[i..], the rest -infinity.
template <class V>
typename V::F load_logits(const float* x, int n) {
  return n >= 16 ? V::load(x) : V::fill_after(V::load(x, n), n, kMinusInfinity);
}

// NaN if any of them is NaN.
template <class V>
float largest_of(const float* x, int n) {
  typename V::F chains[4] = {V::set(kMinusInfinity), V::set(kMinusInfinity), V::set(kMinusInfinity),
                             V::set(kMinusInfinity)};
  std::uint32_t numbers = 0xffffu;  // lanes that held numbers only: the maximum passes NaN over
  const auto take = [&numbers](typename V::F logits, typename V::F chain) {
    numbers &= V::mask_eq(logits, logits);
    return V::max(logits, chain);
  };
  int i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int c = 0; c < 4; ++c) chains[c] = take(V::load(x + i + 16 * c), chains[c]);
  }
  for (; i < n; i += 16) chains[0] = take(load_logits<V>(x + i, n - i), chains[0]);
  if (numbers != 0xffffu) return __builtin_nanf("");
  return V::largest(V::max(V::max(chains[0], chains[1]), V::max(chains[2], chains[3])));
}

template <class V>
int find_value(const float* x, int n, float value) {
  const typename V::F wanted = V::set(value);
  for (int i = 0; i < n; i += 16) {
    const std::uint32_t lanes = n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u;
    const std::uint32_t hits = V::mask_eq(V::load(x + i, clamp16(n - i)), wanted) & lanes;
    if (hits != 0) return i + __builtin_ctz(hits);
  }
  return n;
}

template <class V>
typename V::F weights_of(typename V::F x, float highest, float inverse_temperature) {
  return exp<V>(V::mul(V::sub(x, V::set(highest)), V::set(inverse_temperature)));
}

template <class V>
float sum_weights(const float* x, int n, float highest, float inverse_temperature, float lowest) {
  typename V::F chains[2] = {V::zero(), V::zero()};
  const typename V::F bound = V::set(lowest);
  for (int i = 0; i < n; i += 16) {
    const typename V::F logits = load_logits<V>(x + i, n - i);
    typename V::F& chain = chains[i / 16 % 2];
    chain = V::add(
        chain, V::zero_below(weights_of<V>(logits, highest, inverse_temperature), logits, bound));
  }
  return V::sum(V::add(chains[0], chains[1]));
}

template <class V>
void weights(const float* x, int n, float highest, float inverse_temperature, float* out) {
  for (int i = 0; i < n; i += 16) {
    V::store(out + i, weights_of<V>(load_logits<V>(x + i, n - i), highest, inverse_temperature),
             clamp16(n - i));
  }
}

template <class V>
int count_at_least(const float* x, int n, float lowest) {
  const typename V::F bound = V::set(lowest);
  int count = 0;
  for (int i = 0; i < n; i += 16) {
    const std::uint32_t lanes = n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u;
    count += __builtin_popcount(V::mask_ge(V::load(x + i, clamp16(n - i)), bound) & lanes);
  }
  return count;
}

template <class V>
int gather_at_least(const float* x, int n, float lowest, TokenId first_id, float* values,
                    TokenId* ids) {
  const typename V::F bound = V::set(lowest);
  int count = 0;
  for (int i = 0; i < n; i += 16) {
    const std::uint32_t lanes = n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u;
    std::uint32_t hits = V::mask_ge(V::load(x + i, clamp16(n - i)), bound) & lanes;
    for (; hits != 0; hits &= hits - 1) {
      const int at = i + __builtin_ctz(hits);
      values[count] = x[at];
      ids[count++] = first_id + at;
    }
  }
  return count;
}

// The table of one instruction set; the attention entries come from files of their own.
template <class V>
constexpr VectorOps make_vector_ops(decltype(VectorOps::attend) attend,
                                    decltype(VectorOps::merge_splits) merge_splits) {
  return {.store_row = &store_row<V>,
          .norm_row = &norm_row<V>,
          .combine_row = &combine_row<V>,
          .gated_span = &gated_span<V>,
          .rope_store = &rope_store<V>,
          .attend = attend,
          .merge_splits = merge_splits,
          .largest = &largest_of<V>,
          .find = &find_value<V>,
          .sum_weights = &sum_weights<V>,
          .weights = &weights<V>,
          .count_at_least = &count_at_least<V>,
          .gather_at_least = &gather_at_least<V>};
}

}  // namespace
}  // namespace quire::cpu
