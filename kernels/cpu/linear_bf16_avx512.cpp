// bf16 weights times bf16 activations by VDPBF16PS: per 16 rows, token and pair of k one
// instruction, which rounds in its own way (denormals flushed, both products added in one step), so
// these sums are not those of the fp32 path.
#include <cstring>

#include "kernels/cpu/linear_tile.h"
#include "kernels/cpu/simd_avx512.h"

namespace quire::cpu {
namespace {

struct Bf16Kernel {
  using V = Avx512;
  static constexpr TileShape kShape = V::kFloatShape;
  static constexpr std::size_t kFetchesPerUnit = 1;

  template <int R, int T>
  class Tile {
   public:
    explicit Tile(const TileInput<R, T>& in) : in_(in) {}

    // The second k of a leaf's last pair may be a neighbour's activation: its weight is zero.
    [[gnu::always_inline]] inline void add_leaf(int begin, int end, __m512 (&sum)[R][T]) {
      for (int k = begin; k < end; k += 2) {
        __m512bh w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) w[r] = as_bf16(V::load_line(in_.value(r)));
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const __m512bh a = broadcast_pair(in_.token(t) + 2 * static_cast<std::size_t>(k));
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[r][t] = _mm512_dpbf16_ps(sum[r][t], w[r], a);
        }
        in_.prefetch.step();
        in_.next_unit(panel_unit(Format::kBf16));
      }
    }

   private:
    static __m512bh as_bf16(__m512i x) {
      return reinterpret_cast<__m512bh>(x);
    }
    static __m512bh broadcast_pair(const std::byte* p) {
      std::int32_t x;
      std::memcpy(&x, p, 4);
      return as_bf16(_mm512_set1_epi32(x));
    }

    TileInput<R, T> in_;
  };
};

}  // namespace

void linear_bf16_avx512(const LinearJob& job) {
  compute<Bf16Kernel>(job);
}

}  // namespace quire::cpu
