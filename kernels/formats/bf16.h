// bf16: the upper half of a float, one element per block.
#pragma once

#include "kernels/formats/half.h"

namespace quire::formats {

struct BFloat16 {
  static constexpr int kBlock = 1;
  static constexpr int kBytes = 2;
  static void decode(const std::byte* block, float* out) {
    Bf16 x;
    std::memcpy(&x.bits, block, 2);
    *out = to_float(x);
  }
  static void encode(const float* x, std::byte* block) {
    const Bf16 y = to_bf16(*x);
    std::memcpy(block, &y.bits, 2);
  }
};

}  // namespace quire::formats
