// Builds the tokenizer of a Hugging Face tokenizer.json (BPE models).
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/hf_field.h"
#include "coordinator/text/hf_steps.h"
#include "coordinator/text/pipeline.h"

namespace quire {
namespace {

using hf::Json;

absl::StatusOr<TokenId> read_id(const Json& value, absl::string_view name) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMaxTokenId) {
    return absl::InvalidArgumentError(
        absl::StrCat("the id of token \"", name, "\" should be 0 to ", kMaxTokenId));
  }
  return value.get<TokenId>();
}

struct Builder {
  const Json& json;
  const TokenizerData& data;
  PipelineParts parts;
  hf::PreTokenizerPlan pre;
  hf::DecoderPlan decoder;
  std::vector<TokenId> members;  // what the model may produce

  absl::Status read_steps();
  absl::Status read_vocabulary();
  absl::Status read_added_tokens();
  absl::Status read_added_token(const Json& entry);
  absl::Status set_bytes();
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> read_merges() const;
  absl::StatusOr<std::string> spelled(std::string text) const;
  absl::Status read_model();
  absl::Status read_template();
};

absl::Status Builder::read_steps() {
  QUIRE_ASSIGN_OR_RETURN(parts.normalizer, hf::read_normalizer(hf::field(json, "normalizer")));
  QUIRE_ASSIGN_OR_RETURN(pre, hf::read_pre_tokenizer(hf::field(json, "pre_tokenizer")));
  parts.pre_tokenizer = std::move(pre.pre_tokenizer);
  QUIRE_ASSIGN_OR_RETURN(decoder, hf::read_decoder(hf::field(json, "decoder")));
  parts.strips_leading_space = decoder.strips_leading_space;
  if (pre.byte_level != decoder.byte_level) {
    return absl::InvalidArgumentError(
        "tokenizer.json has ByteLevel in only one of pre-tokenizer and decoder, which is not "
        "known");
  }
  return absl::OkStatus();
}

absl::Status Builder::read_vocabulary() {
  const Json& vocab = hf::field(hf::field(json, "model"), "vocab");
  if (!vocab.is_object()) return hf::wrong_type("vocab", "an object of token names and ids");
  for (const auto& [name, value] : vocab.items()) {
    QUIRE_ASSIGN_OR_RETURN(const TokenId id, read_id(value, name));
    QUIRE_RETURN_IF_ERROR(parts.vocabulary.add(id, name));
    members.push_back(id);
  }
  return absl::OkStatus();
}

absl::Status Builder::read_added_tokens() {
  const Json& list = hf::field(json, "added_tokens");
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return hf::wrong_type("added_tokens", "a list");
  for (const Json& entry : list) QUIRE_RETURN_IF_ERROR(read_added_token(entry));
  return absl::OkStatus();
}

absl::Status Builder::read_added_token(const Json& entry) {
  AddedToken token;
  QUIRE_ASSIGN_OR_RETURN(token.content, hf::text_field(entry, "content"));
  // A token that the model knows keeps the model's id, as in the tokenizers library.
  const Json& known =
      hf::field(hf::field(hf::field(json, "model"), "vocab"), token.content.c_str());
  const Json& id = known.is_null() ? hf::field(entry, "id") : known;
  QUIRE_ASSIGN_OR_RETURN(token.id, read_id(id, token.content));
  QUIRE_ASSIGN_OR_RETURN(token.special, hf::bool_field(entry, "special", false));
  QUIRE_ASSIGN_OR_RETURN(token.lstrip, hf::bool_field(entry, "lstrip", false));
  QUIRE_ASSIGN_OR_RETURN(token.rstrip, hf::bool_field(entry, "rstrip", false));
  QUIRE_ASSIGN_OR_RETURN(token.single_word, hf::bool_field(entry, "single_word", false));
  QUIRE_ASSIGN_OR_RETURN(const bool normalized,
                         hf::bool_field(entry, "normalized", !token.special));
  QUIRE_RETURN_IF_ERROR(parts.vocabulary.add(token.id, token.content));
  parts.vocabulary.set_bytes(token.id, token.content);
  if (token.special) parts.vocabulary.mark_special(token.id);
  if (!normalized) return parts.added.add(std::move(token));
  std::string storage;
  QUIRE_ASSIGN_OR_RETURN(const absl::string_view content,
                         parts.normalizer.apply(token.content, &storage));
  token.content = std::string(content);
  return parts.normalized_added.add(std::move(token));
}

// What the members stand for. Those that the byte alphabet cannot spell, and special tokens, can
// never come out of the model.
absl::Status Builder::set_bytes() {
  std::vector<TokenId> kept;
  for (const TokenId id : members) {
    const std::string name(parts.vocabulary.name(id));
    if (parts.vocabulary.special(id) || name.empty()) continue;
    if (decoder.byte_level) {
      std::optional<std::string> bytes = byte_level::to_bytes(name);
      if (!bytes.has_value()) continue;
      parts.vocabulary.set_bytes(id, *std::move(bytes));
    }
    kept.push_back(id);
  }
  members = std::move(kept);
  return absl::OkStatus();
}

