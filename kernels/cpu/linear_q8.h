// Block formats (q8_0, q4_0, q4_1) times 8-bit activations. Per block of 32 k an exact integer dot
// product, then two or three float operations per 16 rows and token:
//   for q4_1 first   sum += m_w * (d_a * sum(a))   then   sum += dot * (d_w * d_a)
// The constant 8 or 128 that a stored weight is too large by is taken off as a start value of the
// integer sum.
#pragma once

#include <cstring>

#include "kernels/cpu/linear_blocks.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct Q8Kernel : Blocks<Simd, kFormat> {
  using B = Blocks<Simd, kFormat>;
  using V = Simd;
  using typename B::F;
  using typename B::I;
  static constexpr TileShape kShape = V::kInt8Shape;
  static constexpr std::size_t kFetchesPerUnit = B::kLines;
  using Dot = typename V::template Dot<B::kOffset>;
  using Sum = typename Dot::Sum;
  static constexpr std::size_t kTokenBytes = 40;  // of a block
  static_assert(kTokenBytes <= kPackedBlockBytes);

  static std::size_t packed_token_bytes(const LinearJob& job) {
    return static_cast<std::size_t>(job.num_blocks) * kTokenBytes;
  }

  // Of a block: its values, its scale and what its offset or minimum needs of it, -kOffset * sum(a)
  // as an integer or d_a * sum(a) as a float.
  static void pack_tile(const LinearJob& job, int token, int count, std::byte* out) {
    B::template pack_tile<kTokenBytes>(job, token, count, out,
                                       [](const auto& block, std::byte* values, auto number) {
                                         std::memcpy(values, block.values, 32);
                                         number(0, block.scale);
                                         if constexpr (B::kMinimum) {
                                           number(1, block.scaled_sum());
                                         } else {
                                           number(1, -B::kOffset * block.sum);
                                         }
                                       });
  }

  template <int R, int T>
  class Tile {
   public:
    explicit Tile(const TileInput<R, T>& in) : in_(in) {}

    [[gnu::always_inline]] inline void add_leaf(int begin, int end, F (&sum)[R][T]) {
      const std::byte* a = in_.tokens + static_cast<std::size_t>(begin / 32) * kBlockBytes;
      for (int block = begin / 32; block < end / 32; ++block, a += kBlockBytes) {
        add_block(a, sum);
        in_.next_unit(B::kUnit);
      }
    }

   private:
    static constexpr std::size_t kBlockBytes = T * kTokenBytes;

    static const float* scales(const std::byte* a) {
      return reinterpret_cast<const float*>(a + 32 * T);
    }
    static const float* scaled_sums(const std::byte* a) { return scales(a) + T; }
    static const std::int32_t* corrections(const std::byte* a) {
      return reinterpret_cast<const std::int32_t*>(a + 36 * T);
    }

    [[gnu::always_inline]] inline void dot_block(const std::byte* a, Sum (&dot)[R][T]) {
#pragma GCC unroll 8
      for (int line = 0; line < B::kLines; ++line) {
        I stored[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) stored[r] = V::load_line(in_.value(r) + line * 64);
#pragma GCC unroll 2
        for (int half = 0; half < (B::kNibbles ? 2 : 1); ++half) {
          I w[R];
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            w[r] = !B::kNibbles ? stored[r] : half == 0 ? B::low(stored[r]) : B::high(stored[r]);
          }
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            const I x = B::broadcast4(a + t * 32 + half * 16 + line * 4);
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
        const F d = B::scale(in_.header(r));
        if constexpr (B::kMinimum) {
          const F m = B::minimum(in_.header(r));
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) sum[r][t] = B::add_minimum(sum[r][t], m, scaled_sums(a)[t]);
        }
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const I product = Dot::end(dot[r][t], corrections(a) + t);
          sum[r][t] = B::add_product(sum[r][t], product, d, scales(a)[t]);
        }
      }
    }

    TileInput<R, T> in_;
  };
};

}  // namespace
}  // namespace quire::cpu
