// Builds the tokenizer of a GGUF file: byte-level BPE, or SentencePiece by scores.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "common/utf8.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/pipeline.h"

namespace quire {
namespace {

constexpr char kSpaceMark[] = "\xE2\x96\x81";  // U+2581 stands for a space

enum TokenType : std::int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUser = 4, kByte = 6 };

std::int32_t type_of(const TokenizerData& data, TokenId id) {
  return data.types.empty() ? kNormal : data.types[static_cast<std::size_t>(id)];
}

bool is_special_type(std::int32_t type) {
  return type == kControl || type == kUnknown;
}

// Names, special marks and added tokens, which both kinds of vocabulary share.
absl::Status add_vocabulary(const TokenizerData& data, PipelineParts* parts) {
  if (data.tokens.empty()) return absl::InvalidArgumentError("the vocabulary is empty");
  if (!data.types.empty() && data.types.size() != data.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", data.tokens.size(), " tokens, but ", data.types.size(), " token types"));
  }
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (utf8::first_invalid(data.tokens[i]) != utf8::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text of token ", id, " is not valid UTF-8"));
    }
    QUIRE_RETURN_IF_ERROR(parts->vocabulary.add(id, data.tokens[i]));
    const std::int32_t type = type_of(data, id);
    const bool special = is_special_type(type) || id == data.bos || id == data.eos;
    if (special) parts->vocabulary.mark_special(id);
    if ((special || type == kUser) && !data.tokens[i].empty()) {
      AddedToken token;
      token.id = id;
      token.content = data.tokens[i];
      token.special = special;
      QUIRE_RETURN_IF_ERROR(parts->added.add(std::move(token)));
    }
  }
  QUIRE_RETURN_IF_ERROR(check_token_id(parts->vocabulary, data.bos, "bos"));
  QUIRE_RETURN_IF_ERROR(check_token_id(parts->vocabulary, data.eos, "eos"));
  QUIRE_RETURN_IF_ERROR(check_token_id(parts->vocabulary, data.unk, "unknown"));
  if (data.add_bos && data.bos >= 0) parts->prefix.push_back(data.bos);
  if (data.add_eos && data.eos >= 0) parts->suffix.push_back(data.eos);
  return absl::OkStatus();
}

// "left right" spelled in the byte alphabet; the blank between is the only one.
absl::StatusOr<std::pair<std::string, std::string>> parse_merge(const std::string& line,
                                                                std::size_t rank) {
  const std::size_t blank = line.find(' ', 1);
  if (blank != std::string::npos && blank + 1 < line.size()) {
    std::optional<std::string> left = byte_level::to_bytes(line.substr(0, blank));
    std::optional<std::string> right = byte_level::to_bytes(line.substr(blank + 1));
    if (left.has_value() && right.has_value()) return std::make_pair(*left, *right);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "merge ", rank, " is \"", line, "\"; it should be two byte-level tokens and one blank"));
}

absl::Status add_bpe(const TokenizerData& data, PipelineParts* parts) {
  std::vector<TokenId> members;
  for (TokenId id = 0; id < parts->vocabulary.size(); ++id) {
    const std::string& name = data.tokens[static_cast<std::size_t>(id)];
    if (parts->vocabulary.special(id) || name.empty()) continue;
    if (type_of(data, id) != kUser) {
      std::optional<std::string> bytes = byte_level::to_bytes(name);
      if (!bytes.has_value()) continue;  // no text of bytes spells it: it keeps its own bytes
      parts->vocabulary.set_bytes(id, *std::move(bytes));
    }
    members.push_back(id);
  }
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(data.merges.size());
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank) {
    QUIRE_ASSIGN_OR_RETURN(merges.emplace_back(), parse_merge(data.merges[rank], rank));
  }
  QUIRE_ASSIGN_OR_RETURN(GgufPre pre, gguf_pre(data.pre));
  parts->normalizer = std::move(pre.normalizer);
  parts->pre_tokenizer = std::move(pre.pre_tokenizer);
  BpeOptions options;
  options.ignore_merges = pre.ignore_merges;
  QUIRE_ASSIGN_OR_RETURN(parts->model, Bpe::make(parts->vocabulary, members, merges, options));
  return absl::OkStatus();
}

absl::Status add_spm(const TokenizerData& data, PipelineParts* parts) {
  if (data.scores.size() != data.tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", data.tokens.size(), " tokens, but ", data.scores.size(), " token scores"));
  }
  std::vector<Spm::Member> members;
  std::array<TokenId, 256> byte_ids;
  byte_ids.fill(-1);
  for (TokenId id = 0; id < parts->vocabulary.size(); ++id) {
    const absl::string_view name = parts->vocabulary.name(id);
    if (type_of(data, id) == kByte) {
      const int byte = parse_byte_token(name);
      if (byte < 0) {
        return absl::InvalidArgumentError(absl::StrCat("token ", id,
                                                       " is a byte token, but its text is \"", name,
                                                       "\"; it should be <0x00> to <0xFF>"));
      }
      byte_ids[static_cast<std::size_t>(byte)] = id;
      parts->vocabulary.set_bytes(id, std::string(1, static_cast<char>(byte)));
      continue;
    }
    if (parts->vocabulary.special(id)) continue;
    parts->vocabulary.set_bytes(id, absl::StrReplaceAll(name, {{kSpaceMark, " "}}));
    if (!name.empty()) members.push_back({id, name, data.scores[static_cast<std::size_t>(id)]});
  }
  SpaceRule spaces;
  spaces.replacement = kSpaceMark;
  std::vector<NormalizerStep> steps;
  if (data.add_space_prefix) steps.push_back({NormalizerStep::Kind::kPrepend, {}, {}, " "});
  parts->normalizer = Normalizer(std::move(steps));
  parts->pre_tokenizer = PreTokenizer(std::move(spaces), {});
  parts->strips_leading_space = data.add_space_prefix;
  QUIRE_ASSIGN_OR_RETURN(parts->model, Spm::make(members, byte_ids, data.unk));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> make_gguf_tokenizer(const TokenizerData& data) {
  PipelineParts parts;
  QUIRE_RETURN_IF_ERROR(add_vocabulary(data, &parts));
  QUIRE_RETURN_IF_ERROR(data.kind == TokenizerData::Kind::kGgufBpe ? add_bpe(data, &parts)
                                                                   : add_spm(data, &parts));
  return make_pipeline(std::move(parts));
}

}  // namespace quire
