// q4_z and q4_K keep their nibbles and i8 its bytes; the rest is decoded and quantized again.
#include "kernels/cpu/transcode.h"

#include <cstring>
#include <vector>

#include "common/check.h"
#include "kernels/formats/half.h"
#include "kernels/formats/q4_k.h"
#include "kernels/formats/table.h"

namespace quire::cpu {
namespace {

constexpr int kBlock = 32;
constexpr int kQ4_1Bytes = 20;  // f16 d, f16 m, nibbles
constexpr int kQ8_0Bytes = 34;  // f16 d, bytes

// d * (q - z) = d * q + m.
void from_q4_z(const std::byte* block, std::byte* out) {
  std::memcpy(out, block, kQ4_1Bytes);
  store_half(out + 2, -load_half(block) * load_half(block + 2));
}

// Part `part` of a superblock.
void from_q4_k(const formats::Superblock& s, std::size_t part, std::byte* out) {
  store_half(out, to_float(s.d) * static_cast<float>(s.scales[part]));
  store_half(out + 2, -to_float(s.dmin) * static_cast<float>(s.minimums[part]));
  const std::int8_t* numbers = s.numbers.data() + kBlock * part;
  for (int i = 0; i < 16; ++i) {
    out[4 + i] = static_cast<std::byte>(numbers[i] | numbers[i + 16] << 4);
  }
}

void from_q4_k_row(const std::byte* row, int first_column, int columns, std::byte* out) {
  const int first = first_column / kBlock;
  formats::Superblock block;
  for (int part = first; part < first + columns / kBlock; ++part, out += kQ4_1Bytes) {
    const int in_block = part % formats::Superblock::kParts;
    if (part == first || in_block == 0) {
      block = formats::Q4_K::read(row + part / formats::Superblock::kParts * formats::Q4_K::kBytes);
    }
    from_q4_k(block, static_cast<std::size_t>(in_block), out);
  }
}

void from_i8_row(const std::byte* row, float scale, int columns, std::byte* out) {
  for (int k = 0; k < columns; k += kBlock, out += kQ8_0Bytes) {
    store_half(out, scale);
    std::memcpy(out + 2, row + k, kBlock);
  }
}

}  // namespace

Format panel_format(Format format) {
  switch (format) {
    case Format::kQ4_Z:
    case Format::kQ4_K:
      return Format::kQ4_1;
    case Format::kQ5_K:
    case Format::kQ6_K:
    case Format::kI8:
      return Format::kQ8_0;
    case Format::kF8E4M3:
      return Format::kBf16;
    default:
      return format;
  }
}

void transcode_row(const MatrixSource& source, const MatrixPart& part, int n, std::byte* out) {
  const std::byte* row = part.data + static_cast<std::size_t>(n) * part.row_stride;
  const float scale = part.row_scales != nullptr ? part.row_scales[n] : 1.0f;
  const int columns = source.columns;
  if (source.format == Format::kQ4_Z) {
    for (int k = 0; k < columns; k += kBlock, row += kQ4_1Bytes, out += kQ4_1Bytes) {
      from_q4_z(row, out);
    }
  } else if (source.format == Format::kQ4_K) {
    from_q4_k_row(row, source.first_column, columns, out);
  } else if (source.format == Format::kI8) {
    from_i8_row(row, scale, columns, out);
  } else {
    std::vector<float> values(static_cast<std::size_t>(columns));
    formats::decode_columns(source.format, row, source.first_column, columns, values.data());
    for (float& value : values) value *= scale;
    formats::encode_row(panel_format(source.format), values.data(), columns, out);
  }
}

}  // namespace quire::cpu
