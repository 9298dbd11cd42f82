// From a checkpoint to a ServedModel, and from what a client wrote to token ids.
//
// Invariant: text inside a chat message never becomes a control token. Before rendering, every
// occurrence of a special token's text in a message is replaced by a mark (a number between two
// Unicode noncharacters); after rendering, the marks are encoded as plain text and everything else
// with special tokens.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status.h"
#include "coordinator/api/service.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::ordered_json;

constexpr absl::string_view kMarkBegin = "\xEF\xB7\x90";  // U+FDD0
constexpr absl::string_view kMarkEnd = "\xEF\xB7\x91";    // U+FDD1

// Texts that were taken out of the messages; a mark holds the index.
class Marks {
 public:
  explicit Marks(const std::vector<std::string>& special_texts) : specials_(special_texts) {}

  std::string hide(absl::string_view text) {
    std::string out;
    while (!text.empty()) {
      const absl::string_view found = match_at(text);
      if (found.empty()) {
        out.push_back(text.front());
        text.remove_prefix(1);
        continue;
      }
      absl::StrAppend(&out, kMarkBegin, hidden_.size(), kMarkEnd);
      hidden_.emplace_back(found);
      text.remove_prefix(found.size());
    }
    return out;
  }

  void hide_all(ordered_json& value) {
    if (value.is_string()) {
      value = hide(value.get_ref<const std::string&>());
    } else if (value.is_structured()) {
      for (auto& element : value) hide_all(element);
    }
  }

  // What `number`, the text of a mark, stands for; empty if no such mark was made.
  absl::string_view find(absl::string_view number) const {
    std::size_t index = 0;
    if (!absl::SimpleAtoi(number, &index) || index >= hidden_.size()) return {};
    return hidden_[index];
  }

 private:
  absl::string_view match_at(absl::string_view text) const {
    // A client's own noncharacters are hidden too, so that no mark can be forged.
    for (const absl::string_view mark : {kMarkBegin, kMarkEnd}) {
      if (text.substr(0, mark.size()) == mark) return text.substr(0, mark.size());
    }
    for (const std::string& special : specials_) {  // longest first
      if (text.substr(0, special.size()) == special) return text.substr(0, special.size());
    }
    return {};
  }

  const std::vector<std::string>& specials_;
  std::vector<std::string> hidden_;
};

