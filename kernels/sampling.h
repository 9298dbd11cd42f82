// Picking a token from a row of logits. Deterministic given (seed, sample_index, position): the
// generator is Philox4x32-10 (Salmon et al., SC'11), so nothing is saved across preemption.
#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "common/ids.h"
#include "common/step.h"

namespace quire {

// What changes the logit of one id.
struct LogitEntry {
  TokenId token = 0;
  float bias = 0.0f;        // -infinity: a ban
  std::int32_t count = -1;  // occurrences in the output; -1: neither there nor in the prompt
};

// What is done to a row of logits before a token is picked from it. In fp32, in this order:
//   not in `allowed`: x = -infinity
//   bias:             x = x + bias
//   count >= 0:       x = x > 0 ? x / repetition : x * repetition
//   count > 0:        x = x - frequency * count, then x = x - presence
// The filters, greedy picks and draws see the result; logprobs are of the logits as they were.
struct LogitAdjustment {
  absl::Span<const LogitEntry> entries;    // by ascending id, each id once
  const std::uint32_t* allowed = nullptr;  // bit id % 32 of word id / 32, up to V; null: all ids
  float repetition = 1.0f;
  float frequency = 0.0f;
  float presence = 0.0f;
};

constexpr std::size_t allowed_words(int vocab) {
  return (static_cast<std::size_t>(vocab) + 31) / 32;
}

// Adjusts a whole row.
void adjust_logits(const LogitAdjustment& adjustment, absl::Span<float> logits);

struct SampleRow {
  float temperature = 1.0f;  // < 1e-5: greedy
  float top_p = 1.0f;
  int top_k = 0;  // <= 0 = off
  float min_p = 0.0f;
  std::uint64_t seed = 0;
  std::uint32_t sample_index = 0;
  std::uint32_t position = 0;                   // of the token being picked
  int num_logprobs = -1;                        // -1 none, 0 the sampled one, k the k best as well
  const LogitAdjustment* adjustment = nullptr;  // null: none; lives as `rows` do
};

// Logits of B rows as the ranks hold them: piece p covers ids [piece_begin[p], piece_begin[p + 1])
// and row b of it starts at pieces[p] + b * piece_stride[p].
struct SampleArgs {
  int num_rows = 0;
  absl::Span<const SampleRow>
      rows;  // until the call returns where the device runs ahead, else wait()
  absl::Span<const float* const> pieces;
  absl::Span<const std::size_t> piece_strides;
  absl::Span<const TokenId> piece_begin;  // pieces + 1 entries, ends with V
  RowResult* results = nullptr;           // [B], filled in when wait() returns: token and logprobs
  TokenId* ids = nullptr;  // [B] in device memory: the picks, for ops that follow; or null
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
