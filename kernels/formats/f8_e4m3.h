// f8_e4m3 (fn): sign, 4 bits of exponent (bias 7), 3 of fraction; no infinities, 0x7f is the only
// NaN, 448 the largest number. One element per block; a factor of its row multiplies it (OCP 8-bit
// floating point specification; kernels/weight.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace quire::formats {

struct F8E4M3 {
  static constexpr int kBlock = 1;
  static constexpr int kBytes = 1;

  static void decode(const std::byte* block, float* out) {
    const auto bits = static_cast<std::uint32_t>(*block);
    const std::uint32_t exponent = bits >> 3 & 15u;
    const std::uint32_t fraction = bits & 7u;
    float magnitude = static_cast<float>(fraction) * 0x1p-9f;  // zero and subnormals
    if ((bits & 0x7fu) == 0x7fu) {
      magnitude = std::numeric_limits<float>::quiet_NaN();
    } else if (exponent != 0) {
      magnitude = std::bit_cast<float>((exponent + 120) << 23 | fraction << 20);
    }
    *out = (bits & 0x80u) != 0 ? -magnitude : magnitude;
  }

  // To the nearest, ties to even; what is beyond 448 becomes 448.
  static void encode(const float* x, std::byte* block) {
    const std::uint32_t sign = std::signbit(*x) ? 0x80u : 0u;
    const float magnitude = std::fabs(*x);
    std::uint32_t code = 0x7fu;
    if (magnitude < 0x1p-6f) {
      code = static_cast<std::uint32_t>(std::nearbyint(magnitude * 0x1p9f));
    } else if (!std::isnan(magnitude)) {
      const auto bits = std::bit_cast<std::uint32_t>(std::min(magnitude, 448.0f));
      code = ((bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20) - (120u << 3);
    }
    *block = static_cast<std::byte>(sign | code);
  }
};

}  // namespace quire::formats
