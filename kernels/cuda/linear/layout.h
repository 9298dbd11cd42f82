// Where the weights of an N x K matrix lie in device memory. Host and device agree by this file.
//
// Plain formats (f32, f16, bf16): rows one after the other, K padded with zeros to a multiple of 8.
// Block formats: panels of 32 rows by steps of 32 columns, as the lanes of a warp hold them. Lane
// 4 g + p has columns 8 p .. 8 p + 7 of rows g, g + 8, g + 16, g + 24 (index i): one 16-byte load.
//   q4_0, q4_1  [N / 32][K / 32][lane][i] words; nibble j: column 8 p + 2 j, nibble j + 4: 2 j + 1
//   q8_0        [N / 32][K / 32][i / 2][lane][i % 2] 8 bytes, each the number + 128
// and after all values the scales as f16, [N / 32][K / 32][g][i]: d, or d and m for q4_1.
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

constexpr bool is_plain(Format format) {
  return format == Format::kF32 || format == Format::kF16 || format == Format::kBf16;
}
constexpr int round_up(int x, int unit) {
  return (x + unit - 1) / unit * unit;
}

// Bytes of one row of a plain format.
constexpr std::size_t plain_stride(Format format, int columns) {
  return static_cast<std::size_t>(round_up(columns, kPiece)) * (format == Format::kF32 ? 4 : 2);
}
// Bytes of the values, and of the scales, of one panel and step.
constexpr std::size_t panel_bytes(Format format) {
  return format == Format::kQ8_0 ? 1024 : 512;
}
constexpr std::size_t scale_bytes(Format format) {
  return format == Format::kQ4_1 ? 128 : 64;
}
constexpr std::size_t num_panel_steps(int rows, int columns) {
  return static_cast<std::size_t>(round_up(rows, kPanelRows) / kPanelRows) *
         static_cast<std::size_t>(columns / kStep);
}

}  // namespace quire::cuda
