// The scales of K and V in 8 bits: one for each token and head.
//
// fp8 (e4m3): a power of two 2^e kept as the byte e + 127. The smallest with which the head's
// largest magnitude is at most 448 * 2^e; so a stored value times its scale is exact in bf16, and
// dequantizing rounds nothing.
//
// int8: an fp32, a 127th of the head's largest magnitude. A stored value is a whole number in
// [-127, 127] times it. Of K the Walsh-Hadamard transform H is stored, in runs of kv_mix_width()
// elements: in many models a few dimensions of K are far larger than the others, which would be
// left with few steps. q . k = H q . H k / width, so nothing is transformed back.
#pragma once

#include <cstdint>

namespace quire {

inline constexpr int kKvExponentBias = 127;
inline constexpr int kMinKvExponent = -100;  // keeps all products normal numbers
inline constexpr int kMaxKvExponent = 119;

// `bits`: of the largest magnitude as an fp32, m * 2^x with m in [0.5, 1); 448 is 0.875 * 2^9.
constexpr int kv_exponent(std::uint32_t bits) {
  const int x = static_cast<int>(bits >> 23) - 126;
  const int exponent = (bits & 0x7fffffu) <= 0x600000u ? x - 9 : x - 8;
  return exponent < kMinKvExponent   ? kMinKvExponent
         : exponent > kMaxKvExponent ? kMaxKvExponent
                                     : exponent;
}

// The largest power of two that divides D. Always inlined, as what follows: also files that are
// compiled for one instruction set call it.
[[gnu::always_inline]] constexpr int kv_mix_width(int head_dim) {
  return head_dim & -head_dim;
}

struct Int8Scale {
  float scale;
  float inverse;  // what values are multiplied by before they are rounded to the nearest, ties to
                  // even
};
[[gnu::always_inline]] constexpr Int8Scale kv_int8_scale(float largest) {
  if (largest < 0x1p-100f) return {0.0f, 0.0f};  // a head of zeros
  return {largest / 127.0f, 127.0f / largest};
}

// Bits of the fp32 2^exponent, within [-126, 127].
[[gnu::always_inline]] constexpr std::uint32_t power_of_two_bits(int exponent) {
  return static_cast<std::uint32_t>(exponent + 127) << 23;
}

}  // namespace quire
