// Samples over the emulation, and holds what comes out against the reference.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/sample/sample.h"
#include "kernels/sampling.h"

namespace quire::test {

cuda::SampleWish wish_of(const SampleRow& row);

struct Way {
  std::vector<TokenId> begins = {};  // of pieces; empty: one
  int shift = 0;                     // of the logits' address, in floats
  bool may_filter = true;
  bool stride = true;  // false: all rows share the first row's logits
  int spare = 0;       // adjustments, entries and masks beyond what the rows need
};

// Samples row b from logits[b]; with way.stride false all from logits[0].
std::vector<cuda::SampledRow> cuda_sample(const std::vector<std::vector<float>>& logits,
                                          const std::vector<SampleRow>& rows, const Way& way = {});
// All rows from the same logits.
std::vector<cuda::SampledRow> cuda_sample(const std::vector<float>& logits,
                                          const std::vector<SampleRow>& rows, Way way = {});

std::string describe(const SampleRow& row);

// The reference's token, its logprobs up to rounding.
void expect_like_reference(const std::vector<float>& logits, const SampleRow& row,
                           const cuda::SampledRow& got);
void expect_all_like_reference(const std::vector<float>& logits, const std::vector<SampleRow>& rows,
                               const Way& way = {});
void expect_same(const cuda::SampledRow& a, const cuda::SampledRow& b);  // every bit

// Rows with all kinds of parameters.
std::vector<SampleRow> assorted_rows(int count, std::uint32_t seed);

}  // namespace quire::test
