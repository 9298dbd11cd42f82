// Block formats (q8_0, q4_0, q4_1) times 8-bit activations. Per block of 32 k an exact integer dot
// product, then two or three float operations per 16 rows and token:
//   sum += dot * (d_w * d_a)              and for q4_1   sum += m_w * (d_a * sum(a))
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
  using Dot = typename V::template Dot<kOffset>;
  using Sum = typename Dot::Sum;

  template <int R, int T>
  class Tile {
   public:
    Tile(const LinearJob& job, const TileInput<R, T>& in)
        : in_(in), scales_(job.in_scales), sums_(job.in_sums), num_blocks_(job.num_blocks) {}

    [[gnu::always_inline]] inline void add_leaf(int begin, int end, F (&sum)[R][T]) {
      for (int block = begin / 32; block < end / 32; ++block) {
        if (block < window_ || block >= window_ + kWindow) enter_window(block);
        add_block(block, sum);
        in_.next_unit(kUnit);
      }
    }

   private:
    static constexpr PanelUnit kUnit = panel_unit(kFormat);
    static constexpr int kWindow = 64;  // blocks

    static I broadcast4(const std::byte* p) {
      std::int32_t x;
      std::memcpy(&x, p, 4);
      return V::broadcast(x);
    }

    const float* scales(int t) const {
      return reinterpret_cast<const float*>(in_.token(t) + scales_);
    }

    // What a block's offset or minimum needs of the activations, for the next kWindow blocks. Rows
    // of scales and sums are padded to 64 bytes, so whole vectors may be read.
    void enter_window(int block) {
      window_ = block / 16 * 16;
      for (int t = 0; t < T; ++t) {
        const auto* sums = reinterpret_cast<const std::int32_t*>(in_.token(t) + sums_);
        for (int i = 0; i < kWindow && window_ + i < num_blocks_; i += 16) {
          const I s = V::load_line(reinterpret_cast<const std::byte*>(sums + window_ + i));
          if constexpr (kMinimum) {
            V::store(scaled_[t] + i, V::mul(V::load(scales(t) + window_ + i), V::to_float(s)));
          } else {
            V::store(correction_[t] + i, V::multiply(s, V::broadcast(std::int32_t{-kOffset})));
          }
        }
      }
    }

    [[gnu::always_inline]] inline void dot_block(int block, Sum (&dot)[R][T]) const {
      const std::size_t k = static_cast<std::size_t>(block) * 32;
      const I low_mask = V::broadcast(std::int32_t{0x0f0f0f0f});
#pragma GCC unroll 8
      for (int line = 0; line < (kNibbles ? 4 : 8); ++line) {
        I stored[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) stored[r] = V::load_line(in_.value(r) + line * 64);
#pragma GCC unroll 2
        for (int half = 0; half < (kNibbles ? 2 : 1); ++half) {
          I w[R];
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            w[r] = stored[r];
            if (half == 1) w[r] = V::template shift_right<4>(w[r]);
            if (kNibbles) w[r] = V::bits_and(w[r], low_mask);
          }
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            const I a = broadcast4(in_.token(t) + k + half * 16 + line * 4);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) dot[r][t] = Dot::step(dot[r][t], w[r], a);
          }
        }
      }
    }

    [[gnu::always_inline]] inline void add_block(int block, F (&sum)[R][T]) const {
      const int i = block - window_;
      Sum dot[R][T];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) dot[r][t] = Dot::begin(&correction_[t][i]);
      }
      dot_block(block, dot);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const F d = V::from_half(in_.header(r));
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const F scale = V::mul(d, V::broadcast(scales(t)[block]));
          const F product = V::to_float(Dot::end(dot[r][t], &correction_[t][i]));
          sum[r][t] = V::fma(product, scale, sum[r][t]);
        }
        if constexpr (kMinimum) {
          const F m = V::from_half(in_.header(r) + 32);
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            sum[r][t] = V::fma(m, V::broadcast(scaled_[t][i]), sum[r][t]);
          }
        }
      }
    }

    TileInput<R, T> in_;
    std::size_t scales_;
    std::size_t sums_;
    int num_blocks_;
    int window_ = -kWindow;
    union {
      std::int32_t correction_[T][kWindow];  // -kOffset * sum(a)
      float scaled_[T][kWindow];             // d_a * sum(a)
    };
  };
};

}  // namespace
}  // namespace quire::cpu
