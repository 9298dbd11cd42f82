// Block formats (q8_0, q4_0, q4_1) times 8-bit activations. Per block of 32 k an exact integer dot
// product, then two or three float operations per 16 rows and token:
//   for q4_1 first   sum += m_w * (d_a * sum(a))   then   sum += dot * (d_w * d_a)
// The constant 8 or 128 that a stored weight is too large by is taken off as a start value of the
// integer sum.
#pragma once

#include <cstring>

#include "kernels/cpu/linear_tile.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct Q8Kernel {
  using V = Simd;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr bool kNibbles = kFormat != Format::kQ8_0;
  static constexpr bool kMinimum = kFormat == Format::kQ4_1;
  static constexpr int kOffset = kMinimum ? 0 : kNibbles ? 8 : 128;
  static constexpr TileShape kShape = V::kInt8Shape;
  static constexpr int kLines = kNibbles ? 4 : 8;  // of a block
  static constexpr std::size_t kFetchesPerUnit = kLines;
  using Dot = typename V::template Dot<kOffset>;
  using Sum = typename Dot::Sum;
  static constexpr std::size_t kTokenBytes = 40;  // of a block
  static_assert(kTokenBytes <= kPackedBlockBytes);

  // A token in its tile takes for each block of 32 k its values, its scale and what the block's
  // offset or minimum needs of it: -kOffset * sum(a) as an integer, or d_a * sum(a) as a float.
  static std::size_t packed_token_bytes(const LinearJob& job) {
    return static_cast<std::size_t>(job.num_blocks) * kTokenBytes;
  }

  // Tokens [token, token + count) as one tile reads them: for each block [count][32] values, then
  // [count] scales, then [count] corrections. So a tile reads one stream, and from fixed distances.
  static void pack_tile(const LinearJob& job, int token, int count, std::byte* out) {
    const auto n = static_cast<std::size_t>(count);
    for (std::size_t t = 0; t < n; ++t) {
      const std::byte* in = job.in + (static_cast<std::size_t>(token) + t) * job.in_stride;
      std::byte* to = out;
      for (std::size_t block = 0; block < static_cast<std::size_t>(job.num_blocks); ++block) {
        float scale;
        std::int32_t sum;
        std::memcpy(to + 32 * t, in + 32 * block, 32);
        std::memcpy(&scale, in + job.in_scales + 4 * block, 4);
        std::memcpy(&sum, in + job.in_sums + 4 * block, 4);
        std::memcpy(to + 32 * n + 4 * t, &scale, 4);
        if constexpr (kMinimum) {
          const float scaled = scale * static_cast<float>(sum);
          std::memcpy(to + 36 * n + 4 * t, &scaled, 4);
        } else {
          const std::int32_t correction = -kOffset * sum;
          std::memcpy(to + 36 * n + 4 * t, &correction, 4);
        }
        to += kTokenBytes * n;
      }
    }
  }

  template <int R, int T>
  class Tile {
   public:
    explicit Tile(const TileInput<R, T>& in) : in_(in) {}

    [[gnu::always_inline]] inline void add_leaf(int begin, int end, F (&sum)[R][T]) {
      const std::byte* a = in_.tokens + static_cast<std::size_t>(begin / 32) * kBlockBytes;
      for (int block = begin / 32; block < end / 32; ++block, a += kBlockBytes) {
        add_block(a, sum);
        in_.next_unit(kUnit);
      }
    }

   private:
    static constexpr PanelUnit kUnit = panel_unit(kFormat);
    static constexpr std::size_t kBlockBytes = T * kTokenBytes;

    static I broadcast4(const std::byte* p) {
      std::int32_t x;
      std::memcpy(&x, p, 4);
      return V::broadcast(x);
    }

    static const float* scales(const std::byte* a) {
      return reinterpret_cast<const float*>(a + 32 * T);
    }
    static const float* scaled_sums(const std::byte* a) { return scales(a) + T; }
    static const std::int32_t* corrections(const std::byte* a) {
      return reinterpret_cast<const std::int32_t*>(a + 36 * T);
    }

    [[gnu::always_inline]] inline void dot_block(const std::byte* a, Sum (&dot)[R][T]) {
      const I low_mask = V::broadcast(std::int32_t{0x0f0f0f0f});
#pragma GCC unroll 8
      for (int line = 0; line < kLines; ++line) {
        I stored[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) stored[r] = V::load_line(in_.value(r) + line * 64);
#pragma GCC unroll 2
        for (int half = 0; half < (kNibbles ? 2 : 1); ++half) {
          I w[R];
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            w[r] = stored[r];
            if (half == 1) w[r] = V::template shift_right<4>(w[r]);
            if (kNibbles) w[r] = V::bits_and(w[r], low_mask);
          }
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            const I x = broadcast4(a + t * 32 + half * 16 + line * 4);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) dot[r][t] = Dot::step(dot[r][t], w[r], x);
          }
        }
        in_.prefetch.step();
      }
    }

    [[gnu::always_inline]] inline void add_block(const std::byte* a, F (&sum)[R][T]) {
      Sum dot[R][T];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) dot[r][t] = Dot::begin(corrections(a) + t);
      }
      dot_block(a, dot);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const F d = V::from_half(in_.header(r));
        if constexpr (kMinimum) {
          const F m = V::from_half(in_.header(r) + 32);
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            sum[r][t] = V::fma(m, V::broadcast(scaled_sums(a)[t]), sum[r][t]);
          }
        }
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const F scale = V::mul(d, V::broadcast(scales(a)[t]));
          const F product = V::to_float(Dot::end(dot[r][t], corrections(a) + t));
          sum[r][t] = V::fma(product, scale, sum[r][t]);
        }
      }
    }

    TileInput<R, T> in_;
  };
};

}  // namespace
}  // namespace quire::cpu
