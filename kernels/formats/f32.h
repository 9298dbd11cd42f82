// f32: one element per block.
#pragma once

#include <cstddef>
#include <cstring>

namespace quire::formats {

struct F32 {
  static constexpr int kBlock = 1;
  static constexpr int kBytes = 4;
  static void decode(const std::byte* block, float* out) { std::memcpy(out, block, 4); }
  static void encode(const float* x, std::byte* block) { std::memcpy(block, x, 4); }
};

}  // namespace quire::formats
