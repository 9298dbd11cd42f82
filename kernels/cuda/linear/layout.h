// Where the weights of an N x K matrix lie in device memory. Host and device agree by this file.
//
// Plain formats (f32, f16, bf16): rows one after the other, K padded with zeros to a multiple of 8.
// All others: panels of 32 rows by steps of 32 columns (K padded with zeros), as the lanes of a
// warp hold them. Lane 4 g + p has columns 8 p .. 8 p + 7 of rows g, g + 8, g + 16, g + 24 (i):
//   4 to 6 bits  [N / 32][K / 32][lane][i] words; nibble j: column 8 p + 2 j, j + 4: 2 j + 1
//     q5_K       then [lane][i] bytes: bit j is the fifth of column 8 p + 2 j, j + 4: of 2 j + 1
//     q6_K       then [lane][i] 16 bits, pairs of bits in the same order
//   8 bits       [N / 32][K / 32][i / 2][lane][i % 2] 8 bytes; q8_0 and i8: the number + 128
// After all values come, each where its format has it:
//   scales  [N / 32][K / 32][g][i]: q8_0, q4_0 f16 d; q4_1 f16 d, m; q4_z f16 d, z; q4_K, q5_K two
//           bytes, scale and minimum; q6_K two signed bytes, of columns 0..15 and 16..31
//   factors of superblocks  [N / 32][superblocks][g][i]: q4_K, q5_K f16 d, dmin; q6_K f16 d
//   factors of rows         [N] fp32: f8_e4m3, i8
// N is padded to 32 rows; nothing depends on what is in the padding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/format.h"

namespace quire::cuda {

inline constexpr int kPanelRows = 32;
inline constexpr int kStep = 32;   // columns that a warp takes at once
inline constexpr int kPiece = 8;   // columns of one row that a lane takes at once
inline constexpr int kPieces = 4;  // of a step
inline constexpr int kSuperblock = 256;

constexpr bool is_plain(Format format) {
  return format == Format::kF32 || format == Format::kF16 || format == Format::kBf16;
}
constexpr bool is_superblock(Format format) {
  return format == Format::kQ4_K || format == Format::kQ5_K || format == Format::kQ6_K;
}
// Numbers that a scale of their block multiplies: outputs begin and end with a step.
constexpr bool is_block(Format format) {
  return !is_plain(format) && !has_row_scales(format);
}
constexpr bool is_eight_bits(Format format) {
  return format == Format::kQ8_0 || has_row_scales(format);
}
constexpr int round_up(int x, int unit) {
  return (x + unit - 1) / unit * unit;
}

// Bytes of one row of a plain format.
constexpr std::size_t plain_stride(Format format, int columns) {
  return static_cast<std::size_t>(round_up(columns, kPiece)) * (format == Format::kF32 ? 4 : 2);
}
// Bytes of the values, of the scales, and of the superblocks' factors, of one panel and step.
constexpr std::size_t panel_bytes(Format format) {
  if (is_eight_bits(format)) return 1024;
  return format == Format::kQ6_K ? 768 : format == Format::kQ5_K ? 640 : 512;
}
constexpr std::size_t scale_bytes(Format format) {
  if (!is_block(format)) return 0;
  return format == Format::kQ4_1 || format == Format::kQ4_Z ? 128 : 64;
}
constexpr std::size_t factor_bytes(Format format) {
  if (!is_superblock(format)) return 0;
  return format == Format::kQ6_K ? 64 : 128;
}

// The parts of a packed matrix in panels, in bytes from its beginning.
struct PackedParts {
  int steps = 0;        // of K
  int superblocks = 0;  // that K touches
  std::size_t scales = 0;
  std::size_t factors = 0;
  std::size_t row_scales = 0;
  std::size_t end = 0;
};
constexpr PackedParts packed_parts(Format format, int rows, int columns, int first_column) {
  const auto panels = static_cast<std::size_t>((rows + kPanelRows - 1) / kPanelRows);
  PackedParts parts;
  parts.steps = (columns + kStep - 1) / kStep;
  parts.superblocks =
      is_superblock(format) ? round_up(first_column + columns, kSuperblock) / kSuperblock : 0;
  const std::size_t units = panels * static_cast<std::size_t>(parts.steps);
  parts.scales = units * panel_bytes(format);
  parts.factors = parts.scales + units * scale_bytes(format);
  parts.row_scales =
      parts.factors + panels * static_cast<std::size_t>(parts.superblocks) * factor_bytes(format);
  parts.end = parts.row_scales + (has_row_scales(format) ? panels * kPanelRows * 4 : 0);
  return parts;
}

}  // namespace quire::cuda
