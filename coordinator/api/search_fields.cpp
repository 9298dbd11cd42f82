// How many choices are made, and how: sampled side by side, the best of several, or by beam search.
// What a search cannot honour is refused by name.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/prepare_parts.h"

namespace quire {
namespace {

constexpr double kMaxLengthPenalty = 10.0;  // |penalty|; tokens ^ 10 is still a double

absl::Status needs_beams(const char* field) {
  return absl::InvalidArgumentError(absl::StrCat(
      "`", field, "` changes nothing without `use_beam_search`; set that, or leave it out."));
}

absl::Status contradicts_beams(const char* field, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` cannot be used with `use_beam_search`: ", why));
}

// Beams are ranked by the model's own probabilities: whatever would change these, or draw instead,
// contradicts them. A seed changes nothing and may stay.
absl::Status check_beam_sampling(const GenerationInput& input, const SamplingParams& params) {
  if (input.temperature.has_value() && *input.temperature != 0.0 && *input.temperature != 1.0) {
    return contradicts_beams("temperature", "no token is drawn; send 0 or 1, or leave it out.");
  }
  const std::pair<const char*, bool> drawing[] = {{"top_p", params.top_p != 1.0f},
                                                  {"top_k", params.top_k > 0},
                                                  {"min_p", params.min_p != 0.0f}};
  for (const auto& [field, used] : drawing) {
    if (used) return contradicts_beams(field, "no token is drawn; leave it out.");
  }
  const std::pair<const char*, bool> changing[] = {
      {"presence_penalty", params.presence_penalty != 0.0f},
      {"frequency_penalty", params.frequency_penalty != 0.0f},
      {"repetition_penalty", params.repetition_penalty != 1.0f},
      {"logit_bias", !params.logit_bias.empty()},
      {"min_tokens", params.min_tokens > 0},
      {"allowed_token_ids", !params.allowed_token_ids.empty()}};
  for (const auto& [field, used] : changing) {
    if (used) {
      return contradicts_beams(field,
                               "beams are ranked by the model's own logprobs; leave it out.");
    }
  }
  if (params.logprobs > 0) {
    return contradicts_beams("logprobs", "only those of the beams' own tokens are kept; send 0.");
  }
  if (input.stop.empty()) return absl::OkStatus();
  return contradicts_beams("stop", "beams are token ids until they end; use `stop_token_ids`.");
}

absl::Status set_beams(const EngineConfig& config, const GenerationInput& input, Request& request) {
  const std::int64_t width = std::max(input.n, input.best_of.value_or(input.n));
  const char* width_field = input.best_of.value_or(input.n) > input.n ? "best_of" : "n";
  const int together = std::min(config.max_num_seqs, config.max_num_batched_tokens);
  const int most = std::min(kMaxBeamWidth, together);
  if (width > most) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`", width_field, "` is ", width,
        "; with `use_beam_search` it is the number of beams, and ", "at most ", most, " can run",
        most < kMaxBeamWidth ? " on this server (--max-num-seqs, --max-num-batched-tokens)."
                             : "."));
  }
  const double penalty = input.length_penalty.value_or(1.0);
  if (!(std::fabs(penalty) <= kMaxLengthPenalty)) {
    return absl::InvalidArgumentError(absl::StrCat("`length_penalty` is ", penalty,
                                                   "; it must be in [", -kMaxLengthPenalty, ", ",
                                                   kMaxLengthPenalty, "]."));
  }
  QUIRE_RETURN_IF_ERROR(check_beam_sampling(input, request.params));
  request.params.temperature = 0.0f;
  request.beams = {.width = static_cast<int>(width),
                   .length_penalty = penalty,
                   .early_stopping = input.early_stopping.value_or(BeamParams::EarlyStopping::kNo)};
  return absl::OkStatus();
}

}  // namespace

absl::Status set_search(const EngineConfig& config, const GenerationInput& input, Prepared& out) {
  Request& request = out.request;
  request.n = static_cast<int>(input.n);
  out.num_returned = request.n;
  const std::int64_t best_of = input.best_of.value_or(input.n);
  QUIRE_RETURN_IF_ERROR(check_range("best_of", best_of, input.n, kMaxChoices));
  if (input.use_beam_search) return set_beams(config, input, request);
  if (input.length_penalty.value_or(1.0) != 1.0) return needs_beams("length_penalty");
  if (input.early_stopping.value_or(BeamParams::EarlyStopping::kNo) !=
      BeamParams::EarlyStopping::kNo) {
    return needs_beams("early_stopping");
  }
  if (best_of == input.n) return absl::OkStatus();
  if (input.stream) {
    return absl::InvalidArgumentError(
        absl::StrCat("`best_of` is ", best_of, " and `n` is ", input.n,
                     ", which cannot be streamed: the best are known at the end only. Leave out "
                     "`stream`, or make them equal."));
  }
  request.n = static_cast<int>(best_of);
  out.hide_logprobs = request.params.logprobs < 0;
  request.params.logprobs = std::max(request.params.logprobs, 0);
  return absl::OkStatus();
}

}  // namespace quire
