// exp and what is built on it, written once over the lanes of either instruction set.
#pragma once

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

// e^x within 2 ulp. Zero below -87.33 (the last normal result), e^88.02 above that; NaN stays NaN.
// x = n ln2 + r with |r| <= ln2 / 2, then a polynomial of degree 6 in r interpolating at the
// Chebyshev nodes, times 2^n.
template <class V>
[[gnu::always_inline]] inline typename V::F exp(typename V::F x) {
  using F = typename V::F;
  const F lowest = V::set(-87.33f);
  const F clamped = V::min(V::set(88.02f), V::max(lowest, x));
  const F n = V::round(V::mul(clamped, V::set(0x1.715476p+0f)));
  F r = V::fma(n, V::set(-0x1.62e4p-1f), clamped);  // ln2 in two parts: n * first part is exact
  r = V::fma(n, V::set(-1.42860677e-06f), r);
  F p = V::set(0x1.6d11fep-10f);
  p = V::fma(p, r, V::set(0x1.120c62p-7f));
  p = V::fma(p, r, V::set(0x1.555518p-5f));
  p = V::fma(p, r, V::set(0x1.5554dcp-3f));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  return V::zero_below(V::scale_by_power(p, n), x, lowest);
}

// 2^x for x <= 0, within 3 ulp; 2^-126 below that, NaN stays NaN. 2^0 is exactly 1. x = n + r with
// |r| <= 1/2; of the polynomials of degree 5 with that value at 0 the one whose largest relative
// error is least.
template <class V>
[[gnu::always_inline]] inline typename V::F exp2(typename V::F x) {
  using F = typename V::F;
  const F clamped = V::max(V::set(-126.0f), x);
  const F n = V::round(clamped);
  const F r = V::sub(clamped, n);
  F p = V::set(0x1.5bba14p-10f);
  p = V::fma(p, r, V::set(0x1.3cea88p-7f));
  p = V::fma(p, r, V::set(0x1.c6b752p-5f));
  p = V::fma(p, r, V::set(0x1.ebf9bcp-3f));
  p = V::fma(p, r, V::set(0x1.62e42ap-1f));
  p = V::fma(p, r, V::set(1.0f));
  return V::scale_by_power(p, n);
}

// One of them, the same bits as a lane of the above.
template <class V>
float exp2_1(float x) {
  return V::first_lane(exp2<V>(V::set(x)));
}

// cap * tanh(x / cap) = cap - 2 cap / (e^(2 x / cap) + 1), within a few ulp of cap.
template <class V>
[[gnu::always_inline]] inline typename V::F soft_cap(typename V::F x, float cap) {
  const typename V::F e = exp<V>(V::mul(x, V::set(2.0f / cap)));
  return V::sub(V::set(cap), V::div(V::set(2.0f * cap), V::add(e, V::set(1.0f))));
}

// x * sigmoid(x)
template <class V>
[[gnu::always_inline]] inline typename V::F silu(typename V::F x) {
  return V::div(x, V::add(V::set(1.0f), exp<V>(V::sub(V::zero(), x))));
}

// x * sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3)
template <class V>
[[gnu::always_inline]] inline typename V::F gelu_tanh(typename V::F x) {
  const typename V::F cubic = V::add(V::set(1.0f), V::mul(V::mul(V::set(0.044715f), x), x));
  const typename V::F a = V::mul(V::mul(V::set(1.5957691216057308f), x), cubic);
  return V::div(x, V::add(V::set(1.0f), exp<V>(V::sub(V::zero(), a))));
}

}  // namespace
}  // namespace quire::cpu
