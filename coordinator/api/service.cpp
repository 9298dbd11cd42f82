// Checks and conversions shared by both APIs; the rules are in service.h.
#include "coordinator/api/service.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status.h"
#include "coordinator/api/prepare_parts.h"

namespace quire {
namespace {

// The default conversion of an out-of-range double is undefined; this one saturates to infinity,
// which validate() then refuses by name.
float to_float(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  if (value > kMax) return std::numeric_limits<float>::infinity();
  if (value < -kMax) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(value);
}

int saturate(std::int64_t value) {
  return static_cast<int>(std::clamp<std::int64_t>(value, std::numeric_limits<int>::min(),
                                                   std::numeric_limits<int>::max()));
}

std::vector<TokenId> saturate(const std::vector<std::int64_t>& ids) {
  std::vector<TokenId> out;
  out.reserve(ids.size());
  for (const std::int64_t id : ids) out.push_back(saturate(id));
  return out;
}

absl::Status check_stop(const std::vector<std::string>& stop) {
  if (stop.size() > static_cast<std::size_t>(kMaxStopStrings)) {
    return absl::InvalidArgumentError(absl::StrCat("`stop` has ", stop.size(), " strings; at most ",
                                                   kMaxStopStrings, " are allowed."));
  }
  for (std::size_t i = 0; i < stop.size(); ++i) {
    if (stop[i].empty() || stop[i].size() > static_cast<std::size_t>(kMaxStopBytes)) {
      return absl::InvalidArgumentError(absl::StrCat("`stop` string ", i, " has ", stop[i].size(),
                                                     " bytes; it must have 1 to ", kMaxStopBytes,
                                                     "."));
    }
  }
  return absl::OkStatus();
}

// What the context (and a KV cache smaller than it) leaves for an answer whose length the client
// did not limit. At least 1: what does not fit at all is refused by the engine, with numbers.
int default_max_tokens(const Api& api, const GenerationInput& input, std::int64_t room,
                       std::size_t prompt_tokens) {
  const std::int64_t total_blocks = api.engine->stats().total_blocks;
  if (total_blocks <= 0) return static_cast<int>(room);  // no group yet
  const auto prompt = static_cast<std::int64_t>(prompt_tokens);
  // Beams share the prompt's full blocks and divide the others, each with one to spare.
  const std::int64_t shared = std::min(prompt / api.config->block_size, total_blocks);
  const std::int64_t beams =
      input.use_beam_search
          ? std::clamp<std::int64_t>(input.best_of.value_or(input.n), input.n, kMaxChoices)
          : 1;
  const std::int64_t spare = input.use_beam_search ? 1 : 0;
  const std::int64_t blocks = shared + (total_blocks - shared) / beams - spare;
  return static_cast<int>(
      std::clamp<std::int64_t>(blocks * api.config->block_size - prompt, 1, room));
}

// The client's own wish, checked, or the default.
absl::StatusOr<int> resolve_max_tokens(const Api& api, std::size_t prompt_tokens,
                                       const GenerationInput& input) {
  const auto context = static_cast<std::size_t>(api.model->max_model_len);
  if (prompt_tokens == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", input.prompt_name, "` is empty; it must hold at least one token."));
  }
  if (prompt_tokens >= context) {
    return absl::OutOfRangeError(absl::StrCat("`", input.prompt_name, "` has ", prompt_tokens,
                                              " tokens, but the model's context is ", context,
                                              " tokens, the answer included; shorten the prompt."));
  }
  const auto room = static_cast<std::int64_t>(context - prompt_tokens);
  if (!input.max_tokens.has_value()) return default_max_tokens(api, input, room, prompt_tokens);
  const std::int64_t wish = *input.max_tokens;
  if (wish < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", input.max_tokens_name, "` is ", wish, "; it must be at least 1."));
  }
  if (wish > room) {
    return absl::OutOfRangeError(
        absl::StrCat("`", input.max_tokens_name, "` is ", wish, " and the prompt has ",
                     prompt_tokens, " tokens; together they exceed the model's context of ",
                     context, " tokens. At most ", room, " are left for the answer."));
  }
  return static_cast<int>(wish);
}

std::uint64_t random_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

std::uint64_t resolve_seed(const EngineConfig& config, const GenerationInput& input) {
  if (input.seed.has_value()) return *input.seed;
  return config.seed != 0 ? config.seed : random_seed();
}

// What changes logits; checked by validate().
void set_adjustments(const GenerationInput& input, SamplingParams& params) {
  if (input.presence_penalty) params.presence_penalty = to_float(*input.presence_penalty);
  if (input.frequency_penalty) params.frequency_penalty = to_float(*input.frequency_penalty);
  if (input.repetition_penalty) params.repetition_penalty = to_float(*input.repetition_penalty);
  if (input.min_tokens) params.min_tokens = saturate(*input.min_tokens);
  for (const auto& [id, bias] : input.logit_bias) {
    params.logit_bias.push_back({saturate(id), to_float(bias)});
  }
  if (input.allowed_token_ids) params.allowed_token_ids = saturate(*input.allowed_token_ids);
}

// What validate() cannot see: whether any id is left to be picked.
absl::Status check_adjustments(const GenerationInput& input, const SamplingParams& params,
                               const ModelSpec& spec) {
  if (params.min_tokens > params.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("`min_tokens` is ", params.min_tokens, ", but the answer has at most ",
                     params.max_tokens, " tokens (`", input.max_tokens_name, "`)."));
  }
  if (!input.allowed_token_ids) return absl::OkStatus();
  if (params.allowed_token_ids.empty()) {
    return absl::InvalidArgumentError(
        "`allowed_token_ids` is an empty list; name at least one id, or leave the field out.");
  }
  const auto ends = [&](TokenId id) {
    const auto in = [id](const std::vector<TokenId>& ids) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    return (!params.ignore_eos && in(spec.eos)) || in(params.stop_token_ids);
  };
  const auto& allowed = params.allowed_token_ids;
  if (params.min_tokens == 0 || !std::all_of(allowed.begin(), allowed.end(), ends)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "`allowed_token_ids` names only ids that end the answer, which `min_tokens` forbids at "
      "first; allow another id, or leave `min_tokens` out.");
}

}  // namespace

