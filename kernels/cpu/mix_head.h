// The Walsh-Hadamard transform of a head, in runs of kv_mix_width() elements (kv_scale.h), which
// spreads what K has in few dimensions over all of them before it is rounded to 8 bits.
#pragma once

#include "kernels/cpu/row_ops.h"
#include "kernels/kv_scale.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// Of pairs of lanes `kDistance` apart the sum and the difference.
template <class V, int kDistance>
[[gnu::always_inline]] inline typename V::F mix_lanes(typename V::F x) {
  alignas(64) static constexpr auto kSigns = [] {
    struct {
      float of[16];
    } signs = {};
    for (int l = 0; l < 16; ++l) signs.of[l] = (l & kDistance) == 0 ? 1.0f : -1.0f;
    return signs;
  }();
  return V::fma(x, V::load(kSigns.of), V::template swap_lanes<kDistance>(x));
}

// x = the transform of its n elements, times `factor`.
template <class V>
void mix_head(float* x, int n, float factor) {
  const int width = kv_mix_width(n);
  for (int i = 0; i < n; i += 16) {
    const int count = clamp16(n - i);
    typename V::F y = V::mul(V::load(x + i, count), V::set(factor));
    if (width >= 2) y = mix_lanes<V, 1>(y);
    if (width >= 4) y = mix_lanes<V, 2>(y);
    if (width >= 8) y = mix_lanes<V, 4>(y);
    if (width >= 16) y = mix_lanes<V, 8>(y);
    V::store(x + i, y, count);
  }
  for (int distance = 16; distance < width; distance *= 2) {
    for (int i = 0; i < n; i += 16) {
      if ((i & distance) != 0) continue;
      const typename V::F a = V::load(x + i), b = V::load(x + i + distance);
      V::store(x + i, V::add(a, b));
      V::store(x + i + distance, V::sub(a, b));
    }
  }
}

}  // namespace
}  // namespace quire::cpu
