// The words of simd_avx512.h over two 256-bit registers. Only for files compiled for AVX2, FMA and
// F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel.h"

namespace quire::cpu {

struct Avx2 {
  struct F {  // 16 floats
    __m256 lo, hi;
  };
  struct I {  // 16 int32, or a line: 16 rows x 4 bytes
    __m256i lo, hi;
  };

  // In 16 registers of half a panel.
  static constexpr TileShape kInt8Shape = {.one = 2, .few = {2, 1}, .many = {2, 2}};
  static constexpr TileShape kFloatShape = {.one = 4, .few = {4, 1}, .many = {1, 6}};

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F broadcast(float x) {
    const __m256 v = _mm256_set1_ps(x);
    return {v, v};
  }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
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
  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)}; }
  static F as_float(I x) { return {_mm256_castsi256_ps(x.lo), _mm256_castsi256_ps(x.hi)}; }
  static F from_half(const std::byte* p) {
    const auto* half = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(half)), _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
  }

  static I broadcast(std::int32_t x) {
    const __m256i v = _mm256_set1_epi32(x);
    return {v, v};
  }
  static I load_line(const std::byte* p) {
    const auto* line = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(line), _mm256_loadu_si256(line + 1)};
  }
  static void store(std::int32_t* p, I x) {
    auto* line = reinterpret_cast<__m256i*>(p);
    _mm256_storeu_si256(line, x.lo);
    _mm256_storeu_si256(line + 1, x.hi);
  }
  static I bits_and(I a, I b) {
    return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
  }
  static I subtract(I a, I b) {
    return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
  }
  static I multiply(I a, I b) {
    return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
  }
  template <int kBits>
  static I shift_right(I x) {
    return {_mm256_srli_epi32(x.lo, kBits), _mm256_srli_epi32(x.hi, kBits)};
  }
  template <int kBits>
  static I shift_left(I x) {
    return {_mm256_slli_epi32(x.lo, kBits), _mm256_slli_epi32(x.hi, kBits)};
  }

  // Nibbles: a pair of products is at most 2 * 15 * 127 and the 8 pairs a lane sees in a block at
  // most 30,480, so the whole block is summed in 16 bits and nothing saturates. Widened at the end.
  template <int kOffset>
  struct Dot {
    using Sum = I;
    static Sum begin(const std::int32_t*) {
      return {_mm256_setzero_si256(), _mm256_setzero_si256()};
    }
    static Sum step(Sum sum, I w, I a) {
      return {_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(w.lo, a.lo)),
              _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(w.hi, a.hi))};
    }
    static I end(Sum sum, const std::int32_t* correction) {
      const __m256i one = _mm256_set1_epi16(1);
      const __m256i c = kOffset == 0 ? _mm256_setzero_si256() : _mm256_set1_epi32(*correction);
      return {_mm256_add_epi32(_mm256_madd_epi16(sum.lo, one), c),
              _mm256_add_epi32(_mm256_madd_epi16(sum.hi, one), c)};
    }
  };

 private:
  // Lanes below n; n may be negative or above 8.
  static __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

// Bytes: |w| * (sign of w) a. A pair of products is at most 2 * 128 * 127 < 2^15, so it does not
// saturate; the offset is taken off the weights themselves and no correction is due.
template <>
struct Avx2::Dot<128> {
  using Sum = I;
  static Sum begin(const std::int32_t*) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Sum step(Sum sum, I w, I a) {
    return {_mm256_add_epi32(sum.lo, pairs(w.lo, a.lo)),
            _mm256_add_epi32(sum.hi, pairs(w.hi, a.hi))};
  }
  static I end(Sum sum, const std::int32_t*) { return sum; }

 private:
  static __m256i pairs(__m256i stored, __m256i a) {
    const __m256i w = _mm256_xor_si256(stored, _mm256_set1_epi8(-128));
    const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    return _mm256_madd_epi16(products, _mm256_set1_epi16(1));
  }
};

}  // namespace quire::cpu
