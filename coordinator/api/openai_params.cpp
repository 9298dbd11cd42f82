// The shared fields of the two generation endpoints, and the table of fields that are not built.
#include "coordinator/api/openai_params.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/api/json_input.h"

namespace quire {

using nlohmann::json;

namespace {

// A field of OpenAI's or vLLM's API that would change the answer and is not built. `neutral` is a
// JSON list of the values that change nothing; null always is one.
struct Unbuilt {
  const char* field;
  const char* neutral;
};
constexpr Unbuilt kUnbuilt[] = {
    {"bad_words", "[[]]"},
    {"logprob_token_ids", "[]"},
    {"prompt_logprobs", "[]"},
    {"truncate_prompt_tokens", "[]"},
    {"spaces_between_special_tokens", "[true]"},
    {"echo", "[false]"},
    {"suffix", "[\"\"]"},
    {"prompt_embeds", "[]"},
    {"response_format", "[{\"type\":\"text\"}]"},
    {"structured_outputs", "[{}]"},
    {"guided_json", "[]"},
    {"guided_regex", "[]"},
    {"guided_choice", "[]"},
    {"guided_grammar", "[]"},
    {"repetition_detection", "[]"},
    {"thinking_token_budget", "[]"},
    {"reasoning_effort", "[\"none\"]"},
    {"watermarking", "[false]"},
    {"stream_interval", "[1]"},
    {"return_tokens_as_token_ids", "[false]"},
    {"return_token_offsets", "[false]"},
    {"return_prompt_text", "[false]"},
    {"kv_transfer_params", "[{}]"},
    {"ec_transfer_params", "[{}]"},
    {"vllm_xargs", "[{}]"},
    {"tools", "[[]]"},
    {"tool_choice", "[\"none\",\"auto\"]"},
    {"functions", "[[]]"},
    {"function_call", "[\"none\",\"auto\"]"},
    {"documents", "[[]]"},
    {"chat_template", "[]"},
    {"chat_template_kwargs", "[{}]"},
    {"continue_final_message", "[false]"},
    {"media_io_kwargs", "[{}]"},
    {"mm_processor_kwargs", "[{}]"},
    {"modalities", "[[\"text\"]]"},
    {"audio", "[]"},
    {"web_search_options", "[]"},
};

std::string neutral_values(const json& values) {
  std::string out;
  for (const json& value : values) absl::StrAppend(&out, out.empty() ? "" : " or ", value.dump());
  return out;
}

// {"id": bias, ...}, as OpenAI spells it.
void read_logit_bias(Fields& fields, GenerationInput& input) {
  const json* biases = fields.find("logit_bias");
  if (biases == nullptr) return;
  if (!biases->is_object()) {
    return fields.fail(absl::InvalidArgumentError(absl::StrCat(
        "`logit_bias` is ", describe(*biases), "; it must be an object of token ids and biases.")));
  }
  for (const auto& [key, bias] : biases->items()) {
    std::int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || absl::StrCat(id) != key) {
      return fields.fail(
          absl::InvalidArgumentError(absl::StrCat("`logit_bias` has the key ", describe(key),
                                                  "; keys must be token ids, like \"50256\".")));
    }
    if (!bias.is_number()) {
      return fields.fail(absl::InvalidArgumentError(absl::StrCat(
          "`logit_bias` of id ", id, " is ", describe(bias), "; it must be a number.")));
    }
    input.logit_bias.emplace_back(id, bias.get<double>());
  }
}

// false, true or "never".
void read_early_stopping(Fields& fields, GenerationInput& input) {
  const json* value = fields.find("early_stopping");
  if (value == nullptr) return;
  if (value->is_boolean()) {
    input.early_stopping =
        value->get<bool>() ? BeamParams::EarlyStopping::kYes : BeamParams::EarlyStopping::kNo;
  } else if (*value == "never") {
    input.early_stopping = BeamParams::EarlyStopping::kNever;
  } else {
    fields.fail(absl::InvalidArgumentError(absl::StrCat("`early_stopping` is ", describe(*value),
                                                        "; it must be true, false or \"never\".")));
  }
}

// How the request waits, and how its choices are found.
void read_service(Fields& fields, GenerationInput& input) {
  fields.read("priority", input.priority);
  fields.read("timeout", input.timeout_s);
  fields.read("deadline_ms", input.deadline_ms);
  if (fields.find("cache_salt") != nullptr) fields.read("cache_salt", input.cache_salt.emplace());
  fields.read("best_of", input.best_of);
  fields.read("use_beam_search", input.use_beam_search);
  fields.read("length_penalty", input.length_penalty);
  read_early_stopping(fields, input);
}

}  // namespace

