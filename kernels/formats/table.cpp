// The table of formats, in the order of enum Format; its block sizes are checked against
// common/format.h when this file is compiled.
#include "kernels/formats/table.h"

#include "common/check.h"
#include "kernels/formats/bf16.h"
#include "kernels/formats/f16.h"
#include "kernels/formats/f32.h"
#include "kernels/formats/q4_0.h"
#include "kernels/formats/q4_1.h"
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
    codec<F32, Format::kF32>(),   codec<F16, Format::kF16>(),   codec<BFloat16, Format::kBf16>(),
    codec<Q8_0, Format::kQ8_0>(), codec<Q4_0, Format::kQ4_0>(), codec<Q4_1, Format::kQ4_1>(),
};

const Codec& codec_of(Format format, int columns) {
  QUIRE_CHECK_EQ(columns % traits(format).block, 0);
  return kCodecs[static_cast<std::size_t>(format)];
}

}  // namespace

void decode_row(Format format, const std::byte* row, int columns, float* out) {
  codec_of(format, columns).decode(row, columns, out);
}

void encode_row(Format format, const float* x, int columns, std::byte* row) {
  codec_of(format, columns).encode(x, columns, row);
}

}  // namespace quire::formats
