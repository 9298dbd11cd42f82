// What cuBLASLt's algorithms are kept by: see lt_table.h.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/linear/job.h"

namespace quire::cuda {

// A product as the heuristics see it. Tokens count in buckets (powers of two), so a table is small
// and neighbouring batch sizes run one algorithm.
struct LtShape {
  Format format = Format::kBf16;  // of the weights
  int bucket = 0;                 // tokens, rounded up
  int rows = 0;                   // N
  int columns = 0;                // K of the output
  std::int64_t weight_stride = 0;
  std::int64_t out_stride = 0;
  bool has_bias = false;
  std::uint32_t weight_alignment = 0;  // bytes, 16 to 256
  std::uint32_t input_alignment = 0;
  std::uint32_t out_alignment = 0;  // 4 to 256

  auto operator<=>(const LtShape&) const = default;
};

// The power of two that holds `tokens`, at least 32.
int lt_bucket(int tokens);
LtShape lt_shape(Format format, const LinearJob& job, int output);

}  // namespace quire::cuda