absl::StatusOr<json> json_body(const HttpRequest& request) {
  absl::string_view type = request.header("content-type");
  type = absl::StripAsciiWhitespace(type.substr(0, type.find(';')));
  if (!absl::EqualsIgnoreCase(type, "application/json")) {
    return absl::UnimplementedError(
        "Content-Type must be application/json; send a JSON object and say so in that header.");
  }
  auto body = parse_json(request.body);
  if (body.ok() && !body->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("The body is ", describe(*body), "; it must be a JSON object."));
  }
  return body;
}

void refuse_unbuilt(Fields& fields) {
  for (const Unbuilt& row : kUnbuilt) {
    const json* value = fields.find(row.field);
    if (value == nullptr) continue;
    const json neutral = json::parse(row.neutral);
    bool harmless = false;
    for (const json& allowed : neutral) harmless = harmless || *value == allowed;
    if (harmless) continue;
    fields.fail(absl::InvalidArgumentError(
        absl::StrCat("`", row.field, "`",
                     neutral.empty() ? "" : absl::StrCat(" other than ", neutral_values(neutral)),
                     " is not supported by this version.")));
  }
}

void read_sampling(Fields& fields, GenerationInput& input) {
  fields.read("temperature", input.temperature);
  fields.read("top_p", input.top_p);
  fields.read("min_p", input.min_p);
  fields.read("top_k", input.top_k);
  fields.read("presence_penalty", input.presence_penalty);
  fields.read("frequency_penalty", input.frequency_penalty);
  fields.read("repetition_penalty", input.repetition_penalty);
  fields.read("min_tokens", input.min_tokens);
  read_logit_bias(fields, input);
  if (fields.find("allowed_token_ids") != nullptr) {
    fields.read("allowed_token_ids", input.allowed_token_ids.emplace());
  }
  fields.read_seed("seed", input.seed);
  fields.read("n", input.n);
  fields.read_string_or_list("stop", input.stop);
  fields.read("stop_token_ids", input.stop_token_ids);
  fields.read("ignore_eos", input.ignore_eos);
  fields.read("include_stop_str_in_output", input.include_stop);
  fields.read("skip_special_tokens", input.skip_special);
  read_service(fields, input);
}

StreamOptions read_stream_options(Fields& fields) {
  StreamOptions out;
  fields.read("stream", out.stream);
  const json* options = fields.find("stream_options");
  if (options == nullptr) return out;
  if (!out.stream) {
    fields.fail(absl::InvalidArgumentError(
        "`stream_options` is given but `stream` is not true; leave one out or set the other."));
  } else if (!options->is_object()) {
    fields.fail(absl::InvalidArgumentError(
        absl::StrCat("`stream_options` is ", describe(*options), "; it must be an object.")));
  } else {
    Fields inner(*options);
    inner.read("include_usage", out.include_usage);
    inner.read("continuous_usage_stats", out.continuous_usage_stats);
    fields.fail(inner.status());
  }
  return out;
}

void check_model_field(Fields& fields, const ServedModel& model) {
  std::string name;
  fields.read("model", name);
  fields.fail(check_model(model, name));
}

}  // namespace quire
