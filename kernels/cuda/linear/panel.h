// Loads of a packed matrix: one piece anywhere (load_piece), or a lane's four pieces of one step
// of a panel by wide loads of memory that the kernel reads once (Panel). A Panel holds what was
// loaded as it came, so that nothing waits for a load before its numbers are needed. Device code.
#pragma once

#include "kernels/cuda/linear/piece.h"

namespace quire::cuda {

struct MatrixView {
  const std::byte* values;
  const std::byte* scales;
  const std::byte* factors;
  int rows;
  int columns;
  int steps;        // K / 32
  int superblocks;  // that K touches
  int phase;        // steps of the first one that are not ours

  __device__ __forceinline__ size_t unit(int panel, int step) const {
    return static_cast<size_t>(panel) * static_cast<size_t>(steps) + static_cast<size_t>(step);
  }
  __device__ __forceinline__ size_t superblock(int panel, int step) const {
    constexpr int kSteps = kSuperblock / kStep;
    return static_cast<size_t>(panel) * static_cast<size_t>(superblocks) +
           static_cast<size_t>((phase + step) / kSteps);
  }
};

template <Format kFormat>
__device__ __forceinline__ MatrixView view_of(const std::byte* data, int rows, int columns,
                                              int first_column) {
  MatrixView view{data, data, data, rows, columns, 0, 0, first_column / kStep};
  if constexpr (!is_plain(kFormat)) {
    const PackedParts parts = packed_parts(kFormat, rows, columns, first_column);
    view.scales = data + parts.scales;
    view.factors = data + parts.factors;
    view.steps = parts.steps;
    view.superblocks = parts.superblocks;
  }
  return view;
}
template <Format kFormat>
__device__ __forceinline__ MatrixView view_of(const LinearJob& job) {
  return view_of<kFormat>(job.data, job.rows, job.columns, job.first_column);
}

template <typename T>
__device__ __forceinline__ T load_as(const std::byte* from) {
  return *reinterpret_cast<const T*>(from);
}

// The scales of one row of a unit: 2 bytes, or 4.
template <Format kFormat>
__device__ __forceinline__ uint32_t load_scale(const std::byte* scales, int at) {
  if constexpr (scale_bytes(kFormat) == 128) return load4_once(scales + 4 * at);
  return load_as<uint16_t>(scales + 2 * at);
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
    const int panel = row / kPanelRows;
    const int step = chunk / kPieces;
    const size_t unit = view.unit(panel, step);
    const int i = row % kPanelRows / 8;
    const int in_group = 4 * (row % 8) + i;  // of scales
    const int lane = 4 * (row % 8) + chunk % kPieces;
    const std::byte* at = view.values + unit * panel_bytes(kFormat);
    if constexpr (is_eight_bits(kFormat)) {
      const uint2 bytes = load8_once(at + (i / 2 * 32 + lane) * 16 + i % 2 * 8);
      piece.low = bytes.x;
      piece.high = bytes.y;
    } else {
      piece.nibbles = load4_once(at + lane * 16 + 4 * i);
    }
    if constexpr (kFormat == Format::kQ5_K)
      piece.fifths = load_as<uint8_t>(at + 512 + 4 * lane + i);
    if constexpr (kFormat == Format::kQ6_K) {
      piece.pairs = load_as<uint16_t>(at + 512 + 8 * lane + 2 * i);
      piece.group = chunk % kPieces / 2;
    }
    if constexpr (is_superblock(kFormat)) {
      const std::byte* factors =
          view.factors + view.superblock(panel, step) * factor_bytes(kFormat);
      piece.scales = load_scale<kFormat>(view.scales + unit * scale_bytes(kFormat), in_group);
      piece.dm = kFormat == Format::kQ6_K ? load_as<uint16_t>(factors + 2 * in_group)
                                          : load_as<uint32_t>(factors + 4 * in_group);
    } else if constexpr (is_block(kFormat)) {
      piece.dm = load_scale<kFormat>(view.scales + unit * scale_bytes(kFormat), in_group);
    }
  }
  return piece;
}

// Rows 32 panel + g + 8 i, columns 32 step + 8 p. Plain formats: the pieces themselves.
template <Format kFormat, typename = void>
struct Panel {
  Piece<kFormat> pieces[kPieces];
  __device__ __forceinline__ void load(const MatrixView& view, int panel, int step, int lane) {
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
  }
  __device__ __forceinline__ Piece<kFormat> piece(int i, int) const { return pieces[i]; }
};

