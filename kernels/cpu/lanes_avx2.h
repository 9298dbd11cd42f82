// The words of lanes_avx512.h over two 256-bit registers. Only for files compiled for AVX2, FMA and
// F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/formats/half.h"

namespace quire::cpu {

struct Lanes256 {
  struct F {
    __m256 lo, hi;
  };
  static constexpr int kRows = 6;
  static constexpr int kColumns = 1;
  static constexpr bool kFourBlocks = false;  // see lanes_avx512.h

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F load(const Half* p) {
    return {_mm256_cvtph_ps(load8(p)), _mm256_cvtph_ps(load8(p + 8))};
  }
  static F load(const Bf16* p) { return {widen(load8(p)), widen(load8(p + 8))}; }
  using Pairs = F;
  static Pairs load_pairs(const Bf16* p) {
    const auto* floats = reinterpret_cast<const float*>(p);
    return {_mm256_loadu_ps(floats), _mm256_loadu_ps(floats + 8)};
  }
  static Pairs set_pair(const Bf16* p) {
    float bits;
    __builtin_memcpy(&bits, p, 4);
    return set(bits);
  }
  static F dot_pairs(F sum, Pairs a, Pairs b) {
    return {dot8(sum.lo, a.lo, b.lo), dot8(sum.hi, a.hi, b.hi)};
  }
  static Pairs keep_of_pairs(Pairs pairs, int element) {
    const __m256i mask = _mm256_set1_epi32(element == 0 ? 0xffff : static_cast<int>(0xffff0000u));
    return {_mm256_and_ps(pairs.lo, _mm256_castsi256_ps(mask)),
            _mm256_and_ps(pairs.hi, _mm256_castsi256_ps(mask))};
  }
  // Bytes as pairs of 16 bits: the first and the third of four, the second and the last. Factors in
  // the same order.
  struct Sums {
    __m256i lo, hi;
  };
  struct Bytes {
    __m256i even_lo, even_hi, odd_lo, odd_hi;
  };
  struct Factors {
    __m256i even, odd;
  };
  static Sums begin_sums(std::int32_t start) {
    return {_mm256_set1_epi32(start), _mm256_set1_epi32(start)};
  }
  static Bytes load_bytes(const std::uint8_t* p) {
    const __m256i lo = load32(p), hi = load32(p + 32), even = _mm256_set1_epi16(0xff);
    return {_mm256_and_si256(lo, even), _mm256_and_si256(hi, even), _mm256_srli_epi16(lo, 8),
            _mm256_srli_epi16(hi, 8)};
  }
  static Bytes load_bytes(const std::int8_t* p) {
    const __m256i lo = load32(p), hi = load32(p + 32);
    return {_mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8),
            _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8), _mm256_srai_epi16(lo, 8),
            _mm256_srai_epi16(hi, 8)};
  }
  static Factors set_factors(const std::uint64_t* p) {
    std::int32_t two[2];
    __builtin_memcpy(two, p, 8);
    return {_mm256_set1_epi32(two[0]), _mm256_set1_epi32(two[1])};
  }
  static Sums dot(Sums sum, Bytes a, Factors b) {
    return {add_products(sum.lo, a.even_lo, a.odd_lo, b),
            add_products(sum.hi, a.even_hi, a.odd_hi, b)};
  }
  static F total(Sums sum) { return {_mm256_cvtepi32_ps(sum.lo), _mm256_cvtepi32_ps(sum.hi)}; }
  static void store_factors(std::uint64_t* p, F x) {
    const __m256i lo = _mm256_cvtps_epi32(x.lo), hi = _mm256_cvtps_epi32(x.hi);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    const __m256i swapped = _mm256_shufflelo_epi16(_mm256_shufflehi_epi16(words, 0xd8), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), swapped);
  }
  static void store_64_factors(std::uint64_t* p, F a, F b, F c, F d) {
    store_factors(p, a);
    store_factors(p + 4, b);
    store_factors(p + 8, c);
    store_factors(p + 12, d);
  }
  static Factors set_of_64_factors(const std::uint64_t* p, int i) { return set_factors(p + i); }
  static F load(const float* p, int n) {
    return {_mm256_maskload_ps(p, first(n)), _mm256_maskload_ps(p + 8, first(n - 8))};
  }
  static void store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static void store(float* p, F x, int n) {
    _mm256_maskstore_ps(p, first(n), x.lo);
    _mm256_maskstore_ps(p + 8, first(n - 8), x.hi);
  }
  static void store(Half* p, F x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    store8(p, _mm256_cvtps_ph(x.lo, kNearest));
    store8(p + 8, _mm256_cvtps_ph(x.hi, kNearest));
  }
  static void store(Bf16* p, F x) {
    // Each value is in the low half of its lane; packing works within 128-bit halves.
    const __m256i packed = _mm256_packus_epi32(narrow(x.lo), narrow(x.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F abs(F a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
  }
  static F sqrt(F a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
  static F round(F a) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
  }
  static F scale_by_power(F x, F n) {
    return {_mm256_mul_ps(x.lo, power(n.lo)), _mm256_mul_ps(x.hi, power(n.hi))};
  }
  static F zero_below(F a, F x, F bound) {
    return {_mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, bound.lo, _CMP_NLT_UQ)),
            _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, bound.hi, _CMP_NLT_UQ))};
  }
  static F fill_after(F x, int n, float fill) {
    const __m256 f = _mm256_set1_ps(fill);
    return {_mm256_blendv_ps(f, x.lo, _mm256_castsi256_ps(first(n))),
            _mm256_blendv_ps(f, x.hi, _mm256_castsi256_ps(first(n - 8)))};
  }
  static F fill_before(F x, int n, float fill) {
    const __m256 f = _mm256_set1_ps(fill);
    return {_mm256_blendv_ps(x.lo, f, _mm256_castsi256_ps(first(n))),
            _mm256_blendv_ps(x.hi, f, _mm256_castsi256_ps(first(n - 8)))};
  }
  static std::uint32_t mask_ge(F a, F b) {
    return bits(_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ));
  }
  static std::uint32_t mask_eq(F a, F b) {
    return bits(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
  }

  static float sum(F x) {
    const __m256 eight = _mm256_add_ps(x.lo, x.hi);
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float largest(F x) {
    const __m256 eight = _mm256_max_ps(x.lo, x.hi);
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  static float first_lane(F x) { return _mm256_cvtss_f32(x.lo); }

  static int store_int8(std::int8_t* p, F a, F b) {
    return store16_int8(p, a) + store16_int8(p + 16, b);
  }

  template <int kDistance>
  static F swap_lanes(F x) {
    if constexpr (kDistance == 1)
      return {_mm256_permute_ps(x.lo, 0xb1), _mm256_permute_ps(x.hi, 0xb1)};
    if constexpr (kDistance == 2)
      return {_mm256_permute_ps(x.lo, 0x4e), _mm256_permute_ps(x.hi, 0x4e)};
    if constexpr (kDistance == 4) {
      return {_mm256_permute2f128_ps(x.lo, x.lo, 1), _mm256_permute2f128_ps(x.hi, x.hi, 1)};
    }
    if constexpr (kDistance == 8) return {x.hi, x.lo};
  }

  static F rotate_pairs(F x, F cos_sin) {
    return {rotate8(x.lo, cos_sin.lo), rotate8(x.hi, cos_sin.hi)};
  }

 private:
  static int store16_int8(std::int8_t* p, F x) {
    const __m256i lo = _mm256_cvtps_epi32(x.lo), hi = _mm256_cvtps_epi32(x.hi);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    const __m256i eight = _mm256_add_epi32(lo, hi);
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1));
    return _mm_cvtsi128_si32(y);
  }
  static __m256i load32(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static __m256i add_products(__m256i sum, __m256i even, __m256i odd, Factors b) {
    return _mm256_add_epi32(
        sum, _mm256_add_epi32(_mm256_madd_epi16(even, b.even), _mm256_madd_epi16(odd, b.odd)));
  }
  static __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <class T>
  static __m128i load8(const T* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  template <class T>
  static void store8(T* p, __m128i x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x);
  }
  static __m256 widen(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static __m256i narrow(__m256 x) {  // to bfloat16 bits, nearest even; NaN stays quiet
    const __m256i b = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(b, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(0x40));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
  }
  // The first elements of all pairs as floats, and the second ones.
  static __m256 firsts(__m256 pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
  }
  static __m256 seconds(__m256 pairs) {
    return _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff << 16)));
  }
  static __m256 dot8(__m256 sum, __m256 a, __m256 b) {
    return _mm256_fmadd_ps(seconds(a), seconds(b), _mm256_fmadd_ps(firsts(a), firsts(b), sum));
  }
  static __m256 power(__m256 n) {  // 2^n
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  static std::uint32_t bits(__m256 lo, __m256 hi) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(lo)) |
           (static_cast<std::uint32_t>(_mm256_movemask_ps(hi)) << 8);
  }
  static __m256 rotate8(__m256 x, __m256 cos_sin) {
    const __m256 swapped = _mm256_permute_ps(x, 0xb1);
    return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(cos_sin),
                              _mm256_mul_ps(swapped, _mm256_movehdup_ps(cos_sin)));
  }
};

}  // namespace quire::cpu
