// Host side of the layout: takes rows of a checkpoint apart and puts their numbers where layout.h
// wants them.
#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cuda/linear/layout.h"
#include "kernels/cuda/linear/linear.h"
#include "kernels/formats/q4_k.h"
#include "kernels/formats/q5_k.h"
#include "kernels/formats/q6_k.h"
#include "kernels/weight.h"

namespace quire::cuda {
namespace {

using Numbers = std::array<std::uint8_t, kStep>;  // of a step, as the panel stores them

// Where the parts of a row's units are: pointers to its panel's first unit.
struct RowPlace {
  std::byte* values;
  std::byte* scales;
  std::byte* factors;
  int g, i;  // row g + 8 i of the panel

  RowPlace(Format format, const PackedParts& parts, int row, std::byte* to)
      : g(row % 8), i(row % kPanelRows / 8) {
    const auto panel = static_cast<std::size_t>(row / kPanelRows);
    const std::size_t unit = panel * static_cast<std::size_t>(parts.steps);
    values = to + unit * panel_bytes(format);
    scales = to + parts.scales + unit * scale_bytes(format);
    factors = to + parts.factors +
              panel * static_cast<std::size_t>(parts.superblocks) * factor_bytes(format);
  }
  // `bytes` of a scale or a factor, the same for every row.
  void put(std::byte* unit, const void* scale, std::size_t bytes) const {
    std::memcpy(unit + static_cast<std::size_t>(4 * g + i) * bytes, scale, bytes);
  }
};

void put_bytes(const Numbers& numbers, const RowPlace& row, std::byte* unit) {
  for (int p = 0; p < kPieces; ++p) {
    std::memcpy(unit + (row.i / 2 * 32 + 4 * row.g + p) * 16 + row.i % 2 * 8,
                numbers.data() + kPiece * p, kPiece);
  }
}

// Numbers of 4 to 6 bits: nibbles, then what is above them.
void put_nibbles(Format format, const Numbers& numbers, const RowPlace& row, std::byte* unit) {
  for (int p = 0; p < kPieces; ++p) {
    const int lane = 4 * row.g + p;
    std::uint32_t word = 0;
    std::uint32_t above = 0;
    const int bits = format == Format::kQ6_K ? 2 : 1;
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t even = numbers[static_cast<std::size_t>(kPiece * p + 2 * j)];
      const std::uint32_t odd = numbers[static_cast<std::size_t>(kPiece * p + 2 * j + 1)];
      word |= (even & 15u) << (4 * j) | (odd & 15u) << (4 * j + 16);
      above |= even >> 4 << (bits * j) | odd >> 4 << (bits * (j + 4));
    }
    std::memcpy(unit + lane * 16 + 4 * row.i, &word, 4);
    if (format == Format::kQ5_K) std::memcpy(unit + 512 + 4 * lane + row.i, &above, 1);
    if (format == Format::kQ6_K) std::memcpy(unit + 512 + 8 * lane + 2 * row.i, &above, 2);
  }
}

void pack_plain_row(Format format, int columns, const std::byte* from, std::byte* to) {
  const std::size_t bytes = row_bytes(format, columns);
  std::memcpy(to, from, bytes);
  std::memset(to + bytes, 0, plain_stride(format, columns) - bytes);
}

// Elements of one byte; zeros after the last column.
bool pack_byte_row(Format format, int columns, const std::byte* from, const RowPlace& row) {
  const std::uint8_t flip = format == Format::kI8 ? 0x80 : 0;  // i8: number + 128
  bool all_numbers = true;
  std::byte* unit = row.values;
  for (int first = 0; first < columns; first += kStep, unit += panel_bytes(format)) {
    Numbers numbers;
    for (int k = 0; k < kStep; ++k) {
      const auto byte =
          first + k < columns ? static_cast<std::uint8_t>(from[first + k]) : std::uint8_t{0};
      all_numbers &= format != Format::kF8E4M3 || (byte & 0x7f) != 0x7f;
      numbers[static_cast<std::size_t>(k)] = byte ^ flip;
    }
    put_bytes(numbers, row, unit);
  }
  return all_numbers;
}

// GGUF's blocks of 32: a header of 2 or 4 bytes, then bytes, or nibbles of elements k and k + 16.
void pack_block_row(Format format, int columns, const std::byte* from, const RowPlace& row) {
  const std::size_t header = scale_bytes(format) / kPanelRows;
  std::byte* unit = row.values;
  std::byte* scales = row.scales;
  for (int first = 0; first < columns; first += kStep) {
    row.put(scales, from, header);
    Numbers numbers;
    for (std::size_t k = 0; k < kStep; ++k) {
      if (format == Format::kQ8_0) {
        numbers[k] = static_cast<std::uint8_t>(from[header + k]) ^ 0x80;
      } else {
        const auto byte = static_cast<std::uint8_t>(from[header + k % 16]);
        numbers[k] = k < 16 ? byte & 15 : byte >> 4;
      }
    }
    format == Format::kQ8_0 ? put_bytes(numbers, row, unit)
                            : put_nibbles(format, numbers, row, unit);
    from += traits(format).block_bytes;
    unit += panel_bytes(format);
    scales += scale_bytes(format);
  }
}

formats::Superblock read_superblock(Format format, const std::byte* block) {
  switch (format) {
    case Format::kQ4_K:
      return formats::Q4_K::read(block);
    case Format::kQ5_K:
      return formats::Q5_K::read(block);
    default:
      return formats::Q6_K::read(block);
  }
}

// Steps [first, last) of a superblock, which stands at `from`.
void pack_superblock(Format format, const formats::Superblock& block, int first, int last,
                     const RowPlace& row, std::byte* unit, std::byte* scales) {
  for (int step = first; step < last; ++step) {
    const auto part = static_cast<std::size_t>(step);
    Numbers numbers;
    for (std::size_t k = 0; k < kStep; ++k) {
      const int number = block.numbers[kStep * part + k];
      numbers[k] = static_cast<std::uint8_t>(format == Format::kQ6_K ? number + 32 : number);
    }
    put_nibbles(format, numbers, row, unit);
    if (format == Format::kQ6_K) {
      row.put(scales, &block.scales[2 * part], 2);
    } else {
      const std::uint8_t pair[2] = {static_cast<std::uint8_t>(block.scales[part]),
                                    block.minimums[part]};
      row.put(scales, pair, 2);
    }
    unit += panel_bytes(format);
    scales += scale_bytes(format);
  }
}

void pack_superblock_row(Format format, int columns, int first_column, const std::byte* from,
                         const RowPlace& row) {
  constexpr int kSteps = kSuperblock / kStep;
  const int first = first_column / kStep;
  const int last = first + columns / kStep;
  std::byte* factors = row.factors;
  for (int begin = 0; begin < last; begin += kSteps) {
    const formats::Superblock block = read_superblock(format, from);
    const std::uint16_t dm[2] = {block.d.bits, block.dmin.bits};
    row.put(factors, dm, factor_bytes(format) / kPanelRows);
    const int from_step = std::max(first, begin);
    const auto done = static_cast<std::size_t>(from_step - first);
    pack_superblock(format, block, from_step - begin, std::min(last - begin, kSteps), row,
                    row.values + done * panel_bytes(format),
                    row.scales + done * scale_bytes(format));
    from += traits(format).block_bytes;
    factors += factor_bytes(format);
  }
}

}  // namespace

