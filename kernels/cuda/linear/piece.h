// A piece: 8 columns of one row of a packed matrix, as loaded and as numbers. Device code.
//
// `floats` is exactly what kernels/formats decodes. `words` are four pairs for the tensor cores:
// the weights themselves (bf16, f16), or the block's numbers plus kOffset as bf16, exact: then
// weight = d * (word - kOffset) + m, applied to the sum over a block.
#pragma once

#include "kernels/cuda/dev/convert.h"
#include "kernels/cuda/dev/memory.h"
#include "kernels/cuda/linear/job.h"
#include "kernels/cuda/linear/layout.h"

namespace quire::cuda {

struct MatrixView {
  const std::byte* values;
  const std::byte* scales;
  int rows;
  int columns;
  int steps;  // K / 32, of block formats

  __device__ __forceinline__ size_t panel_step(int panel, int step) const {
    return static_cast<size_t>(panel) * static_cast<size_t>(steps) + static_cast<size_t>(step);
  }
};

template <Format kFormat>
__device__ __forceinline__ MatrixView view_of(const std::byte* data, int rows, int columns) {
  MatrixView view{data, data, rows, columns, columns / kStep};
  if constexpr (!is_plain(kFormat)) {
    view.scales =
        data + view.panel_step((rows + kPanelRows - 1) / kPanelRows, 0) * panel_bytes(kFormat);
  }
  return view;
}

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Eight fp32.
struct PieceF32 {
  uint4 low, high;
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    QUIRE_UNROLL
    for (int k = 0; k < 4; ++k) {
      w[k] = __uint_as_float(word_of(low, k));
      w[k + 4] = __uint_as_float(word_of(high, k));
    }
  }
};

// Eight bf16 or f16.
template <typename T>
struct PieceHalf {
  uint4 pairs;
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float2 pair = unpack2<T>(word_of(pairs, j));
      w[2 * j] = pair.x;
      w[2 * j + 1] = pair.y;
    }
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) a[j] = word_of(pairs, j);
  }
};

// Eight nibbles: 0x4300 + q is the bf16 128 + q.
template <bool kHasMin>
struct PieceQ4 {
  static constexpr float kOffset = kHasMin ? 128.0f : 136.0f;
  static constexpr bool kNeedsInputSum = true;
  uint32_t nibbles;
  uint32_t dm;  // f16 d, and m in the upper half
  __device__ __forceinline__ float d() const { return unpack2<f16>(dm).x; }
  __device__ __forceinline__ float m() const { return kHasMin ? unpack2<f16>(dm).y : 0.0f; }
  // By way of the pairs: converting integers is slow. d * 128 is exact, so one rounding remains.
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    uint32_t pairs[4];
    words(pairs);
    const float scale = d();
    QUIRE_UNROLL
    for (int k = 0; k < kPiece; ++k) {
      const float number = k % 2 == 0 ? bf16_low(pairs[k / 2]) : bf16_high(pairs[k / 2]);
      w[k] = kHasMin ? fmaf(scale, number - kOffset, m()) : fmaf(scale, number, -kOffset * scale);
    }
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) a[j] = ((nibbles >> (4 * j)) & 0x000f000fu) | 0x43004300u;
  }
};

// Eight bytes, number + 128: under the exponent of 2^23 a byte is a float's last bits.
struct PieceQ8 {
  static constexpr float kOffset = 0.0f;
  static constexpr bool kNeedsInputSum = false;
  uint32_t low, high;
  uint32_t dm;  // f16 d
  __device__ __forceinline__ float d() const { return unpack2<f16>(dm).x; }
  __device__ __forceinline__ float m() const { return 0.0f; }
  __device__ __forceinline__ float number(int k) const {
    const uint32_t word = k < 4 ? low : high;
    const uint32_t selector = 0x7440u | static_cast<uint32_t>(k % 4);  // 0x4b, 0, 0, the byte
    return __uint_as_float(__byte_perm(word, 0x4b000000u, selector)) - 8388736.0f;
  }
  __device__ __forceinline__ void floats(float (&w)[kPiece]) const {
    const float scale = d();
    QUIRE_UNROLL
    for (int k = 0; k < kPiece; ++k) w[k] = scale * number(k);
  }
  __device__ __forceinline__ void words(uint32_t (&a)[4]) const {
    QUIRE_UNROLL
    for (int j = 0; j < 4; ++j) {
      // Upper halves: |number| <= 128 leaves the lower ones zero.
      a[j] =
          __byte_perm(__float_as_uint(number(2 * j)), __float_as_uint(number(2 * j + 1)), 0x7632u);
    }
  }
};

template <Format kFormat>
struct PieceOf;
template <>
struct PieceOf<Format::kF32> {
  using type = PieceF32;
};
template <>
struct PieceOf<Format::kF16> {
  using type = PieceHalf<f16>;
};
template <>
struct PieceOf<Format::kBf16> {
  using type = PieceHalf<bf16>;
};
template <>
struct PieceOf<Format::kQ8_0> {
  using type = PieceQ8;
};
template <>
struct PieceOf<Format::kQ4_0> {
  using type = PieceQ4<false>;
};
template <>
struct PieceOf<Format::kQ4_1> {
  using type = PieceQ4<true>;
};
template <Format kFormat>
using Piece = typename PieceOf<kFormat>::type;

