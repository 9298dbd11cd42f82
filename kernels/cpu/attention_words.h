// How K and V of a dtype are multiplied: one vector at a time, a unit of kPair elements per lane.
// bfloat16 is multiplied two by two, q and weights rounded to it too: K lies as [D / 2][S][2], V as
// [S / 2][Dp][2]. 8 bits are multiplied four by four as whole numbers: attention_bytes.h. The other
// dtypes are widened to fp32, a unit is one element.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector_ops.h"
#include "kernels/formats/half.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// T: what the arena holds. Factor: what q and weights are rounded to.
template <class V, class T>
struct KvWords {
  using Factor = float;
  using Units = typename V::F;  // a unit in each lane
  static constexpr int kPair = 1;
  static constexpr int kRows = V::kRows;                            // that share a pass over a tile
  static int query_stride(const KvHead& kv) { return kv.key_dim; }  // in Factors
  static Units load(const T* units) { return V::load(units); }
  static Units set(const float* unit) { return V::set(*unit); }
  // sum + unit * k
  static typename V::F dot(typename V::F sum, Units unit, Units k) { return V::fma(unit, k, sum); }
};

template <class V>
struct KvWords<V, Bf16> {
  using Factor = Bf16;
  using Units = typename V::Pairs;
  static constexpr int kPair = 2;
  static constexpr int kRows = V::kRows;
  static int query_stride(const KvHead& kv) { return kv.key_dim; }
  static Units load(const Bf16* units) { return V::load_pairs(units); }
  static Units set(const Bf16* unit) { return V::set_pair(unit); }
  static typename V::F dot(typename V::F sum, Units unit, Units k) {
    return V::dot_pairs(sum, unit, k);
  }
  // Pairs of which only one element counts: the other one, which may be NaN, becomes 0.
  static Units keep(Units pairs, int element) { return V::keep_of_pairs(pairs, element); }
};

// A Factor is four factors of 16 bits.
template <class V>
struct KvWords<V, std::int8_t> {
  using Factor = std::uint64_t;
  static constexpr int kPair = 4;
  static constexpr int kRows = V::kRows / 2;  // a sum takes two registers
  static int query_stride(const KvHead& kv) { return kv.padded_dim / 2; }
};

}  // namespace
}  // namespace quire::cpu
