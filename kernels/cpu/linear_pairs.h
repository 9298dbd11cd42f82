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

#include <cstring>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/linear_tile.h"

namespace quire::cpu {
namespace {

template <class Simd, Format kFormat>
struct PairKernel {
  using V = Simd;
  using F = typename V::F;
  using I = typename V::I;
  static_assert(is_nibbles(kFormat) && kPairOffset == -kSmallestQ8 &&
                kPairOtherOffset == 112 - kLargestQ8);
  static constexpr bool kMinimum = kFormat == Format::kQ4_1;
  static constexpr int kOffset = kMinimum ? 0 : 8;
  // One panel: a block of it is taken apart into eight registers, for as many tokens
  // as the other registers hold sums of.
  static constexpr TileShape kShape = {.one = 1, .few = {1, 12}, .many = {1, 12}};
  static constexpr int kLines = 4;         // of a block
  static constexpr int kTokensAtOnce = 4;  // with integer sums in registers
  static constexpr std::size_t kFetchesPerUnit = 4;
  static constexpr std::size_t kTokenBytes = kMinimum ? 44 : 40;
  static_assert(kTokenBytes <= kPackedBlockBytes);

  static std::size_t packed_token_bytes(const LinearJob& job) {
    return static_cast<std::size_t>(job.num_blocks) * kTokenBytes;
  }

  // Tokens [token, token + count) as one tile reads them: for each block [count][32] values, the
  // first kPairLines fours of each half as v and u, then [count] scales, [count] corrections
  // -(kOffset * sum(y) + sum(u v)), and with a minimum [count] d_a * sum(y).
  static void pack_tile(const LinearJob& job, int token, int count, std::byte* out) {
    const auto n = static_cast<std::size_t>(count);
    for (std::size_t t = 0; t < n; ++t) {
      const std::byte* in = job.in + (static_cast<std::size_t>(token) + t) * job.in_stride;
      std::byte* to = out;
      for (std::size_t block = 0; block < static_cast<std::size_t>(job.num_blocks); ++block) {
        std::int32_t sum;
        std::memcpy(&sum, in + job.in_sums + 4 * block, 4);
        const std::int32_t correction = -kOffset * sum - V::pair_up(in + 32 * block, to + 32 * t);
        float scale;
        std::memcpy(&scale, in + job.in_scales + 4 * block, 4);
        std::memcpy(to + 32 * n + 4 * t, &scale, 4);
        std::memcpy(to + 36 * n + 4 * t, &correction, 4);
        if constexpr (kMinimum) {
          const float scaled = scale * static_cast<float>(sum);
          std::memcpy(to + 40 * n + 4 * t, &scaled, 4);
        }
        to += kTokenBytes * n;
      }
    }
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
        in_.next_unit(kUnit);
      }
    }

   private:
    static constexpr PanelUnit kUnit = panel_unit(kFormat);
    static constexpr int kGroups = (T + kTokensAtOnce - 1) / kTokensAtOnce;
    static constexpr int first_of(int group) { return T * group / kGroups; }

    // A block of a panel: numbers of the low and the high nibbles.
    struct Numbers {
      I low[kLines];
      I high[kLines];
    };

    [[gnu::always_inline]] inline Numbers load_block() const {
      const I low_mask = V::broadcast(std::int32_t{0x0f0f0f0f});
      Numbers x;
#pragma GCC unroll 4
      for (int line = 0; line < kLines; ++line) {
        const I stored = V::load_line(in_.value(0) + line * 64);
        x.low[line] = V::bits_and(stored, low_mask);
        x.high[line] = V::bits_and(V::template shift_right<4>(stored), low_mask);
      }
      return x;
    }

    static I broadcast4(const std::byte* p) {
      std::int32_t x;
      std::memcpy(&x, p, 4);
      return V::broadcast(x);
    }

    // The i-th of five steps for a token whose values are at y: pairs, and between them the halves
    // of the line that has none.
    [[gnu::always_inline]] static I step(int i, I dot, const Numbers& x, const std::byte* y) {
      static_assert(kPairLines == 3);
      if (i == 1) return V::dot(dot, x.low[3], broadcast4(y + 12));
      if (i == 3) return V::dot(dot, x.high[3], broadcast4(y + 28));
      const int line = i / 2;
      return V::dot(dot, V::add_bytes(x.low[line], broadcast4(y + 16 + 4 * line)),
                    V::add_bytes(x.high[line], broadcast4(y + 4 * line)));
    }

    [[gnu::always_inline]] inline void add_block(const std::byte* a, F (&sum)[T]) {
      const auto* scales = reinterpret_cast<const float*>(a + 32 * T);
      const auto* corrections = reinterpret_cast<const std::int32_t*>(a + 36 * T);
      const float* scaled_sums = scales + 2 * T;
      const Numbers x = load_block();
      const I start = V::load_words(in_.pair_sums);
      const F d = V::from_half(in_.header(0));
      const F m = kMinimum ? V::from_half(in_.header(0) + 32) : V::zero();
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
          if (kMinimum) s = V::fma(m, V::broadcast(scaled_sums[first + t]), s);
          s = V::fma(V::to_float(dot[t]), V::mul(d, V::broadcast(scales[first + t])), s);
        }
#pragma GCC unroll 4
        for (int i = 4 * group / kGroups; i < 4 * (group + 1) / kGroups; ++i) in_.prefetch.step();
      }
    }

    TileInput<R, T> in_;
  };
};

}  // namespace
}  // namespace quire::cpu
