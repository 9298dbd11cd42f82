// Host side of the layout: copies rows of a checkpoint to where layout.h wants them.
#include <cstring>

#include "kernels/cuda/linear/layout.h"
#include "kernels/cuda/linear/linear.h"

namespace quire::cuda {
namespace {

// One block format as it comes: where the scales and the numbers of a block are.
struct BlockShape {
  std::size_t bytes;   // of a block
  std::size_t header;  // f16 d, and m for q4_1
};

BlockShape block_shape(Format format) {
  switch (format) {
    case Format::kQ8_0:
      return {34, 2};
    case Format::kQ4_1:
      return {20, 4};
    default:
      return {18, 2};
  }
}

void pack_plain_row(Format format, int columns, const std::byte* from, std::byte* to) {
  const std::size_t bytes = row_bytes(format, columns);
  std::memcpy(to, from, bytes);
  std::memset(to + bytes, 0, plain_stride(format, columns) - bytes);
}

// GGUF keeps elements k and k + 16 of a block in one byte.
std::uint32_t nibble(const std::byte* numbers, int k) {
  const auto byte = static_cast<std::uint32_t>(numbers[k % 16]);
  return k < 16 ? byte & 15u : byte >> 4;
}

// Columns 8 p .. 8 p + 7 of a block.
std::uint32_t nibble_word(const std::byte* numbers, int p) {
  std::uint32_t word = 0;
  for (int j = 0; j < 4; ++j) {
    const int k = kPiece * p + 2 * j;
    word |= nibble(numbers, k) << (4 * j) | nibble(numbers, k + 1) << (4 * j + 16);
  }
  return word;
}

void pack_numbers(Format format, const std::byte* numbers, int row, std::byte* panel) {
  const int g = row % 8;
  const int i = row / 8;
  for (int p = 0; p < kPieces; ++p) {
    const int lane = 4 * g + p;
    if (format == Format::kQ8_0) {
      std::byte* to = panel + (i / 2 * 32 + lane) * 16 + i % 2 * 8;
      for (int k = 0; k < kPiece; ++k) to[k] = numbers[kPiece * p + k] ^ std::byte{0x80};
    } else {
      const std::uint32_t word = nibble_word(numbers, p);
      std::memcpy(panel + lane * 16 + 4 * i, &word, sizeof(word));
    }
  }
}

void pack_block_row(Format format, int columns, const std::byte* from, int row, int total_rows,
                    std::byte* to) {
  const BlockShape shape = block_shape(format);
  const int steps = columns / kStep;
  const std::size_t first_panel =
      static_cast<std::size_t>(row / kPanelRows) * static_cast<std::size_t>(steps);
  std::byte* values = to + first_panel * panel_bytes(format);
  std::byte* scales = to + num_panel_steps(total_rows, columns) * panel_bytes(format) +
                      first_panel * scale_bytes(format);
  const auto in_panel = row % kPanelRows;
  const std::size_t scale_at = static_cast<std::size_t>(in_panel % 8 * 4 + in_panel / 8);
  for (int step = 0; step < steps; ++step) {
    std::memcpy(scales + scale_at * shape.header, from, shape.header);
    pack_numbers(format, from + shape.header, in_panel, values);
    from += shape.bytes;
    values += panel_bytes(format);
    scales += scale_bytes(format);
  }
}

}  // namespace

std::size_t packed_bytes(Format format, int rows, int columns) {
  if (is_plain(format)) return static_cast<std::size_t>(rows) * plain_stride(format, columns);
  return num_panel_steps(rows, columns) * (panel_bytes(format) + scale_bytes(format));
}

void pack_rows(Format format, int rows, int columns, const std::byte* from, std::size_t row_stride,
               int first_row, int total_rows, std::byte* to) {
  for (int n = 0; n < rows; ++n) {
    const std::byte* row = from + static_cast<std::size_t>(n) * row_stride;
    const int at = first_row + n;
    if (is_plain(format)) {
      pack_plain_row(format, columns, row,
                     to + static_cast<std::size_t>(at) * plain_stride(format, columns));
    } else {
      pack_block_row(format, columns, row, at, total_rows, to);
    }
  }
}

ActivationLayout input_layout(Format format, bool float32) {
  return float32 || format == Format::kF32 ? ActivationLayout::kF32 : ActivationLayout::kBf16;
}

}  // namespace quire::cuda
