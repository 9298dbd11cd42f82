// q4_z: blocks of 32 as f16 d, f16 z (a whole number, 0 to 16), 16 bytes of nibbles (low ones are
// elements 0..15, high ones 16..31); value = d * (q - z). Our own layout: what AWQ and GPTQ
// checkpoints (scale and zero point of a group of columns) become when they are loaded.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/formats/half.h"

namespace quire::formats {

struct Q4_Z {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 20;

  static void decode(const std::byte* block, float* out) {
    const float d = load_half(block);
    const float z = load_half(block + 2);
    for (int i = 0; i < 16; ++i) {
      const int q = static_cast<int>(block[4 + i]);
      out[i] = d * (static_cast<float>(q & 15) - z);
      out[i + 16] = d * (static_cast<float>(q >> 4) - z);
    }
  }

  // Zero is among the numbers, so it stays exact.
  static void encode(const float* x, std::byte* block) {
    const float lowest = std::min(0.0f, *std::min_element(x, x + kBlock));
    const float highest = std::max(0.0f, *std::max_element(x, x + kBlock));
    const float d = (highest - lowest) / 15.0f;
    const float z = d == 0.0f ? 0.0f : std::nearbyint(-lowest / d);
    store_half(block, d);
    store_half(block + 2, z);
    const auto nibble = [d, z](float value) {
      if (d == 0.0f) return 0;
      return std::clamp(static_cast<int>(std::nearbyint(value / d + z)), 0, 15);
    };
    for (int i = 0; i < 16; ++i) {
      block[4 + i] = static_cast<std::byte>(nibble(x[i]) | (nibble(x[i + 16]) << 4));
    }
  }
};

}  // namespace quire::formats
