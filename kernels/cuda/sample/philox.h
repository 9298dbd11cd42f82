// Philox4x32-10 on the device: the same words as kernels/sampling.cpp.
#pragma once

#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/sample/sample.h"

namespace quire::cuda::sampling {

// The row's draw: k of [0, 2^24), for a uniform number k * 2^-24.
__device__ inline std::uint32_t philox_draw(const SampleWish& wish) {
  constexpr std::uint32_t kPurposeSample = 0;
  std::uint32_t c0 = wish.position, c1 = wish.sample_index, c2 = kPurposeSample, c3 = 0;
  auto k0 = static_cast<std::uint32_t>(wish.seed);
  auto k1 = static_cast<std::uint32_t>(wish.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * c0;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0 >> 8;
}

}  // namespace quire::cuda::sampling