// A half of a merge, as the model's own symbols spell it.
absl::StatusOr<std::string> Builder::spelled(std::string text) const {
  if (!decoder.byte_level) return text;
  std::optional<std::string> bytes = byte_level::to_bytes(text);
  if (bytes.has_value()) return *std::move(bytes);
  return absl::InvalidArgumentError(
      absl::StrCat("the merge half \"", text, "\" is not spelled in the byte alphabet"));
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Builder::read_merges() const {
  const Json& list = hf::field(hf::field(json, "model"), "merges");
  if (!list.is_array()) return hf::wrong_type("merges", "a list");
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(list.size());
  for (const Json& entry : list) {
    std::string left;
    std::string right;
    if (entry.is_string()) {
      const auto& line = entry.get_ref<const std::string&>();
      const std::size_t blank = line.find(' ');
      left = line.substr(0, blank);
      if (blank != std::string::npos) right = line.substr(blank + 1);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    }
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", merges.size(), " is not a pair of tokens: ",
                       entry.dump(-1, ' ', false, Json::error_handler_t::replace)));
    }
    QUIRE_ASSIGN_OR_RETURN(left, spelled(std::move(left)));
    QUIRE_ASSIGN_OR_RETURN(right, spelled(std::move(right)));
    merges.emplace_back(std::move(left), std::move(right));
  }
  return merges;
}

absl::Status Builder::read_model() {
  const Json& model = hf::field(json, "model");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    QUIRE_ASSIGN_OR_RETURN(const std::string text, hf::text_field(model, name, ""));
    if (text.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json sets \"", name, "\", which is not known"));
  }
  BpeOptions options;
  options.byte_level = pre.byte_level;
  QUIRE_ASSIGN_OR_RETURN(options.ignore_merges, hf::bool_field(model, "ignore_merges", false));
  QUIRE_ASSIGN_OR_RETURN(options.byte_fallback, hf::bool_field(model, "byte_fallback", false));
  QUIRE_ASSIGN_OR_RETURN(options.fuse_unk, hf::bool_field(model, "fuse_unk", false));
  const Json& unk = hf::field(model, "unk_token");
  if (unk.is_string()) {
    const Json& id = hf::field(hf::field(model, "vocab"), unk.get<std::string>().c_str());
    QUIRE_ASSIGN_OR_RETURN(options.unk, read_id(id, unk.get<std::string>()));
  }
  QUIRE_ASSIGN_OR_RETURN(const auto merges, read_merges());
  QUIRE_ASSIGN_OR_RETURN(parts.model, Bpe::make(parts.vocabulary, members, merges, options));
  return absl::OkStatus();
}

// Spaces and bytes of text-mode tokens. After the model is made: it looks tokens up as stored.
void decode_names(const hf::DecoderPlan& decoder, const std::vector<TokenId>& members,
                  Vocabulary* vocabulary) {
  if (decoder.byte_level) return;
  for (const TokenId id : members) {
    const std::string name(vocabulary->name(id));
    const int byte = decoder.byte_fallback ? parse_byte_token(name) : -1;
    std::string bytes = byte >= 0 ? std::string(1, static_cast<char>(byte)) : name;
    if (byte < 0) {
      for (const auto& [from, to] : decoder.replacements) {
        bytes = absl::StrReplaceAll(bytes, {{from, to}});
      }
    }
    vocabulary->set_bytes(id, std::move(bytes));
  }
}

absl::Status Builder::read_template() {
  QUIRE_ASSIGN_OR_RETURN(const hf::TemplatePlan plan,
                         hf::read_post_processor(hf::field(json, "post_processor")));
  parts.prefix = plan.prefix;
  parts.suffix = plan.suffix;
  if (!plan.present && data.add_bos && data.bos >= 0) parts.prefix = {data.bos};
  if (!plan.present && data.add_eos && data.eos >= 0) parts.suffix = {data.eos};
  for (const auto* ids : {&parts.prefix, &parts.suffix}) {
    for (const TokenId id : *ids) {
      QUIRE_RETURN_IF_ERROR(check_token_id(parts.vocabulary, id, "post-processor's"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> make_hf_tokenizer(const TokenizerData& data) {
  const Json json = Json::parse(data.json, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("tokenizer.json is not a valid JSON object");
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string type,
                         hf::text_field(hf::field(json, "model"), "type", "BPE"));
  if (type != "BPE") {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json has a model of type \"", type, "\"; only BPE is known"));
  }
  Builder builder{json, data, {}, {}, {}, {}};
  QUIRE_RETURN_IF_ERROR(builder.read_steps());
  QUIRE_RETURN_IF_ERROR(builder.read_vocabulary());
  QUIRE_RETURN_IF_ERROR(builder.read_added_tokens());
  QUIRE_RETURN_IF_ERROR(builder.set_bytes());
  QUIRE_RETURN_IF_ERROR(builder.read_model());
  decode_names(builder.decoder, builder.members, &builder.parts.vocabulary);
  QUIRE_RETURN_IF_ERROR(builder.read_template());
  return make_pipeline(std::move(builder.parts));
}

}  // namespace quire
