// q8_0: blocks of 32 as f16 d, 32 x int8; value = d * q. Layout: GGUF specification.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/formats/half.h"

namespace quire::formats {

struct Q8_0 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 34;

  static void decode(const std::byte* block, float* out) {
    const float d = load_half(block);
    for (int i = 0; i < kBlock; ++i) {
      out[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
    }
  }

  static void encode(const float* x, std::byte* block) {
    float amax = 0.0f;
    for (int i = 0; i < kBlock; ++i) amax = std::max(amax, std::fabs(x[i]));
    const float d = amax / 127.0f;
    store_half(block, d);
    for (int i = 0; i < kBlock; ++i) {
      const float q = d > 0.0f ? std::nearbyint(x[i] / d) : 0.0f;
      block[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(q));
    }
  }
};

}  // namespace quire::formats
