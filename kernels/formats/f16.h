// f16: IEEE half precision, one element per block.
#pragma once

#include "kernels/formats/half.h"

namespace quire::formats {

struct F16 {
  static constexpr int kBlock = 1;
  static constexpr int kBytes = 2;
  static void decode(const std::byte* block, float* out) { *out = load_half(block); }
  static void encode(const float* x, std::byte* block) { store_half(block, *x); }
};

}  // namespace quire::formats
