// Sixteen float lanes in one 512-bit register: the words in which the ops other than the matrix
// products are written (linear's own words are in simd_avx512.h). lanes_avx2.h says the same words
// over two 256-bit registers; each is one IEEE operation per lane, so both paths agree bit for bit
// except in bfloat16 conversions of subnormals. Only for files compiled for this instruction set.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/formats/half.h"

namespace quire::cpu {

struct Lanes512 {
  using F = __m512;
  // Attention works on tiles of kRows query rows x kColumns vectors, sized to the register file.
  static constexpr int kRows = 6;
  static constexpr int kColumns = 4;

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load(const Bf16* p) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  // Sixteen pairs of bfloat16 as they lie in memory, one pair sixteen times, and what is done with
  // them: sum + a0 * b0 + a1 * b1 in each lane; the other element of each pair made 0.
  using Pairs = __m512bh;  // as F they would be loaded again for every product
  static Pairs load_pairs(const Bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Pairs set_pair(const Bf16* p) {
    std::int32_t bits;
    __builtin_memcpy(&bits, p, 4);
    return (__m512bh)_mm512_set1_epi32(bits);
  }
  static F dot_pairs(F sum, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sum, a, b); }
  static Pairs keep_of_pairs(Pairs pairs, int element) {
    const __m512i mask = _mm512_set1_epi32(element == 0 ? 0xffff : static_cast<int>(0xffff0000u));
    return (__m512bh)_mm512_and_si512((__m512i)pairs, mask);
  }
  // Products of whole numbers: bytes as they lie in memory, four to a lane, times factors of 16
  // bits, four to a std::uint64_t as store_factors() lays them out: their high bytes, their low
  // ones. What is summed is exact in 32 bits whatever the order; so both instruction sets agree.
  struct Sums {
    __v16si high, low;  // as __m512i g++ 12 keeps no more than eight in registers
  };
  struct UnsignedBytes {
    __m512i bytes;
  };
  struct SignedBytes {
    __m512i bytes;
  };
  struct Factors {
    __m512i high, low;
  };
  static Sums begin_sums(std::int32_t start) {
    return {(__v16si)_mm512_setzero_si512(), (__v16si)_mm512_set1_epi32(start)};
  }
  static UnsignedBytes load_bytes(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  static SignedBytes load_bytes(const std::int8_t* p) { return {_mm512_loadu_si512(p)}; }
  // With unsigned bytes the factors are signed, else they are not.
  static Sums dot(Sums sum, UnsignedBytes a, Factors b) {
    return {dot(sum.high, a.bytes, b.high), dot(sum.low, a.bytes, b.low)};
  }
  static Sums dot(Sums sum, SignedBytes a, Factors b) {
    return {dot(sum.high, b.high, a.bytes), dot(sum.low, b.low, a.bytes)};
  }
  static F total(Sums sum) {
    const __m512i high = _mm512_slli_epi32((__m512i)sum.high, 8);
    return _mm512_cvtepi32_ps(_mm512_add_epi32(high, (__m512i)sum.low));
  }
  // Sixteen signed factors, rounded to whole numbers: for unsigned bytes.
  static void store_factors(std::uint64_t* p, F x) {
    const __m512i n = _mm512_cvtps_epi32(x);
    // A low byte is signed too: -128 at least.
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(128)), 8);
    const __m128i h = _mm512_cvtepi32_epi8(high), l = _mm512_cvtepi32_epi8(n);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(h, l));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 2), _mm_unpackhi_epi32(h, l));
  }
  static Factors set_factors(const std::uint64_t* p) {
    std::int32_t four[2];
    __builtin_memcpy(four, p, 8);
    return {_mm512_set1_epi32(four[0]), _mm512_set1_epi32(four[1])};
  }
  // 64 factors in [0, 2^15), rounded to whole numbers: for signed bytes. In an order of their own;
  // the i-th four of them.
  static void store_64_factors(std::uint64_t* p, F a, F b, F c, F d) {
    const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    const __m512i low = _mm512_set1_epi16(0xff);
    _mm512_storeu_si512(p, _mm512_packus_epi16(_mm512_srli_epi16(ab, 8), _mm512_srli_epi16(cd, 8)));
    _mm512_storeu_si512(p + 8,
                        _mm512_packus_epi16(_mm512_and_si512(ab, low), _mm512_and_si512(cd, low)));
  }
  static Factors set_of_64_factors(const std::uint64_t* p, int i) {
    const auto* high = reinterpret_cast<const char*>(p) + i % 4 * 16 + i / 4 * 4;
    std::int32_t four[2];
    __builtin_memcpy(four, high, 4);
    __builtin_memcpy(four + 1, high + 64, 4);
    return {_mm512_set1_epi32(four[0]), _mm512_set1_epi32(four[1])};
  }
  // First n of 16 lanes, 0 <= n <= 16; the others are zero, or left as they are in memory.
  static F load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, F x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static void store(Half* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static void store(Bf16* p, F x) {
    const __m256bh y = _mm512_cvtneps_pbh(x);
    __builtin_memcpy(&p->bits, &y, 32);
  }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is NaN
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static F sqrt(F a) { return _mm512_sqrt_ps(a); }
  static F round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // x * 2^n for a whole n in [-126, 127].
  static F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
  // a where x >= bound, else zero (also for NaN x).
  static F zero_below(F a, F x, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), a);
  }
  static F fill_after(F x, int n, float fill) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(fill), first(n), x);
  }
  static F fill_before(F x, int n, float fill) {
    return _mm512_mask_mov_ps(x, first(n), _mm512_set1_ps(fill));
  }
  static F with_sign_of(F a, F sign) {
    return _mm512_or_ps(_mm512_abs_ps(a), _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
  }
  static std::uint32_t mask_lt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static std::uint32_t mask_ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
  static std::uint32_t mask_eq(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

  // The tree of both reductions: halves of 8, of 4, of 2, of 1.
  static float sum(F x) {
    return sum8(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  }
  static float largest(F x) {
    return largest8(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  }
  static float first_lane(F x) { return _mm512_cvtss_f32(x); }

  // 32 whole numbers in [-127, 127] to bytes; returns their sum.
  static int store_int8(std::int8_t* p, F a, F b) {
    const __m512i qa = _mm512_cvtps_epi32(a), qb = _mm512_cvtps_epi32(b);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(qa));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtsepi32_epi8(qb));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
  }

  // Four vectors, a reduction each, side by side: all lanes of the j-th four have vector j's.
  static constexpr bool kFourBlocks = true;
  static F four_largest(F a, F b, F c, F d) {
    const F ab = max(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const F cd = max(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    const F fours = max(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const F twos = max(fours, _mm512_permute_ps(fours, 0x4e));
    return max(twos, _mm512_permute_ps(twos, 0xb1));
  }
  template <int kFour>
  static F lanes_of(F x) {
    return _mm512_shuffle_f32x4(x, x, 0x55 * kFour);
  }
  static void store_four(float* p, F x) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, x)));
  }
  // 64 numbers in [-128, 127], rounded to whole ones, to bytes; returns the sums of fours, in
  // order.
  static __m512i store_64_int8(std::int8_t* p, F a, F b, F c, F d) {
    const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
    _mm512_storeu_si512(p, bytes);
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
  }
  // Sums of four times 32 bytes, from those of two store_64_int8().
  static void store_four_sums(std::int32_t* p, __m512i low, __m512i high) {
    const __m512i fours = _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88),
                                           _mm512_shuffle_i32x4(low, high, 0xdd));
    const __m512i twos =
        _mm512_add_epi32(fours, _mm512_shuffle_epi32(fours, static_cast<_MM_PERM_ENUM>(0x4e)));
    const __m512i sums =
        _mm512_add_epi32(twos, _mm512_shuffle_epi32(twos, static_cast<_MM_PERM_ENUM>(0xb1)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, sums)));
  }

  // 8 pairs (a, b) turned by 8 angles (cos, sin): (a cos - b sin, b cos + a sin).
  static F rotate_pairs(F x, F cos_sin) {
    const F swapped = _mm512_permute_ps(x, 0xb1);
    return _mm512_fmaddsub_ps(x, _mm512_moveldup_ps(cos_sin),
                              _mm512_mul_ps(swapped, _mm512_movehdup_ps(cos_sin)));
  }

  // Lane l gets what is in lane l ^ kDistance: 1, 2, 4 or 8.
  template <int kDistance>
  static F swap_lanes(F x) {
    if constexpr (kDistance == 1) return _mm512_permute_ps(x, 0xb1);
    if constexpr (kDistance == 2) return _mm512_permute_ps(x, 0x4e);
    if constexpr (kDistance == 4) return _mm512_shuffle_f32x4(x, x, 0xb1);
    if constexpr (kDistance == 8) return _mm512_shuffle_f32x4(x, x, 0x4e);
  }

  static float sum8(__m256 x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float largest8(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }

 private:
  static __v16si dot(__v16si sum, __m512i a, __m512i b) {
    return (__v16si)_mm512_dpbusd_epi32((__m512i)sum, a, b);
  }
  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
};

}  // namespace quire::cpu
