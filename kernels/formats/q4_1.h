// q4_1: blocks of 32 as f16 d, f16 m, 16 bytes of nibbles (low ones are elements 0..15, high ones
// 16..31); value = d * q + m. Layout: GGUF specification.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/formats/half.h"

namespace quire::formats {

struct Q4_1 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 20;

  static void decode(const std::byte* block, float* out) {
    const float d = load_half(block);
    const float m = load_half(block + 2);
    for (int i = 0; i < 16; ++i) {
      const int q = static_cast<int>(block[4 + i]);
      out[i] = d * static_cast<float>(q & 15) + m;
      out[i + 16] = d * static_cast<float>(q >> 4) + m;
    }
  }

  static void encode(const float* x, std::byte* block) {
    const auto [lowest, highest] = std::minmax_element(x, x + kBlock);
    const float m = *lowest;
    const float d = (*highest - m) / 15.0f;
    store_half(block, d);
    store_half(block + 2, m);
    const auto nibble = [d, m](float value) {
      if (d == 0.0f) return 0;
      return std::clamp(static_cast<int>(std::nearbyint((value - m) / d)), 0, 15);
    };
    for (int i = 0; i < 16; ++i) {
      block[4 + i] = static_cast<std::byte>(nibble(x[i]) | (nibble(x[i + 16]) << 4));
    }
  }
};

}  // namespace quire::formats
