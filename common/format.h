// How a matrix is stored in a checkpoint. kernels/formats has the decoder of each row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire {

enum class Format : std::uint8_t { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1 };

struct FormatTraits {
  const char* name;
  int block;  // consecutive elements of a row stored together
  int block_bytes;
};

// Block layouts are those of GGUF: q8_0 = f16 d, 32 x i8; q4_0 = f16 d, 16 bytes (low nibbles are
// elements 0..15, high nibbles 16..31), value d * (q - 8); q4_1 = f16 d, f16 m, 16 bytes, d * q +
// m.
inline constexpr FormatTraits kFormatTraits[] = {
    {"f32", 1, 4},    {"f16", 1, 2},    {"bf16", 1, 2},
    {"q8_0", 32, 34}, {"q4_0", 32, 18}, {"q4_1", 32, 20},
};

constexpr const FormatTraits& traits(Format format) {
  return kFormatTraits[static_cast<std::size_t>(format)];
}

// Bytes of one row of `columns` elements; columns is a multiple of the block.
constexpr std::size_t row_bytes(Format format, std::int64_t columns) {
  return static_cast<std::size_t>(columns / traits(format).block * traits(format).block_bytes);
}

}  // namespace quire
