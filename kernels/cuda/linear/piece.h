// A piece: 8 columns of one row of a packed matrix, as loaded and as numbers. Device code.
//
// `floats` is exactly what kernels/formats decodes (without the factor of a row). `words` are four
// pairs for the tensor cores: the weights themselves (bf16, f16, f8_e4m3 and i8), or the block's
// numbers + 128 as bf16, exact. Then a block's part of a sum is, for each of its `kGroups` of
// columns, d * (sum of word * input - offset * sum of input) + m * (sum of input).
#pragma once

#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/memory.h"
#include "kernels/cuda/linear/job.h"
#include "kernels/cuda/linear/layout.h"

namespace quire::cuda {

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Eight fp32.
struct PieceF32 {
  uint4 low, high;
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    QUIRE_UNROLL
    for (int k = 0; k < 4; ++k) {
      w[k] = __uint_as_float(word_of(low, k));
      w[k + 4] = __uint_as_float(word_of(high, k));
    }
  }
};

// Eight bf16 or f16.
template <typename T>
struct PieceHalf {
  uint4 pairs;
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float2 pair = unpack2<T>(word_of(pairs, j));
      w[2 * j] = pair.x;
      w[2 * j + 1] = pair.y;
    }
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) a[j] = word_of(pairs, j);
  }
};

// Up to 6 bits: 0x4300 + q is the bf16 128 + q. By way of these pairs the numbers become floats
// too: converting integers is slow. scale * offset is exact, so one rounding remains.
__device__ __forceinline__ void nibble_words(uint32_t nibbles, uint32_t (&a)[4]) {
  QUIRE_UNROLL
  for (int j = 0; j < 4; ++j) a[j] = ((nibbles >> (4 * j)) & 0x000f000fu) | 0x43004300u;
}
__device__ __forceinline__ void scaled(const uint32_t (&pairs)[4], float scale, float add,
                                       float (&w)[kPiece]) {
  QUIRE_UNROLL
  for (int k = 0; k < kPiece; ++k) {
    const float number = k % 2 == 0 ? bf16_low(pairs[k / 2]) : bf16_high(pairs[k / 2]);
    w[k] = fmaf(scale, number, add);
  }
}

// q4_0, q4_1, q4_z: eight nibbles.
template <Format kFormat>
struct PieceQ4 {
  static constexpr int kGroups = 1;
  static constexpr bool kNeedsInputSum = true;
  static constexpr bool kHasMin = kFormat == Format::kQ4_1;
  uint32_t nibbles;
  uint32_t dm;  // f16 d, and m or z in the upper half
  __device__ __forceinline__ float d(int = 0) const { return unpack2<f16>(dm).x; }
  __device__ __forceinline__ float m() const { return unpack2<f16>(dm).y; }
  __device__ __forceinline__ float offset() const {
    if constexpr (kFormat == Format::kQ4_Z) return 128.0f + unpack2<f16>(dm).y;
    return kFormat == Format::kQ4_0 ? 136.0f : 128.0f;
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const { nibble_words(nibbles, a); }
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    uint32_t pairs[4];
    words(pairs);
    if constexpr (kHasMin) {
      QUIRE_UNROLL
      for (int j = 0; j < 4; ++j) {
        w[2 * j] = fmaf(d(), bf16_low(pairs[j]) - 128.0f, m());
        w[2 * j + 1] = fmaf(d(), bf16_high(pairs[j]) - 128.0f, m());
      }
    } else {
      scaled(pairs, d(), -offset() * d(), w);
    }
  }
};

// q4_K, q5_K: nibbles, fifth bits, one scale and one minimum of the step.
template <Format kFormat>
struct PieceQ45K {
  static constexpr int kGroups = 1;
  static constexpr bool kNeedsInputSum = true;
  static constexpr bool kHasMin = true;
  uint32_t nibbles;
  uint32_t fifths;  // 8 bits
  uint32_t scales;  // the scale, the minimum
  uint32_t dm;      // f16 d, dmin
  __device__ __forceinline__ float d(int = 0) const {
    return unpack2<f16>(dm).x * static_cast<float>(scales & 255u);
  }
  __device__ __forceinline__ float m() const {
    return -unpack2<f16>(dm).y * static_cast<float>(scales >> 8 & 255u);
  }
  __device__ __forceinline__ float offset() const { return 128.0f; }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    nibble_words(nibbles, a);
    if constexpr (kFormat == Format::kQ5_K) {
      const uint32_t bits = fifths << 4 | fifths << 16;  // bit j is at 4 + j and 16 + j
      QUIRE_UNROLL
      for (int j = 0; j < 4; ++j) a[j] |= (bits >> j) & 0x00100010u;
    }
  }
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    uint32_t pairs[4];
    words(pairs);
    const float scale = d();
    const float minimum = m();
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      w[2 * j] = fmaf(scale, bf16_low(pairs[j]) - 128.0f, minimum);
      w[2 * j + 1] = fmaf(scale, bf16_high(pairs[j]) - 128.0f, minimum);
    }
  }
};