// Four values of 16 or 32 bits, of rows g + 8 i.
template <bool kWide>
struct FourOf;
template <>
struct FourOf<false> {
  uint2 raw;
  __device__ __forceinline__ uint32_t at(int i) const {
    return (i < 2 ? raw.x : raw.y) >> (16 * (i % 2)) & 0xffffu;
  }
};
template <>
struct FourOf<true> {
  uint4 raw;
  __device__ __forceinline__ uint32_t at(int i) const { return word_of(raw, i); }
};

// The scales of blocks; nothing for formats without.
template <Format kFormat, typename = void>
struct PanelScales {
  __device__ __forceinline__ void load(const MatrixView&, size_t, int) {}
  __device__ __forceinline__ uint32_t at(int) const { return 0; }
};
template <Format kFormat>
struct PanelScales<kFormat, std::enable_if_t<is_block(kFormat)>> {
  static constexpr bool kWide = scale_bytes(kFormat) == 128;
  FourOf<kWide> four;
  __device__ __forceinline__ void load(const MatrixView& view, size_t unit, int lane) {
    const std::byte* from = view.scales + unit * scale_bytes(kFormat);
    if constexpr (kWide) {
      four.raw = load16_once(from + lane / 4 * 16);
    } else {
      four.raw = load8_once(from + lane / 4 * 8);
    }
  }
  __device__ __forceinline__ uint32_t at(int i) const { return four.at(i); }
};

template <Format kFormat>
struct Panel<kFormat, std::enable_if_t<is_eight_bits(kFormat)>> {
  uint4 low, high;  // pieces 0, 1 and 2, 3
  PanelScales<kFormat> scales;
  __device__ __forceinline__ void load(const MatrixView& view, int panel, int step, int lane) {
    const size_t unit = view.unit(panel, step);
    const std::byte* at = view.values + unit * panel_bytes(kFormat) + lane * 16;
    low = load16_once(at);
    high = load16_once(at + 512);
    scales.load(view, unit, lane);
  }
  __device__ __forceinline__ Piece<kFormat> piece(int i, int) const {
    const uint4& half = i < 2 ? low : high;
    return {word_of(half, i % 2 * 2), word_of(half, i % 2 * 2 + 1), scales.at(i)};
  }
};

template <Format kFormat>
struct Panel<kFormat, std::enable_if_t<is_block(kFormat) && !is_superblock(kFormat) &&
                                       !is_eight_bits(kFormat)>> {
  uint4 nibbles;
  PanelScales<kFormat> scales;
  __device__ __forceinline__ void load(const MatrixView& view, int panel, int step, int lane) {
    const size_t unit = view.unit(panel, step);
    nibbles = load16_once(view.values + unit * panel_bytes(kFormat) + lane * 16);
    scales.load(view, unit, lane);
  }
  __device__ __forceinline__ Piece<kFormat> piece(int i, int) const {
    return {word_of(nibbles, i), scales.at(i)};
  }
};

// The factors of a superblock are met again by its other steps: through L1.
template <Format kFormat>
struct Panel<kFormat, std::enable_if_t<is_superblock(kFormat)>> {
  uint4 nibbles;
  uint2 bits;  // q5_K: one word; q6_K: two
  PanelScales<kFormat> scales;
  FourOf<kFormat != Format::kQ6_K> factors;
  __device__ __forceinline__ void load(const MatrixView& view, int panel, int step, int lane) {
    const size_t unit = view.unit(panel, step);
    const std::byte* at = view.values + unit * panel_bytes(kFormat);
    nibbles = load16_once(at + lane * 16);
    if constexpr (kFormat == Format::kQ5_K) bits.x = load4_once(at + 512 + lane * 4);
    if constexpr (kFormat == Format::kQ6_K) bits = load8_once(at + 512 + lane * 8);
    scales.load(view, unit, lane);
    const std::byte* from = view.factors + view.superblock(panel, step) * factor_bytes(kFormat);
    factors.raw = load_as<decltype(factors.raw)>(from + lane / 4 * sizeof(factors.raw));
  }
  __device__ __forceinline__ Piece<kFormat> piece(int i, int lane) const {
    if constexpr (kFormat == Format::kQ6_K) {
      const uint32_t pairs = (i < 2 ? bits.x : bits.y) >> (16 * (i % 2)) & 0xffffu;
      return {word_of(nibbles, i), pairs, scales.at(i), factors.at(i), lane % 4 / 2};
    } else {
      const uint32_t fifths = kFormat == Format::kQ5_K ? bits.x >> (8 * i) & 0xffu : 0u;
      return {word_of(nibbles, i), fifths, scales.at(i), factors.at(i)};
    }
  }
};

}  // namespace quire::cuda