absl::Status check_range(const char* field, std::int64_t value, std::int64_t low,
                         std::int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` is ", value, "; it must be in [", low, ", ", high, "]."));
}

absl::StatusOr<Prepared> prepare(const Api& api, std::vector<TokenId> prompt,
                                 const GenerationInput& input) {
  QUIRE_RETURN_IF_ERROR(check_range("n", input.n, 1, kMaxChoices));
  if (input.logprobs.has_value()) {
    QUIRE_RETURN_IF_ERROR(check_range("logprobs", *input.logprobs, 0, kMaxLogprobs));
  }
  QUIRE_RETURN_IF_ERROR(check_stop(input.stop));
  if (!input.stop.empty() && !api.model->text.tokenizer->has_text()) {
    return absl::InvalidArgumentError(
        "`stop` cannot be used: the server runs without a tokenizer (--skip-tokenizer-init); use "
        "stop_token_ids.");
  }

  Prepared out;
  SamplingParams& params = out.request.params;
  QUIRE_ASSIGN_OR_RETURN(params.max_tokens, resolve_max_tokens(api, prompt.size(), input));
  if (input.temperature.has_value()) params.temperature = to_float(*input.temperature);
  if (input.top_p.has_value()) params.top_p = to_float(*input.top_p);
  if (input.min_p.has_value()) params.min_p = to_float(*input.min_p);
  if (input.top_k.has_value()) params.top_k = saturate(*input.top_k);
  if (input.logprobs.has_value()) params.logprobs = saturate(*input.logprobs);
  params.seed = resolve_seed(*api.config, input);
  params.ignore_eos = input.ignore_eos;
  params.stop_token_ids = saturate(input.stop_token_ids);
  set_adjustments(input, params);
  QUIRE_RETURN_IF_ERROR(validate(params, api.model->spec.vocab));
  QUIRE_RETURN_IF_ERROR(check_adjustments(input, params, api.model->spec));

  QUIRE_RETURN_IF_ERROR(set_search(*api.config, input, out));
  QUIRE_RETURN_IF_ERROR(set_queueing(*api.config, input, out.request));
  out.request.prompt = std::move(prompt);
  out.text = {input.stop, input.include_stop, input.skip_special, params.min_tokens};
  return out;
}

absl::StatusOr<std::vector<TokenId>> check_prompt_ids(const ServedModel& model,
                                                      const std::vector<std::int64_t>& ids,
                                                      const char* field) {
  std::vector<TokenId> out;
  out.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model.spec.vocab) {
      return absl::InvalidArgumentError(absl::StrCat("`", field, "` entry ", i, " is ", ids[i],
                                                     "; token ids of this model are in [0, ",
                                                     model.spec.vocab - 1, "]."));
    }
    out.push_back(static_cast<TokenId>(ids[i]));
  }
  return out;
}

absl::Status check_model(const ServedModel& model, absl::string_view name) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  constexpr std::size_t kShown = 100;  // a name is repeated in an error, but not a megabyte of it
  return absl::NotFoundError(absl::StrCat("`model` is \"", name.substr(0, kShown),
                                          name.size() > kShown ? "..." : "",
                                          "\", but this server serves \"", model.name, "\"."));
}

absl::Status check_ready(const Engine& engine) {
  switch (engine.state()) {
    case ServingState::kReady:
      return absl::OkStatus();
    case ServingState::kStarting:
      return absl::UnavailableError(
          "No worker group is ready: the server is starting; try again shortly.");
    case ServingState::kRecovering:
      return absl::UnavailableError("No worker group is ready: it is being replaced.");
    case ServingState::kDraining:
      return absl::UnavailableError("The server is stopping and takes no new requests.");
    case ServingState::kFailed:
      break;
  }
  return absl::UnavailableError(
      "The worker group failed again and again: the server gives up and ends.");
}

absl::Status check_open(const Engine& engine) {
  if (engine.state() == ServingState::kRecovering) return absl::OkStatus();
  return check_ready(engine);
}

std::string field_of(const absl::Status& status) {
  const absl::string_view message = status.message();
  if (message.empty() || message[0] != '`') return "";
  const std::size_t end = message.find('`', 1);
  return end == absl::string_view::npos ? "" : std::string(message.substr(1, end - 1));
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

}  // namespace quire
