// What the kernels of block formats share (linear_q8.h, linear_pairs.h): the numbers of a format,
// how they are taken from memory, how tokens are packed, and the float operations after a block's
// integer sum, which have to be the same in all of them: an element has the same bits whichever
// kernel computes it.
#pragma once

#include <cstring>

#include "kernels/cpu/linear_tile.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct Blocks {
  using V = Simd;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr bool kNibbles = is_nibbles(kFormat);
  static constexpr bool kMinimum = kFormat == Format::kQ4_1;
  static constexpr int kOffset = kMinimum ? 0 : kNibbles ? 8 : 128;
  static constexpr int kLines = kNibbles ? 4 : 8;
  static constexpr PanelUnit kUnit = panel_unit(kFormat);

  static I broadcast4(const std::byte* p) {
    std::int32_t x;
    std::memcpy(&x, p, 4);
    return V::broadcast(x);
  }

  // Of a line of nibbles.
  static I low(I stored) { return V::bits_and(stored, V::broadcast(std::int32_t{0x0f0f0f0f})); }
  static I high(I stored) { return low(V::template shift_right<4>(stored)); }

  static F scale(const std::byte* header) { return V::from_half(header); }
  static F minimum(const std::byte* header) { return V::from_half(header + 32); }
  // First the minimum, where there is one, then the product.
  static F add_minimum(F sum, F m, float scaled_sum) {
    return V::fma(m, V::broadcast(scaled_sum), sum);
  }
  static F add_product(F sum, I dot, F d, float token_scale) {
    return V::fma(V::to_float(dot), V::mul(d, V::broadcast(token_scale)), sum);
  }

  // A block of a token, and what is packed of it for a minimum.
  struct TokenBlock {
    const std::byte* values;
    float scale;
    std::int32_t sum;

    float scaled_sum() const { return scale * static_cast<float>(sum); }
  };

  // Tokens [token, token + count) as one tile reads them: for each block [count][32] values, then
  // arrays of [count] numbers of 4 bytes, so that a token has kTokenBytes. A tile reads one stream,
  // and from fixed distances. For each block of each token put(block, values, number), which writes
  // the values and calls number(i, x) for each array.
  template <std::size_t kTokenBytes, class Put>
  static void pack_tile(const LinearJob& job, int token, int count, std::byte* out, Put put) {
    const auto n = static_cast<std::size_t>(count);
    for (std::size_t t = 0; t < n; ++t) {
      const std::byte* in = job.in + (static_cast<std::size_t>(token) + t) * job.in_stride;
      std::byte* to = out;
      for (std::size_t b = 0; b < static_cast<std::size_t>(job.num_blocks); ++b) {
        TokenBlock block = {.values = in + 32 * b, .scale = 0, .sum = 0};
        std::memcpy(&block.scale, in + job.in_scales + 4 * b, 4);
        std::memcpy(&block.sum, in + job.in_sums + 4 * b, 4);
        put(block, to + 32 * t, [to, n, t](std::size_t i, auto x) {
          static_assert(sizeof(x) == 4);
          std::memcpy(to + (32 + 4 * i) * n + 4 * t, &x, 4);
        });
        to += kTokenBytes * n;
      }
    }
  }
};

}  // namespace
}  // namespace quire::cpu
