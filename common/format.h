// How a matrix is stored in a checkpoint. kernels/formats has the decoder of each row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire {

enum class Format : std::uint8_t {
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kF8E4M3,
  kI8,
  kQ4_Z,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

struct FormatTraits {
  const char* name;
  int block;  // consecutive elements of a row stored together
  int block_bytes;
  int cut;  // columns at whose multiples a row may be cut: the block, or a part of a superblock
};

// Block layouts are those of GGUF: q8_0 = f16 d, 32 x i8; q4_0 = f16 d, 16 bytes (low nibbles are
// elements 0..15, high nibbles 16..31), value d * (q - 8); q4_1 = f16 d, f16 m, 16 bytes, d * q +
// m; q4_K, q5_K, q6_K = superblocks of 256, see kernels/formats. q4_z is our own: q4_1 with a whole
// number z in 0..16 for m, value d * (q - z); AWQ and GPTQ become it when they are loaded. f8_e4m3
// (fn: no infinities) and i8 are elements that a factor of their row multiplies
// (MatrixPart::row_scales).
inline constexpr FormatTraits kFormatTraits[] = {
    {"f32", 1, 4, 1},     {"f16", 1, 2, 1},       {"bf16", 1, 2, 1},      {"q8_0", 32, 34, 32},
    {"q4_0", 32, 18, 32}, {"q4_1", 32, 20, 32},   {"f8_e4m3", 1, 1, 1},   {"i8", 1, 1, 1},
    {"q4_z", 32, 20, 32}, {"q4_K", 256, 144, 32}, {"q5_K", 256, 176, 32}, {"q6_K", 256, 210, 32},
};

constexpr const FormatTraits& traits(Format format) {
  return kFormatTraits[static_cast<std::size_t>(format)];
}

// Whether a factor of each row belongs to the elements.
constexpr bool has_row_scales(Format format) {
  return format == Format::kF8E4M3 || format == Format::kI8;
}

// Bytes from the start of a row to the block that holds column `columns`; of a whole row, its size.
constexpr std::size_t row_bytes(Format format, std::int64_t columns) {
  return static_cast<std::size_t>(columns / traits(format).block * traits(format).block_bytes);
}

// Bytes of the blocks that hold columns [begin, end), headers of blocks cut in two included.
constexpr std::size_t span_bytes(Format format, std::int64_t begin, std::int64_t end) {
  const std::int64_t block = traits(format).block;
  return row_bytes(format, (end + block - 1) / block * block) - row_bytes(format, begin);
}

}  // namespace quire
