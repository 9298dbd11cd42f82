// One row of q as it is multiplied with K: scaled, and rounded to what goes with K's dtype.
#pragma once

#include "kernels/cpu/attention_words.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// Behind the head's end: zero.
template <class V, class Factor>
void store_query(const float* from, const KvHead& kv, float scale, Factor* to) {
  const typename V::F factor = V::set(scale);
  for (int d = 0; d < kv.head_dim; d += 16) {
    const int n = kv.head_dim - d < 16 ? kv.head_dim - d : 16;
    Factor sixteen[16];
    V::store(sixteen, V::mul(V::load(from + d, n), factor));
    const int kept = kv.key_dim - d < 16 ? kv.key_dim - d : 16;
    __builtin_memcpy(to + d, sixteen, static_cast<std::size_t>(kept) * sizeof(Factor));
  }
}

// What belongs to a row of whole numbers; it lies behind them.
struct ByteQuery {
  float scale;         // of the numbers
  std::int32_t start;  // -128 times their sum: K is stored with 128 added
};
inline ByteQuery byte_query(const std::uint64_t* row, const KvHead& kv) {
  ByteQuery query;
  __builtin_memcpy(&query, row + kv.padded_dim / 4, sizeof(query));
  return query;
}

// The largest whole number of a row: 14 bits, or as many as keep products with D bytes in 32.
inline float query_levels(int head_dim) {
  return static_cast<float>(head_dim <= 1024 ? 1 << 14 : (1 << 24) / head_dim);
}

template <class V>
void store_query(const float* from, const KvHead& kv, float scale, std::uint64_t* to) {
  const auto sixteen = [&](int d) {
    return V::load(from + d, kv.head_dim - d < 16 ? kv.head_dim - d : 16);
  };
  typename V::F most = V::zero();
  for (int d = 0; d < kv.head_dim; d += 16) most = V::max(most, V::abs(sixteen(d)));
  const float largest = V::largest(most), levels = query_levels(kv.head_dim);
  const bool zeros = largest < 0x1p-100f;
  const typename V::F inverse = V::set(zeros ? 0.0f : levels / largest);
  typename V::F sum = V::zero();  // exact: at most 2^24
  for (int d = 0; d < kv.head_dim; d += 16) {
    const typename V::F whole = V::round(V::mul(sixteen(d), inverse));
    V::store_factors(to + d / 4, whole);
    sum = V::add(sum, whole);
  }
  const auto negated = static_cast<std::uint32_t>(-static_cast<std::int32_t>(V::sum(sum)));
  const ByteQuery query{largest / levels * scale, static_cast<std::int32_t>(128 * negated)};
  __builtin_memcpy(to + kv.padded_dim / 4, &query, sizeof(query));
}

}  // namespace
}  // namespace quire::cpu
