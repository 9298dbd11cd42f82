// The one check of sampling parameters. Every comparison is written so that NaN fails it.
#include "common/sampling_params.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire {
namespace {

template <typename T>
absl::Status out_of_range(const char* field, T value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` is ", value, ", but must be ", allowed, "."));
}

absl::Status check_count(const char* field, std::size_t count, int most) {
  if (count <= static_cast<std::size_t>(most)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` has ", count, " entries, but at most ", most, " are allowed."));
}

absl::Status check_id(const char* field, std::size_t entry, TokenId id, int vocab) {
  if (id >= 0 && id < vocab) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("`", field, "` entry ", entry, " is ", id,
                                                 ", but must be in [0, ", vocab - 1,
                                                 "], the ids of this model's vocabulary."));
}

absl::Status validate_ids(const char* field, const std::vector<TokenId>& ids, int most, int vocab) {
  QUIRE_RETURN_IF_ERROR(check_count(field, ids.size(), most));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    QUIRE_RETURN_IF_ERROR(check_id(field, i, ids[i], vocab));
  }
  return absl::OkStatus();
}

absl::Status validate_biases(const std::vector<LogitBias>& biases, int vocab) {
  QUIRE_RETURN_IF_ERROR(check_count("logit_bias", biases.size(), kMaxLogitBiases));
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < biases.size(); ++i) {
    QUIRE_RETURN_IF_ERROR(check_id("logit_bias", i, biases[i].token, vocab));
    if (!(biases[i].bias >= -100.0f && biases[i].bias <= 100.0f)) {
      return absl::InvalidArgumentError(absl::StrCat("`logit_bias` of id ", biases[i].token, " is ",
                                                     biases[i].bias,
                                                     ", but must be in [-100, 100]."));
    }
    ids.push_back(biases[i].token);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice == ids.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("`logit_bias` names id ", *twice, " twice."));
}

absl::Status validate_adjustments(const SamplingParams& params, int vocab) {
  if (!(params.presence_penalty >= -2.0f && params.presence_penalty <= 2.0f)) {
    return out_of_range("presence_penalty", params.presence_penalty, "in [-2, 2]");
  }
  if (!(params.frequency_penalty >= -2.0f && params.frequency_penalty <= 2.0f)) {
    return out_of_range("frequency_penalty", params.frequency_penalty, "in [-2, 2]");
  }
  if (!(params.repetition_penalty >= kMinRepetitionPenalty &&
        params.repetition_penalty <= kMaxRepetitionPenalty)) {
    return out_of_range("repetition_penalty", params.repetition_penalty, "in [0.01, 100]");
  }
  if (params.min_tokens < 0) return out_of_range("min_tokens", params.min_tokens, "at least 0");
  QUIRE_RETURN_IF_ERROR(validate_biases(params.logit_bias, vocab));
  return validate_ids("allowed_token_ids", params.allowed_token_ids,
                      std::min(vocab, kMaxAllowedTokenIds), vocab);
}

}  // namespace

absl::Status validate(const SamplingParams& params, int vocab) {
  if (!(params.temperature >= 0.0f && params.temperature <= 2.0f)) {
    return out_of_range("temperature", params.temperature, "in [0, 2]");
  }
  if (!(params.top_p > 0.0f && params.top_p <= 1.0f)) {
    return out_of_range("top_p", params.top_p, "in (0, 1]");
  }
  if (params.top_k < -1) {
    return out_of_range("top_k", params.top_k, "at least 1, or 0 or -1 to switch it off");
  }
  if (!(params.min_p >= 0.0f && params.min_p <= 1.0f)) {
    return out_of_range("min_p", params.min_p, "in [0, 1]");
  }
  if (params.max_tokens < 1) {
    return out_of_range("max_tokens", params.max_tokens, "at least 1");
  }
  if (params.beam_width < 0 || params.beam_width > kMaxBeamWidth) {
    return out_of_range("beam_width", params.beam_width,
                        absl::StrCat("in [0, ", kMaxBeamWidth, "]").c_str());
  }
  const int most = params.beam_width > 0 ? kMaxRowLogprobs : kMaxLogprobs;
  if (params.logprobs < -1 || params.logprobs > most) {
    return out_of_range("logprobs", params.logprobs, absl::StrCat("in [0, ", most, "]").c_str());
  }
  QUIRE_RETURN_IF_ERROR(
      validate_ids("stop_token_ids", params.stop_token_ids, kMaxStopTokenIds, vocab));
  return validate_adjustments(params, vocab);
}

}  // namespace quire
