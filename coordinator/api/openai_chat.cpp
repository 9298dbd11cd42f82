// POST /v1/chat/completions: messages, rendered by the model's own chat template.
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

constexpr std::size_t kMaxMessages = 4096;

absl::Status message_error(std::size_t index, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("`messages` entry ", index, " ", what));
}

// A message's content as one text: itself, or the text parts of a list joined.
absl::StatusOr<std::string> content_text(const json& message, std::size_t index) {
  const auto found = message.find("content");
  if (found == message.end() || found->is_null()) {
    return message_error(index, "has no `content`; it must be a text or a list of text parts.");
  }
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) {
    return message_error(index, absl::StrCat("has `content` ", describe(*found),
                                             "; it must be a text or a list of text parts."));
  }
  std::string out;
  for (const json& part : *found) {
    const auto type = part.is_object() ? part.find("type") : part.end();
    const auto text = part.is_object() ? part.find("text") : part.end();
    const bool is_text = part.is_object() && type != part.end() && *type == "text" &&
                         text != part.end() && text->is_string();
    if (!is_text) {
      return message_error(index,
                           "has a content part that is not {\"type\": \"text\", \"text\": ...}; "
                           "this version reads text only.");
    }
    absl::StrAppend(&out, out.empty() ? "" : "\n", text->get_ref<const std::string&>());
  }
  return out;
}

// Only what templates of text models read: role, content, name.
absl::StatusOr<ordered_json> read_messages(const json* messages) {
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    return absl::InvalidArgumentError(
        "`messages` must be a list of at least one message with `role` and `content`.");
  }
  if (messages->size() > kMaxMessages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`messages` has ", messages->size(), " entries; at most ", kMaxMessages, " are allowed."));
  }
  ordered_json out = ordered_json::array();
  for (std::size_t i = 0; i < messages->size(); ++i) {
    const json& message = (*messages)[i];
    if (!message.is_object()) return message_error(i, "must be an object.");
    Fields fields(message);
    std::string role, name;
    fields.read("role", role);
    fields.read("name", name);
    if (!fields.status().ok()) return message_error(i, fields.status().message());
    if (role.empty()) return message_error(i, "has no `role`; it must be a text like \"user\".");
    if (fields.find("tool_calls") != nullptr || fields.find("function_call") != nullptr) {
      return message_error(i, "has tool calls, which this version does not support.");
    }
    QUIRE_ASSIGN_OR_RETURN(std::string content, content_text(message, i));
    ordered_json entry = {{"role", role}, {"content", std::move(content)}};
    if (!name.empty()) entry["name"] = name;
    out.push_back(std::move(entry));
  }
  return out;
}

// max_completion_tokens is the newer name of max_tokens.
void read_max_tokens(Fields& fields, GenerationInput& input) {
  std::optional<std::int64_t> newer;
  fields.read("max_tokens", input.max_tokens);
  fields.read("max_completion_tokens", newer);
  if (!newer) return;
  if (input.max_tokens && *input.max_tokens != *newer) {
    fields.fail(absl::InvalidArgumentError(absl::StrCat("`max_completion_tokens` is ", *newer,
                                                        " but `max_tokens` is ", *input.max_tokens,
                                                        "; leave one of them out.")));
  }
  input.max_tokens = newer;
  input.max_tokens_name = "max_completion_tokens";
}

void read_logprobs(Fields& fields, GenerationInput& input) {
  bool wanted = false;
  std::optional<std::int64_t> top;
  fields.read("logprobs", wanted);
  fields.read("top_logprobs", top);
  if (top && (*top < 0 || *top > kMaxLogprobs)) {
    fields.fail(absl::InvalidArgumentError(
        absl::StrCat("`top_logprobs` is ", *top, "; it must be in [0, ", kMaxLogprobs, "].")));
  }
  if (top.value_or(0) > 0 && !wanted) {
    fields.fail(absl::InvalidArgumentError(
        "`top_logprobs` needs `logprobs` to be true; set it, or leave `top_logprobs` out."));
  }
  if (wanted) input.logprobs = top.value_or(0);
}

absl::StatusOr<AnswerPlan> plan_chat(const Api& api, const HttpRequest& request) {
  QUIRE_ASSIGN_OR_RETURN(const json body, json_body(request));
  Fields fields(body);
  check_model_field(fields, *api.model);
  refuse_unbuilt(fields);
  GenerationInput input;
  input.prompt_name = "messages";
  read_sampling(fields, input);
  read_max_tokens(fields, input);
  read_logprobs(fields, input);
  bool add_generation_prompt = true, add_special_tokens = false;
  fields.read("add_generation_prompt", add_generation_prompt);
  fields.read("add_special_tokens", add_special_tokens);
  if (add_special_tokens) {
    fields.fail(absl::InvalidArgumentError(
        "`add_special_tokens` other than false is not supported by this version: the chat template "
        "adds them."));
  }
  AnswerPlan plan{.prompts = {}, .stream = read_stream_options(fields)};
  input.stream = plan.stream.stream;
  fields.read("return_token_ids", plan.return_token_ids);
  QUIRE_RETURN_IF_ERROR(fields.status());

  QUIRE_ASSIGN_OR_RETURN(const ordered_json messages, read_messages(fields.find("messages")));
  QUIRE_ASSIGN_OR_RETURN(std::vector<TokenId> prompt,
                         encode_chat(*api.model, messages, add_generation_prompt));
  QUIRE_ASSIGN_OR_RETURN(Prepared prepared, prepare(api, std::move(prompt), input));
  plan.prompts.push_back(std::move(prepared));
  return plan;
}

ordered_json token_json(const NamedLogprob& token) {
  ordered_json bytes = ordered_json::array();
  for (const char c : token.bytes) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", token_text(token)},
          {"logprob", json_logprob(token.logprob)},
          {"bytes", std::move(bytes)}};
}

// {"content": [{token, logprob, bytes, top_logprobs: [...]}, ...]}
void append_logprobs(std::string& out, const std::vector<TokenLogprobText>& logprobs) {
  out.append("\"logprobs\":");
  if (logprobs.empty()) {
    out.append("null,");
    return;
  }
  ordered_json content = ordered_json::array();
  for (const TokenLogprobText& entry : logprobs) {
    ordered_json token = token_json(entry.chosen);
    token["top_logprobs"] = ordered_json::array();
    for (const NamedLogprob& other : entry.top) token["top_logprobs"].push_back(token_json(other));
    content.push_back(std::move(token));
  }
  absl::StrAppend(&out, "{\"content\":", content.dump(), "},");
}

constexpr Dialect kChat = {
    .prompt_ids_in_choice = false,
    .id_prefix = "chatcmpl-",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .append_delta =
        [](std::string& out, AnswerChoice& choice, const ChoiceText::Piece& piece) {
          out.append(choice.begun ? "\"delta\":{\"content\":"
                                  : "\"delta\":{\"role\":\"assistant\",\"content\":");
          append_json_string(out, piece.text);
          out.append("},");
          append_logprobs(out, piece.logprobs);
        },
    .append_whole =
        [](std::string& out, AnswerChoice& choice) {
          out.append("\"message\":{\"role\":\"assistant\",\"content\":");
          append_json_string(out, choice.text);
          out.append(",\"refusal\":null},");
          append_logprobs(out, choice.logprobs);
        },
};

}  // namespace

const Door& chat_door() {
  static constexpr Door kDoor = {"/v1/chat/completions", plan_chat, &kChat};
  return kDoor;
}

void handle_chat(const Api& api, Exchange& exchange) {
  answer_call(api, chat_door(), exchange);
}

}  // namespace quire
