// Activations of kQ8 layout on the CPU: for each token row, K int8, then K/32 float scales, then
// K/32 int32 sums of the int8s; each of the three starts on a 64-byte boundary of the row.
// Quantization: q = round-to-nearest-even(x * (1 / scale)), by blocks of 32 from the start of the
// local row, into [-113, 127]: 241 numbers, so that one of 4 bits can be added in a byte
// (linear_pairs.h). The sign of the scale makes the largest of a block positive: scale =
// +-max(largest / 127, largest of the other sign / 113). K that is not a multiple of 32 is
// zero-padded to one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace quire::cpu {

struct Q8Row {
  std::int8_t* values = nullptr;  // [K padded to 64]
  float* scales = nullptr;        // [K / 32]
  std::int32_t* sums = nullptr;   // [K / 32]
};

inline constexpr int kLargestQ8 = 127;
inline constexpr int kSmallestQ8 = -113;

constexpr std::size_t align64(std::size_t bytes) {
  return (bytes + 63) & ~std::size_t{63};
}
constexpr int num_blocks32(int columns) {
  return (columns + 31) / 32;
}

// Bytes from one token row to the next; rows are 64-byte aligned in every layout, tails are zero.
constexpr std::size_t activation_stride(ActivationLayout layout, int columns) {
  const std::size_t k = static_cast<std::size_t>(columns);
  switch (layout) {
    case ActivationLayout::kF32:
      return align64(k * 4);
    case ActivationLayout::kBf16:
      return align64(k * 2);
    case ActivationLayout::kQ8:
      return align64(k) + 2 * align64(static_cast<std::size_t>(num_blocks32(columns)) * 4);
  }
  return 0;
}

inline Q8Row q8_row(const Activation& a, int row) {
  auto* base = static_cast<std::byte*>(a.data) +
               static_cast<std::size_t>(row) * activation_stride(a.layout, a.columns);
  auto* scales = base + align64(static_cast<std::size_t>(a.columns));
  auto* sums = scales + align64(static_cast<std::size_t>(num_blocks32(a.columns)) * 4);
  return {reinterpret_cast<std::int8_t*>(base), reinterpret_cast<float*>(scales),
          reinterpret_cast<std::int32_t*>(sums)};
}

// Converts one fp32 row of `columns` values to row `row` of `out`, in its layout.
using StoreRowFn = void (*)(const float* x, const Activation& out, int row);

}  // namespace quire::cpu
