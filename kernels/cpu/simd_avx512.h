// Sixteen lanes in one 512-bit register: the vocabulary in which the kernels of linear_*.h are
// written. simd_avx2.h offers the same words over two 256-bit registers, but for those of
// linear_pairs.h. Every float operation is one IEEE operation per lane on both, so results agree
// bit for bit. Only for files compiled for this instruction set.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel.h"

namespace quire::cpu {

struct Avx512 {
  using F = __m512;   // 16 floats
  using I = __m512i;  // 16 int32, or a line: 16 rows x 4 bytes

  // In 32 registers: int32 and float sums side by side, or float sums only.
  static constexpr TileShape kInt8Shape = {.one = 8, .few = {4, 3}, .many = {2, 6}};
  static constexpr TileShape kFloatShape = {.one = 8, .few = {4, 6}, .many = {4, 6}};

  static F zero() { return _mm512_setzero_ps(); }
  static F broadcast(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, F x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static F as_float(I x) { return _mm512_castsi512_ps(x); }
  static F from_half(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static I broadcast(std::int32_t x) { return _mm512_set1_epi32(x); }
  static I load_line(const std::byte* p) { return _mm512_loadu_si512(p); }
  static void store(std::int32_t* p, I x) { _mm512_storeu_si512(p, x); }
  static I bits_and(I a, I b) { return _mm512_and_si512(a, b); }
  static I subtract(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I add_bytes(I a, I b) { return _mm512_add_epi8(a, b); }
  static I load_words(const std::byte* p) {  // 16 int16
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // Four products of unsigned by signed bytes, in each lane.
  static I dot(I sum, I a, I b) { return _mm512_dpbusd_epi32(sum, a, b); }
  static I multiply(I a, I b) { return _mm512_mullo_epi32(a, b); }
  template <int kBits>
  static I shift_right(I x) {
    return _mm512_srli_epi32(x, kBits);
  }
  template <int kBits>
  static I shift_left(I x) {
    return _mm512_slli_epi32(x, kBits);
  }

  // Over a block of 32 k: the exact int32 sum of (stored weight - kOffset) * activation, where
  // `correction` is -kOffset * sum(activations).
  template <int kOffset>
  struct Dot {
    using Sum = __m512i;
    static Sum begin(const std::int32_t* correction) {
      return kOffset == 0 ? _mm512_setzero_si512() : _mm512_set1_epi32(*correction);
    }
    static Sum step(Sum sum, I w, I a) { return _mm512_dpbusd_epi32(sum, w, a); }
    static I end(Sum sum, const std::int32_t*) { return sum; }
  };

  // 32 activations y as linear_pairs.h stores them: of the first half v = y - 15, of the second
  // u = y + 113, in the first lines of both. Returns the sum of all u v.
  static std::int32_t pair_up(const std::byte* y, std::byte* out) {
    const __m128i paired = _mm_setr_epi32(-1, -1, -1, 0);
    static_assert(kPairLines == 3);
    const __m128i v = _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(y)),
                                   _mm_and_si128(paired, _mm_set1_epi8(kPairOtherOffset)));
    const __m128i u = _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(y + 16)),
                                   _mm_and_si128(paired, _mm_set1_epi8(kPairOffset)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), u);
    __m128i sum = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_and_si128(u, paired), v);
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
  }

 private:
  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace quire::cpu