std::size_t packed_bytes(Format format, int rows, int columns, int first_column) {
  if (is_plain(format)) return static_cast<std::size_t>(rows) * plain_stride(format, columns);
  return packed_parts(format, rows, columns, first_column).end;
}

bool pack_rows(Format format, int columns, int first_column, const MatrixPart& part, int first_row,
               int total_rows, std::byte* to) {
  const PackedParts parts = packed_parts(format, total_rows, columns, first_column);
  bool all_numbers = true;
  for (int n = 0; n < part.rows; ++n) {
    const std::byte* from = part.data + static_cast<std::size_t>(n) * part.row_stride;
    const auto at = static_cast<std::size_t>(first_row + n);
    if (is_plain(format)) {
      pack_plain_row(format, columns, from, to + at * plain_stride(format, columns));
      continue;
    }
    const RowPlace row(format, parts, first_row + n, to);
    if (is_superblock(format)) {
      pack_superblock_row(format, columns, first_column, from, row);
    } else if (is_block(format)) {
      pack_block_row(format, columns, from, row);
    } else {
      all_numbers &= pack_byte_row(format, columns, from, row);
      const float scale = part.row_scales != nullptr ? part.row_scales[n] : 1.0f;
      std::memcpy(to + parts.row_scales + at * sizeof(scale), &scale, sizeof(scale));
    }
  }
  return all_numbers;
}

ActivationLayout input_layout(Format format, bool float32) {
  return float32 || format == Format::kF32 ? ActivationLayout::kF32 : ActivationLayout::kBf16;
}

}  // namespace quire::cuda
