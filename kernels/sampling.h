// Picking a token from a row of logits. Deterministic given (seed, sample_index, position): the
// generator is Philox4x32-10 (Salmon et al., SC'11), so nothing is saved across preemption.
#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"

namespace quire {

struct SampleRow {
  float temperature = 1.0f;  // < 1e-5: greedy
  float top_p = 1.0f;
  int top_k = 0;  // <= 0 = off
  float min_p = 0.0f;
  std::uint64_t seed = 0;
  std::uint32_t sample_index = 0;
  std::uint32_t position = 0;  // of the token being picked
  int num_logprobs = -1;       // -1 none, 0 the sampled one, k the k best as well
};

// Logits of B rows as the ranks hold them: piece p covers ids [piece_begin[p], piece_begin[p + 1])
// and row b of it starts at pieces[p] + b * piece_stride[p].
struct SampleArgs {
  int num_rows = 0;
  absl::Span<const SampleRow> rows;  // must outlive wait()
  absl::Span<const float* const> pieces;
  absl::Span<const std::size_t> piece_strides;
  absl::Span<const TokenId> piece_begin;  // pieces + 1 entries, ends with V
  RowResult* results = nullptr;           // [B]; token and logprobs are filled in
};

// Purposes keep the draws of one position apart.
enum class DrawPurpose : std::uint32_t { kSample = 0 };

// One block of the generator: four random words per (counter, key).
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// Uniform in [0, 1) with 24 random bits.
float philox_uniform(std::uint64_t seed, std::uint32_t sample_index, std::uint32_t position,
                     DrawPurpose purpose);

}  // namespace quire
