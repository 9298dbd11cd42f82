// The table of formats, in the order of enum Format; its block sizes are checked against
// common/format.h when this file is compiled.
#include "kernels/formats/table.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/formats/bf16.h"
#include "kernels/formats/f16.h"
#include "kernels/formats/f32.h"
#include "kernels/formats/f8_e4m3.h"
#include "kernels/formats/i8.h"
#include "kernels/formats/q4_0.h"
#include "kernels/formats/q4_1.h"
#include "kernels/formats/q4_k.h"
#include "kernels/formats/q4_z.h"
#include "kernels/formats/q5_k.h"
#include "kernels/formats/q6_k.h"
#include "kernels/formats/q8_0.h"

namespace quire::formats {
namespace {

struct Codec {
  void (*decode)(const std::byte*, int columns, float*);
  void (*encode)(const float*, int columns, std::byte*);
};

template <class F>
void decode_blocks(const std::byte* row, int columns, float* out) {
  for (int i = 0; i < columns; i += F::kBlock, row += F::kBytes) F::decode(row, out + i);
}

template <class F>
void encode_blocks(const float* x, int columns, std::byte* row) {
  for (int i = 0; i < columns; i += F::kBlock, row += F::kBytes) F::encode(x + i, row);
}

template <class F, Format format>
constexpr Codec codec() {
  static_assert(F::kBlock == traits(format).block && F::kBytes == traits(format).block_bytes);
  return {&decode_blocks<F>, &encode_blocks<F>};
}

constexpr Codec kCodecs[] = {
    codec<F32, Format::kF32>(),       codec<F16, Format::kF16>(),
    codec<BFloat16, Format::kBf16>(), codec<Q8_0, Format::kQ8_0>(),
    codec<Q4_0, Format::kQ4_0>(),     codec<Q4_1, Format::kQ4_1>(),
    codec<F8E4M3, Format::kF8E4M3>(), codec<I8, Format::kI8>(),
    codec<Q4_Z, Format::kQ4_Z>(),     codec<Q4_K, Format::kQ4_K>(),
    codec<Q5_K, Format::kQ5_K>(),     codec<Q6_K, Format::kQ6_K>(),
};

const Codec& codec_of(Format format, int columns) {
  QUIRE_CHECK_EQ(columns % traits(format).block, 0);
  return kCodecs[static_cast<std::size_t>(format)];
}

}  // namespace

void decode_row(Format format, const std::byte* row, int columns, float* out) {
  codec_of(format, columns).decode(row, columns, out);
}

void decode_columns(Format format, const std::byte* row, int first_column, int columns,
                    float* out) {
  const FormatTraits& stored = traits(format);
  row += row_bytes(format, first_column);
  int skipped = first_column % stored.block;
  if (skipped == 0 && columns % stored.block == 0) return decode_row(format, row, columns, out);
  QUIRE_CHECK_EQ(skipped % stored.cut, 0);
  QUIRE_CHECK_EQ(columns % stored.cut, 0);
  float block[Superblock::kColumns];  // the only blocks that are cut
  for (; columns > 0; row += stored.block_bytes, skipped = 0) {
    const int count = std::min(columns, stored.block - skipped);
    decode_row(format, row, stored.block, block);
    out = std::copy_n(block + skipped, count, out);
    columns -= count;
  }
}

void encode_row(Format format, const float* x, int columns, std::byte* row) {
  codec_of(format, columns).encode(x, columns, row);
}

}  // namespace quire::formats
