// q4_0: blocks of 32 as f16 d, 16 bytes of nibbles (low ones are elements 0..15, high ones 16..31);
// value = d * (q - 8). Layout: GGUF specification.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/formats/half.h"

namespace quire::formats {

struct Q4_0 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 18;

  static void decode(const std::byte* block, float* out) {
    const float d = load_half(block);
    for (int i = 0; i < 16; ++i) {
      const int q = static_cast<int>(block[2 + i]);
      out[i] = d * static_cast<float>((q & 15) - 8);
      out[i + 16] = d * static_cast<float>((q >> 4) - 8);
    }
  }

  // The element of the largest magnitude becomes exactly -8: the side with one more step.
  static void encode(const float* x, std::byte* block) {
    float extreme = 0.0f;
    for (int i = 0; i < kBlock; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    const float d = extreme / -8.0f;
    store_half(block, d);
    const auto nibble = [d](float value) {
      if (d == 0.0f) return 8;
      return std::clamp(static_cast<int>(std::nearbyint(value / d)) + 8, 0, 15);
    };
    for (int i = 0; i < 16; ++i) {
      block[2 + i] = static_cast<std::byte>(nibble(x[i]) | (nibble(x[i + 16]) << 4));
    }
  }
};

}  // namespace quire::formats
