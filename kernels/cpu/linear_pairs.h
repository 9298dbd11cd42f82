// Formats of 4 bits (q4_0, q4_1) times 8-bit activations with fewer multiplications, for many
// tokens. S. Winograd, "A New Algorithm for Inner Product", IEEE Trans. Computers C-17 (1968):
//   x1 y1 + x2 y2 = (x1 + y2) (x2 + y1) - x1 x2 - y1 y2
// where the last two products belong to the weights alone and to the activations alone. VPDPBUSD
// and all other multiplications share two of the processor's four vector pipes (Zen 4), additions
// of bytes go to any: so for one multiplication of four two additions are done beside the others.
// With all pairs the additions would be what is waited for: a line of each block is multiplied as
// it is.
//
// x are numbers in [0, 15], y in [-113, 127] (activation.h). One factor has to be unsigned and one
// signed, each in a byte, so the activations of a pair are stored as u = y2 + 113 and v = y1 - 15:
//   (x1 + u) (x2 + v) = x1 y1 + x2 y2 + (x1 x2 - 15 x1 + 113 x2) + u v
// in which x1 + u is in [0, 255] and x2 + v in [-128, 127]. All of it is exact: a block has the
// same integer sum as in linear_q8.h, and then takes the same float operations.
#pragma once

#include "kernels/cpu/linear_blocks.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct PairKernel : Blocks<Simd, kFormat> {
  using B = Blocks<Simd, kFormat>;
  using V = Simd;
  using typename B::F;
  using typename B::I;
  static_assert(B::kNibbles);
  // One panel: a block of it is taken apart into eight registers, for as many tokens as the other
  // registers hold sums of.
  static constexpr TileShape kShape = {.one = 1, .few = {1, 12}, .many = {1, 12}};
  static constexpr int kTokensAtOnce = 4;  // with integer sums in registers
  static constexpr std::size_t kFetchesPerUnit = 4;
  static constexpr std::size_t kTokenBytes = B::kMinimum ? 44 : 40;
  static_assert(kTokenBytes <= kPackedBlockBytes);

  static std::size_t packed_token_bytes(const LinearJob& job) {
    return static_cast<std::size_t>(job.num_blocks) * kTokenBytes;
  }

  // Of a block: its values, the first kPairLines fours of each half as v and u, its scale,
  // -(kOffset * sum(y) + sum(u v)), and with a minimum d_a * sum(y).
  static void pack_tile(const LinearJob& job, int token, int count, std::byte* out) {
    B::template pack_tile<kTokenBytes>(
        job, token, count, out, [](const auto& block, std::byte* values, auto number) {
          const std::int32_t products = V::pair_up(block.values, values);
          number(0, block.scale);
          number(1, -B::kOffset * block.sum - products);
          if constexpr (B::kMinimum) number(2, block.scaled_sum());
        });
  }

  template <int R, int T>
  class Tile {
   public:
    static_assert(R == 1);
    explicit Tile(const TileInput<R, T>& in) : in_(in) {}

    [[gnu::always_inline]] inline void add_leaf(int begin, int end, F (&sum)[R][T]) {
      const std::byte* a = in_.tokens + static_cast<std::size_t>(begin / 32) * T * kTokenBytes;
      for (int block = begin / 32; block < end / 32; ++block, a += T * kTokenBytes) {
        add_block(a, sum[0]);
        in_.next_unit(B::kUnit);
        in_.pair_sums += kPairSumBytes;
      }
    }

   private:
    static constexpr int kGroups = (T + kTokensAtOnce - 1) / kTokensAtOnce;
    static constexpr int first_of(int group) { return T * group / kGroups; }
    static constexpr int fetches_before(int group) {
      return static_cast<int>(kFetchesPerUnit) * group / kGroups;
    }

    // A block of a panel: numbers of the low and the high nibbles.
    struct Numbers {
      I low[B::kLines];
      I high[B::kLines];
    };

    [[gnu::always_inline]] inline Numbers load_block() const {
      Numbers x;
#pragma GCC unroll 4
      for (int line = 0; line < B::kLines; ++line) {
        const I stored = V::load_line(in_.value(0) + line * 64);
        x.low[line] = B::low(stored);
        x.high[line] = B::high(stored);
      }
      return x;
    }

    // The i-th of five steps for a token whose values are at y: pairs, and between them the halves
    // of the line that has none.
    [[gnu::always_inline]] static I step(int i, I dot, const Numbers& x, const std::byte* y) {
      static_assert(kPairLines == 3);
      if (i == 1) return V::dot(dot, x.low[3], B::broadcast4(y + 12));
      if (i == 3) return V::dot(dot, x.high[3], B::broadcast4(y + 28));
      const int line = i / 2;
      return V::dot(dot, V::add_bytes(x.low[line], B::broadcast4(y + 16 + 4 * line)),
                    V::add_bytes(x.high[line], B::broadcast4(y + 4 * line)));
    }

    [[gnu::always_inline]] inline void add_block(const std::byte* a, F (&sum)[T]) {
      const auto* scales = reinterpret_cast<const float*>(a + 32 * T);
      const auto* corrections = reinterpret_cast<const std::int32_t*>(a + 36 * T);
      const float* scaled_sums = scales + 2 * T;
      const Numbers x = load_block();
      const I start = V::load_words(in_.pair_sums);
      const F d = B::scale(in_.header(0));
      const F m = B::kMinimum ? B::minimum(in_.header(0)) : V::zero();
#pragma GCC unroll 4
      for (int group = 0; group < kGroups; ++group) {
        const int first = first_of(group), count = first_of(group + 1) - first;
        I dot[kTokensAtOnce];
#pragma GCC unroll 4
        for (int t = 0; t < count; ++t) {
          dot[t] = V::add(start, V::broadcast(corrections[first + t]));
        }
#pragma GCC unroll 5
        for (int i = 0; i < 5; ++i) {
#pragma GCC unroll 4
          for (int t = 0; t < count; ++t) dot[t] = step(i, dot[t], x, a + 32 * (first + t));
        }
#pragma GCC unroll 4
        for (int t = 0; t < count; ++t) {
          F& s = sum[first + t];
          if (B::kMinimum) s = B::add_minimum(s, m, scaled_sums[first + t]);
          s = B::add_product(s, dot[t], d, scales[first + t]);
        }
        const int fetches = fetches_before(group + 1);
#pragma GCC unroll 4
        for (int i = fetches_before(group); i < fetches; ++i) in_.prefetch.step();
      }
    }

    TileInput<R, T> in_;
  };
};

}  // namespace
}  // namespace quire::cpu