// The element type of tensor-core operands: f16 weights are multiplied as they are.
template <Format kFormat>
struct OperandOf {
  using type = bf16;
};
template <>
struct OperandOf<Format::kF16> {
  using type = f16;
};
template <Format kFormat>
using Operand = typename OperandOf<kFormat>::type;

// The bf16 pair as a pair of T. An f16 input beyond its range becomes the largest f16; NaN stays.
template <typename T>
__device__ __forceinline__ uint32_t pair_as(uint32_t pair) {
  if constexpr (std::is_same_v<T, bf16>) {
    return pair;
  } else {
    constexpr float kLargest = 65504.0f;
    float x[2] = {bf16_low(pair), bf16_high(pair)};
    QUIRE_UNROLL
    for (int i = 0; i < 2; ++i) {
      x[i] = x[i] > kLargest ? kLargest : x[i] < -kLargest ? -kLargest : x[i];
    }
    return pack2<f16>(x[0], x[1]);
  }
}
template <typename T>
__device__ __forceinline__ uint4 pairs_as(uint4 v) {
  return make_uint4(pair_as<T>(v.x), pair_as<T>(v.y), pair_as<T>(v.z), pair_as<T>(v.w));
}

// The piece of columns 8 `chunk` .. of `row`; zero where either is outside the matrix.
template <Format kFormat>
__device__ __forceinline__ Piece<kFormat> load_piece(const MatrixView& view, int row, int chunk) {
  Piece<kFormat> piece = {};
  if (row >= view.rows || kPiece * chunk >= view.columns) return piece;
  if constexpr (is_plain(kFormat)) {
    const std::byte* at =
        view.values + static_cast<size_t>(row) * plain_stride(kFormat, view.columns);
    if constexpr (kFormat == Format::kF32) {
      piece.low = load16(at + 32 * static_cast<size_t>(chunk));
      piece.high = load16(at + 32 * static_cast<size_t>(chunk) + 16);
    } else {
      piece.pairs = load16(at + 16 * static_cast<size_t>(chunk));
    }
  } else {
    const size_t unit = view.panel_step(row / kPanelRows, chunk / kPieces);
    const int g = row % 8;
    const int i = row % kPanelRows / 8;
    const int lane = 4 * g + chunk % kPieces;
    const std::byte* at = view.values + unit * panel_bytes(kFormat);
    const std::byte* scale = view.scales + unit * scale_bytes(kFormat);
    if constexpr (kFormat == Format::kQ8_0) {
      const uint2 bytes = load8_once(at + (i / 2 * 32 + lane) * 16 + i % 2 * 8);
      piece.low = bytes.x;
      piece.high = bytes.y;
    } else {
      piece.nibbles = load4_once(at + lane * 16 + 4 * i);
    }
    if constexpr (kFormat == Format::kQ4_1) {
      piece.dm = load4_once(scale + (4 * g + i) * 4);
    } else {
      piece.dm = *reinterpret_cast<const uint16_t*>(scale + (4 * g + i) * 2);
    }
  }
  return piece;
}

// The lane's pieces of a step: rows 32 panel + g + 8 i, columns 32 step + 8 p, by wide loads of
// memory that this kernel reads once.
template <Format kFormat>
__device__ __forceinline__ void load_panel(const MatrixView& view, int panel, int step, int lane,
                                           Piece<kFormat> (&pieces)[kPieces]) {
  if constexpr (is_plain(kFormat)) {
    const int chunk = kPieces * step + lane % 4;
    const size_t stride = plain_stride(kFormat, view.columns);
    QUIRE_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      const int row = kPanelRows * panel + lane / 4 + 8 * i;
      pieces[i] = {};
      if (row >= view.rows || kPiece * chunk >= view.columns) continue;
      const std::byte* at = view.values + static_cast<size_t>(row) * stride;
      if constexpr (kFormat == Format::kF32) {
        pieces[i].low = load16_once(at + 32 * static_cast<size_t>(chunk));
        pieces[i].high = load16_once(at + 32 * static_cast<size_t>(chunk) + 16);
      } else {
        pieces[i].pairs = load16_once(at + 16 * static_cast<size_t>(chunk));
      }
    }
  } else {
    const size_t unit = view.panel_step(panel, step);
    const std::byte* at = view.values + unit * panel_bytes(kFormat) + lane * 16;
    const std::byte* scale = view.scales + unit * scale_bytes(kFormat);
    if constexpr (kFormat == Format::kQ8_0) {
      const uint4 a = load16_once(at);
      const uint4 b = load16_once(at + 512);
      pieces[0].low = a.x, pieces[0].high = a.y, pieces[1].low = a.z, pieces[1].high = a.w;
      pieces[2].low = b.x, pieces[2].high = b.y, pieces[3].low = b.z, pieces[3].high = b.w;
    } else {
      const uint4 a = load16_once(at);
      QUIRE_UNROLL
      for (int i = 0; i < kPieces; ++i) pieces[i].nibbles = word_of(a, i);
    }
    if constexpr (kFormat == Format::kQ4_1) {
      const uint4 dm = load16_once(scale + lane / 4 * 16);
      QUIRE_UNROLL
      for (int i = 0; i < kPieces; ++i) pieces[i].dm = word_of(dm, i);
    } else {
      const uint2 d = load8_once(scale + lane / 4 * 8);
      QUIRE_UNROLL
      for (int i = 0; i < kPieces; ++i) pieces[i].dm = (i < 2 ? d.x : d.y) >> (16 * (i % 2));
    }
  }
}

}  // namespace quire::cuda