absl::Status append(const Tokenizer& tokenizer, absl::string_view text, bool parse_special,
                    std::vector<TokenId>& out) {
  if (text.empty()) return absl::OkStatus();
  QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                         tokenizer.encode(text, parse_special, /*add_special=*/false));
  out.insert(out.end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> encode_marked(const Tokenizer& tokenizer, const Marks& marks,
                                                   absl::string_view rendered) {
  std::vector<TokenId> out;
  while (true) {
    const std::size_t begin = rendered.find(kMarkBegin);
    QUIRE_RETURN_IF_ERROR(append(tokenizer, rendered.substr(0, begin), true, out));
    if (begin == absl::string_view::npos) return out;
    rendered.remove_prefix(begin + kMarkBegin.size());
    const std::size_t end = std::min(rendered.find(kMarkEnd), rendered.size());
    QUIRE_RETURN_IF_ERROR(append(tokenizer, marks.find(rendered.substr(0, end)), false, out));
    rendered.remove_prefix(std::min(rendered.size(), end + kMarkEnd.size()));
  }
}

absl::Status check_messages(const ordered_json& messages) {
  if (!messages.is_array() || messages.empty()) {
    return absl::InvalidArgumentError(
        "`messages` must be a list of at least one message with role and content.");
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ordered_json& message = messages[i];
    for (const char* key : {"role", "content"}) {
      if (!message.is_object() || !message.contains(key) || !message[key].is_string()) {
        return absl::InvalidArgumentError(
            absl::StrCat("`messages` entry ", i, " needs a text in `", key, "`."));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServedModel> make_served_model(const EngineConfig& config, const ModelFile& file) {
  ServedModel model;
  QUIRE_ASSIGN_OR_RETURN(model.text, make_text(file, config.skip_tokenizer_init));
  model.spec = file.spec;
  model.name = config.served_model_name.empty() ? file.spec.name : config.served_model_name;
  model.architecture = file.spec.architecture;
  model.created = absl::ToUnixSeconds(absl::Now());
  model.tensor_parallel_size = config.tensor_parallel_size;
  model.max_model_len = config.max_model_len;
  if (model.max_model_len <= 0) model.max_model_len = file.spec.max_positions;
  if (model.max_model_len > file.spec.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-model-len is ", model.max_model_len, ", but ", file.path,
                     " was trained for a context of ", file.spec.max_positions,
                     " tokens; ask for at most that."));
  }
  const Tokenizer& tokenizer = *model.text.tokenizer;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id) && !tokenizer.name_of(id).empty()) {
      model.special_texts.emplace_back(tokenizer.name_of(id));
    }
  }
  std::stable_sort(model.special_texts.begin(), model.special_texts.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  std::size_t longest = 1;
  for (TokenId id = 0; id < model.text.tokenizer->vocab_size(); ++id) {
    longest = std::max({longest, model.text.tokenizer->bytes_of(id).size(),
                        model.text.tokenizer->name_of(id).size()});
  }
  if (tokenizer.has_text()) {
    model.max_prompt_bytes = longest * static_cast<std::size_t>(model.max_model_len);
  }
  return model;
}

namespace {

// However a text is cut, each token holds at most the longest token's bytes.
absl::Status check_bytes(const ServedModel& model, absl::string_view text, const char* field) {
  if (model.max_prompt_bytes == 0 || text.size() <= model.max_prompt_bytes) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("`", field, "` has ", text.size(), " bytes; a context of ", model.max_model_len,
                   " tokens holds at most ", model.max_prompt_bytes, ", shorten it."));
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> encode_prompt(const ServedModel& model, absl::string_view text,
                                                   const char* field) {
  QUIRE_RETURN_IF_ERROR(check_bytes(model, text, field));
  auto ids = model.text.tokenizer->encode(text, /*parse_special=*/true, /*add_special=*/true);
  if (ids.ok()) return ids;
  return absl::InvalidArgumentError(
      absl::StrCat("`", field, "` cannot be encoded: ", ids.status().message()));
}

absl::StatusOr<std::vector<TokenId>> encode_chat(const ServedModel& model,
                                                 const ordered_json& messages,
                                                 bool add_generation_prompt) {
  QUIRE_RETURN_IF_ERROR(check_messages(messages));
  if (!model.text.tokenizer->has_text()) {
    return absl::InvalidArgumentError(
        "`messages` cannot be used: the server runs without a tokenizer (--skip-tokenizer-init); "
        "send token ids to /v1/completions.");
  }
  if (!model.text.chat_template.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("`messages` cannot be used: the model \"", model.name,
                     "\" has no chat template; send a plain prompt instead."));
  }
  Marks marks(model.special_texts);
  ordered_json hidden = messages;
  marks.hide_all(hidden);
  const ordered_json variables = {{"messages", std::move(hidden)},
                                  {"add_generation_prompt", add_generation_prompt},
                                  {"bos_token", model.text.bos_text},
                                  {"eos_token", model.text.eos_text}};
  const absl::StatusOr<std::string> rendered = model.text.chat_template->render(
      variables, absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  if (!rendered.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`messages` do not fit the model's chat template: ", rendered.status().message()));
  }
  QUIRE_RETURN_IF_ERROR(check_bytes(model, *rendered, "messages"));
  auto ids = encode_marked(*model.text.tokenizer, marks, *rendered);
  if (ids.ok()) return ids;
  return absl::InvalidArgumentError(
      absl::StrCat("`messages` cannot be encoded: ", ids.status().message()));
}

}  // namespace quire
