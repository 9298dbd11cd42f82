// How a client wants tokens picked. One struct, one validate(), used by every API and again by the
// worker edge, so no second entry path lacks the checks of the first.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"

namespace quire {

inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxChoices = 64;  // n and best_of
inline constexpr int kMaxBeamWidth = 16;
inline constexpr int kMaxRowLogprobs = 2 * kMaxBeamWidth;  // best ids of one pick: what beams need
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopBytes = 256;  // of one stop string
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxAllowedTokenIds = 8192;
inline constexpr int kMaxLogitBiases = 300;
inline constexpr float kMinRepetitionPenalty = 0.01f;  // keeps a penalized logit finite
inline constexpr float kMaxRepetitionPenalty = 100.0f;

struct LogitBias {
  TokenId token = 0;
  float bias = 0.0f;  // [-100, 100], added to the logit
  friend bool operator==(const LogitBias& a, const LogitBias& b) {
    return a.token == b.token && a.bias == b.bias;
  }
};

// What changes logits, in this order as in vLLM (kernels/sampling.h has the arithmetic): allowed
// ids, biases and the ban before min_tokens, penalties. Then the filters: temperature, min_p
// (relative to the largest probability), top_k, top_p (smallest set reaching the mass).
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
  float presence_penalty = 0.0f;           // [-2, 2], once per id of the output
  float frequency_penalty = 0.0f;          // [-2, 2], per occurrence in the output
  float repetition_penalty = 1.0f;         // [0.01, 100], for ids of prompt and output
  int min_tokens = 0;                      // before so many, nothing that ends the answer is picked
  std::vector<LogitBias> logit_bias;       // each id once
  std::vector<TokenId> allowed_token_ids;  // empty: all
  // Above 0: the coordinator chooses the tokens (beam search) and sends them with the plan; what is
  // picked is not kept, and logprobs may go up to kMaxRowLogprobs. Never set by clients.
  int beam_width = 0;

  bool penalizes() const {
    return presence_penalty != 0.0f || frequency_penalty != 0.0f || repetition_penalty != 1.0f;
  }
  bool adjusts_logits() const {
    return penalizes() || min_tokens > 0 || !logit_bias.empty() || !allowed_token_ids.empty();
  }
  bool greedy() const { return temperature < 1e-5f; }
};

// InvalidArgument naming the field (as "`field` ..."), its value and the allowed range.
absl::Status validate(const SamplingParams& params, int vocab);

}  // namespace quire
