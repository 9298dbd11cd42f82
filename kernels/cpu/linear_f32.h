// Any format times fp32 activations: weights are decoded to floats on the fly and every k is one
// FMA per element, in the order of k. Plain formats under fp32 arithmetic, and the fp32 mode of the
// block formats.
#pragma once

#include "kernels/cpu/linear_tile.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct F32Kernel {
  using V = Simd;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr TileShape kShape = V::kFloatShape;
  static constexpr std::size_t kFetchesPerUnit = 1;

  template <int R, int T>
  class Tile {
   public:
    explicit Tile(const TileInput<R, T>& in) : in_(in) {}

    [[gnu::always_inline]] inline void add_leaf(int begin, int end, F (&sum)[R][T]) {
      for (int k = begin; k < end; k += kUnit.columns) {
        add_unit(k, sum);
        in_.prefetch.step();
        in_.next_unit(kUnit);
      }
    }

   private:
    static constexpr PanelUnit kUnit = panel_unit(kFormat);

    [[gnu::always_inline]] inline void add_column(int k, const F (&w)[R], F (&sum)[R][T]) const {
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) {
        const F a = V::broadcast(reinterpret_cast<const float*>(in_.token(t))[k]);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][t] = V::fma(w[r], a, sum[r][t]);
      }
    }

    [[gnu::always_inline]] inline void add_unit(int k, F (&sum)[R][T]) const {
      if constexpr (kFormat == Format::kF32 || kFormat == Format::kF16) {
        F w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          if constexpr (kFormat == Format::kF32) {
            w[r] = V::load(reinterpret_cast<const float*>(in_.value(r)));
          } else {
            w[r] = V::from_half(in_.value(r));
          }
        }
        add_column(k, w, sum);
      } else if constexpr (kFormat == Format::kBf16) {
        add_pair(k, sum);
      } else if constexpr (kFormat == Format::kQ8_0) {
        for (int line = 0; line < 8; ++line) add_line<0>(line, k + 4 * line, sum);
      } else {
        for (int line = 0; line < 4; ++line) add_line<0>(line, k + 4 * line, sum);
        for (int line = 0; line < 4; ++line) add_line<4>(line, k + 16 + 4 * line, sum);
      }
    }

    // A line of bf16 pairs: the lower half of each dword is the even k.
    [[gnu::always_inline]] inline void add_pair(int k, F (&sum)[R][T]) const {
      F w[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        w[r] = V::as_float(V::template shift_left<16>(V::load_line(in_.value(r))));
      }
      add_column(k, w, sum);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const I upper = V::broadcast(std::int32_t{-65536});
        w[r] = V::as_float(V::bits_and(V::load_line(in_.value(r)), upper));
      }
      add_column(k + 1, w, sum);
    }

    // Four k of a block: a byte each, or the nibble of it that starts at bit kShift.
    template <int kShift>
    [[gnu::always_inline]] inline void add_line(int line, int k, F (&sum)[R][T]) const {
      I stored[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        stored[r] = V::template shift_right<kShift>(V::load_line(in_.value(r) + line * 64));
      }
#pragma GCC unroll 8
      for (int j = 0; j < 4; ++j) {
        F w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          w[r] = decode(stored[r], in_.header(r));
          stored[r] = V::template shift_right<8>(stored[r]);
        }
        add_column(k + j, w, sum);
      }
    }

    static F decode(I stored, const std::byte* header) {
      constexpr bool kNibbles = kFormat != Format::kQ8_0;
      const I q = V::bits_and(stored, V::broadcast(std::int32_t{kNibbles ? 0x0f : 0xff}));
      const F d = V::from_half(header);
      if constexpr (kFormat == Format::kQ4_1) {
        return V::fma(V::to_float(q), d, V::from_half(header + 32));
      } else {
        return V::mul(V::to_float(V::subtract(q, V::broadcast(std::int32_t{kNibbles ? 8 : 128}))),
                      d);
      }
    }

    TileInput<R, T> in_;
  };
};

}  // namespace
}  // namespace quire::cpu
