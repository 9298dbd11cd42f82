// How a client wants tokens picked. One struct, one validate(), used by every API and again by the
// worker edge, so no second entry path lacks the checks of the first.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"

namespace quire {

inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxChoices = 8;  // n
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopBytes = 256;  // of one stop string
inline constexpr int kMaxStopTokenIds = 64;

// Order of filters as in vLLM: temperature, min_p (relative to the largest probability), top_k,
// top_p (smallest set reaching the mass).
struct SamplingParams {
  float temperature = 1.0f;  // [0, 2]; below 1e-5 is greedy: larger logit, then lower id
  float top_p = 1.0f;        // (0, 1]
  int top_k = 0;             // 0 or -1 = off
  float min_p = 0.0f;        // [0, 1]
  std::uint64_t seed = 0;    // always set by the time a request is submitted
  int max_tokens = 16;       // >= 1; the API caps it by the context
  bool ignore_eos = false;
  int logprobs = -1;  // -1 = none; 0 = the sampled token's; k = and the k best, k <= 20
  std::vector<TokenId> stop_token_ids;

  bool greedy() const { return temperature < 1e-5f; }
};

// InvalidArgument naming the field (as "`field` ..."), its value and the allowed range.
absl::Status validate(const SamplingParams& params, int vocab);

}  // namespace quire