// q6_K: nibbles, pairs of bits, the scales of the step's two halves; the piece is in one of them.
struct PieceQ6K {
  static constexpr int kGroups = 2;
  static constexpr bool kNeedsInputSum = true;
  static constexpr bool kHasMin = false;
  uint32_t nibbles;
  uint32_t pairs;   // 16 bits
  uint32_t scales;  // two signed bytes
  uint32_t dm;      // f16 d
  int group;
  __device__ __forceinline__ float d(int half) const {
    return unpack2<f16>(dm).x * static_cast<float>(int8_of(scales, half));
  }
  __device__ __forceinline__ float m() const { return 0.0f; }
  __device__ __forceinline__ float offset() const { return 160.0f; }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    nibble_words(nibbles, a);
    const uint32_t bits = (pairs & 0xffu) << 4 | (pairs & 0xff00u) << 12;
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) a[j] |= (bits >> (2 * j)) & 0x00300030u;
  }
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    uint32_t numbers[4];
    words(numbers);
    const float scale = d(group);
    scaled(numbers, scale, -offset() * scale, w);
  }
};

// q8_0, i8, f8_e4m3: eight bytes.
template <Format kFormat>
struct PieceBytes {
  static constexpr int kGroups = 1;
  static constexpr bool kNeedsInputSum = false;
  static constexpr bool kHasMin = false;
  uint32_t low, high;
  uint32_t dm;  // f16 d of q8_0
  __device__ __forceinline__ float d(int = 0) const { return unpack2<f16>(dm).x; }
  __device__ __forceinline__ float m() const { return 0.0f; }
  __device__ __forceinline__ float offset() const { return 0.0f; }
  __device__ __forceinline__ float number(int k) const {
    const uint32_t word = k < 4 ? low : high;
    if constexpr (kFormat == Format::kF8E4M3) {
      // Exponent and fraction where a float has them, and the biases' difference.
      const auto top = static_cast<int32_t>(word << (24 - 8 * (k % 4)));
      return __uint_as_float(static_cast<uint32_t>(top >> 4) & 0x87f00000u) * 0x1p120f;
    } else {
      // Number + 128: under the exponent of 2^23 a byte is a float's last bits.
      const uint32_t selector = 0x7440u | static_cast<uint32_t>(k % 4);  // 0x4b, 0, 0, the byte
      return __uint_as_float(__byte_perm(word, 0x4b000000u, selector)) - 8388736.0f;
    }
  }
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    QUIRE_UNROLL
    for (int k = 0; k < kPiece; ++k) w[k] = number(k);
    if constexpr (kFormat == Format::kQ8_0) {
      const float scale = d();
      QUIRE_UNROLL
      for (int k = 0; k < kPiece; ++k) w[k] = scale * w[k];
    }
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      // Upper halves: at most 8 significant bits leave the lower ones zero.
      a[j] =
          __byte_perm(__float_as_uint(number(2 * j)), __float_as_uint(number(2 * j + 1)), 0x7632u);
    }
  }
};

template <Format kFormat>
struct PieceOf {
  using type = PieceBytes<kFormat>;
};
template <>
struct PieceOf<Format::kF32> {
  using type = PieceF32;
};
template <>
struct PieceOf<Format::kF16> {
  using type = PieceHalf<f16>;
};
template <>
struct PieceOf<Format::kBf16> {
  using type = PieceHalf<bf16>;
};
template <>
struct PieceOf<Format::kQ4_0> {
  using type = PieceQ4<Format::kQ4_0>;
};
template <>
struct PieceOf<Format::kQ4_1> {
  using type = PieceQ4<Format::kQ4_1>;
};
template <>
struct PieceOf<Format::kQ4_Z> {
  using type = PieceQ4<Format::kQ4_Z>;
};
template <>
struct PieceOf<Format::kQ4_K> {
  using type = PieceQ45K<Format::kQ4_K>;
};
template <>
struct PieceOf<Format::kQ5_K> {
  using type = PieceQ45K<Format::kQ5_K>;
};
template <>
struct PieceOf<Format::kQ6_K> {
  using type = PieceQ6K;
};
template <Format kFormat>
using Piece = typename PieceOf<kFormat>::type;

// The element type of tensor-core operands: f16 weights are multiplied as they are.
template <Format kFormat>
struct OperandOf {
  using type = bf16;
};
template <>
struct OperandOf<Format::kF16> {
  using type = f16;
};
template <Format kFormat>
using Operand = typename OperandOf<kFormat>::type;

// The bf16 pair as a pair of T. An f16 input beyond its range becomes the largest f16; NaN stays.
template <typename T>
__device__ __forceinline__ uint32_t pair_as(uint32_t pair) {
  if constexpr (std::is_same_v<T, bf16>) {
    return pair;
  } else {
    constexpr float kLargest = 65504.0f;
    float x[2] = {bf16_low(pair), bf16_high(pair)};
    QUIRE_UNROLL
    for (int i = 0; i < 2; ++i) {
      x[i] = x[i] > kLargest ? kLargest : x[i] < -kLargest ? -kLargest : x[i];
    }
    return pack2<f16>(x[0], x[1]);
  }
}
template <typename T>
__device__ __forceinline__ uint4 pairs_as(uint4 v) {
  return make_uint4(pair_as<T>(v.x), pair_as<T>(v.y), pair_as<T>(v.z), pair_as<T>(v.w));
}

}  // namespace quire::cuda
