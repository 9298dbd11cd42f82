// POST /v1/completions: one or many prompts, as text or as token ids.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/api/endpoints.h"
#include "coordinator/api/json_input.h"
#include "coordinator/api/openai_answer.h"

namespace quire {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr std::int64_t kDefaultMaxTokens = 16;  // OpenAI's
constexpr std::size_t kMaxPrompts = 256;

int num_characters(absl::string_view utf8) {
  return static_cast<int>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

absl::StatusOr<std::vector<TokenId>> encode_one(const ServedModel& model, const json& prompt) {
  if (prompt.is_string())
    return encode_prompt(model, prompt.get_ref<const std::string&>(), "prompt");
  const auto ids = as_integers(prompt);
  if (!ids) {
    return absl::InvalidArgumentError(absl::StrCat(
        prompt.is_array() ? "`prompt` has a list in which not every entry is a token id"
                          : absl::StrCat("`prompt` has an entry that is ", describe(prompt)),
        "; it must be a text, a list of texts, a list of token ids, or a list of such "
        "lists."));
  }
  return check_prompt_ids(model, *ids, "prompt");
}

absl::StatusOr<std::vector<std::vector<TokenId>>> encode_prompts(const ServedModel& model,
                                                                 const json* prompt) {
  if (prompt == nullptr) {
    return absl::InvalidArgumentError("`prompt` is missing; it must be a text or token ids.");
  }
  const bool is_list = prompt->is_array() && !prompt->empty();
  const bool is_batch = is_list && (prompt->front().is_string() || prompt->front().is_array());
  std::vector<std::vector<TokenId>> out;
  if (!is_batch) {
    QUIRE_ASSIGN_OR_RETURN(out.emplace_back(), encode_one(model, *prompt));
    return out;
  }
  if (prompt->size() > kMaxPrompts) {
    return absl::InvalidArgumentError(absl::StrCat("`prompt` has ", prompt->size(),
                                                   " entries; at most ", kMaxPrompts,
                                                   " prompts fit one request."));
  }
  for (const json& one : *prompt) {
    QUIRE_ASSIGN_OR_RETURN(out.emplace_back(), encode_one(model, one));
  }
  return out;
}

absl::StatusOr<AnswerPlan> plan_completion(const Api& api, const HttpRequest& request) {
  QUIRE_ASSIGN_OR_RETURN(const json body, json_body(request));
  Fields fields(body);
  check_model_field(fields, *api.model);
  refuse_unbuilt(fields);
  GenerationInput input;
  read_sampling(fields, input);
  fields.read("max_tokens", input.max_tokens);
  fields.read("logprobs", input.logprobs);
  bool add_special_tokens = true;
  fields.read("add_special_tokens", add_special_tokens);
  if (!add_special_tokens) {
    fields.fail(absl::InvalidArgumentError(
        "`add_special_tokens` other than true is not supported by this version."));
  }
  AnswerPlan plan{.prompts = {}, .stream = read_stream_options(fields)};
  input.stream = plan.stream.stream;
  fields.read("return_token_ids", plan.return_token_ids);
  QUIRE_RETURN_IF_ERROR(fields.status());

  QUIRE_ASSIGN_OR_RETURN(auto prompts, encode_prompts(*api.model, fields.find("prompt")));
  for (std::vector<TokenId>& prompt : prompts) {
    GenerationInput one = input;
    const auto room = static_cast<std::int64_t>(api.model->max_model_len) -
                      static_cast<std::int64_t>(prompt.size());
    if (!one.max_tokens && room > kDefaultMaxTokens) one.max_tokens = kDefaultMaxTokens;
    QUIRE_ASSIGN_OR_RETURN(Prepared prepared, prepare(api, std::move(prompt), one));
    plan.prompts.push_back(std::move(prepared));
  }
  return plan;
}

// {"text_offset", "token_logprobs", "tokens", "top_logprobs"}: lists, an entry per token.
ordered_json logprobs_json(AnswerChoice& choice, const std::vector<TokenLogprobText>& logprobs) {
  if (logprobs.empty()) return nullptr;
  ordered_json offsets = ordered_json::array(), values = offsets, tokens = offsets, tops = offsets;
  for (const TokenLogprobText& entry : logprobs) {
    const std::string text = token_text(entry.chosen);
    offsets.push_back(choice.text_offset);
    choice.text_offset += num_characters(text);
    values.push_back(json_logprob(entry.chosen.logprob));
    tokens.push_back(text);
    ordered_json top = {{text, json_logprob(entry.chosen.logprob)}};
    for (const NamedLogprob& other : entry.top) {
      top.emplace(token_text(other), json_logprob(other.logprob));
    }
    tops.push_back(std::move(top));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(values)},
          {"tokens", std::move(tokens)},
          {"top_logprobs", std::move(tops)}};
}

void append_text(std::string& out, AnswerChoice& choice, const std::string& text,
                 const std::vector<TokenLogprobText>& logprobs) {
  out.append("\"text\":");
  append_json_string(out, text);
  absl::StrAppend(&out, ",\"logprobs\":",
                  logprobs.empty() ? "null" : logprobs_json(choice, logprobs).dump(), ",");
}

constexpr Dialect kCompletions = {
    .prompt_ids_in_choice = true,
    .id_prefix = "cmpl-",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .append_delta =
        [](std::string& out, AnswerChoice& choice, const ChoiceText::Piece& piece) {
          append_text(out, choice, piece.text, piece.logprobs);
        },
    .append_whole =
        [](std::string& out, AnswerChoice& choice) {
          append_text(out, choice, choice.text, choice.logprobs);
        },
};

}  // namespace

const Door& completions_door() {
  static constexpr Door kDoor = {"/v1/completions", plan_completion, &kCompletions};
  return kDoor;
}

void handle_completions(const Api& api, Exchange& exchange) {
  answer_call(api, completions_door(), exchange);
}

}  // namespace quire
