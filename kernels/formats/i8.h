// i8: a signed byte, one element per block; a factor of its row multiplies it (kernels/weight.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace quire::formats {

struct I8 {
  static constexpr int kBlock = 1;
  static constexpr int kBytes = 1;
  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(static_cast<std::int8_t>(*block));
  }
  static void encode(const float* x, std::byte* block) {
    const float rounded = std::clamp(std::nearbyint(*x), -128.0f, 127.0f);
    *block = static_cast<std::byte>(static_cast<std::int8_t>(rounded));
  }
};

}  // namespace quire::formats
