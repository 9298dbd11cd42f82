// The one check of sampling parameters. Every comparison is written so that NaN fails it.
#include "common/sampling_params.h"

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

template <typename T>
absl::Status out_of_range(const char* field, T value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` is ", value, ", but must be ", allowed, "."));
}

absl::Status validate_stop_token_ids(const std::vector<TokenId>& ids, int vocab) {
  if (ids.size() > static_cast<std::size_t>(kMaxStopTokenIds)) {
    return absl::InvalidArgumentError(absl::StrCat("`stop_token_ids` has ", ids.size(),
                                                   " entries, but at most ", kMaxStopTokenIds,
                                                   " are allowed."));
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat("`stop_token_ids` entry ", i, " is ", ids[i],
                                                     ", but must be in [0, ", vocab - 1,
                                                     "], the ids of this model's vocabulary."));
    }
  }
  return absl::OkStatus();
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
  if (params.logprobs < -1 || params.logprobs > kMaxLogprobs) {
    return out_of_range("logprobs", params.logprobs,
                        absl::StrCat("in [0, ", kMaxLogprobs, "]").c_str());
  }
  return validate_stop_token_ids(params.stop_token_ids, vocab);
}

}  // namespace quire
