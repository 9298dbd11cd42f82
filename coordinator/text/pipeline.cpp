// Running the parts in order; see pipeline.h.
#include "coordinator/text/pipeline.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

constexpr std::size_t kMaxEncodeBytes = std::size_t{1} << 28;  // the parts count in 32 bits

class Pipeline final : public Tokenizer {
 public:
  explicit Pipeline(PipelineParts parts) : parts_(std::move(parts)) {}

  absl::StatusOr<std::vector<TokenId>> encode(absl::string_view text, bool parse_special,
                                              bool add_special) const override;

  absl::string_view bytes_of(TokenId id) const override { return parts_.vocabulary.bytes(id); }
  absl::string_view name_of(TokenId id) const override { return parts_.vocabulary.name(id); }
  bool is_special(TokenId id) const override { return parts_.vocabulary.special(id); }
  int vocab_size() const override { return parts_.vocabulary.size(); }
  bool strips_leading_space() const override { return parts_.strips_leading_space; }

 private:
  // Buffers that are used again for every part of one text.
  struct Scratch {
    std::string normalized;
    std::string prepared;
    std::vector<absl::string_view> pieces;
  };

  absl::Status encode_plain(absl::string_view text, bool first, bool parse_special,
                            Scratch& scratch, std::vector<TokenId>* out) const;
  absl::Status encode_pieces(absl::string_view text, bool first, Scratch& scratch,
                             std::vector<TokenId>* out) const;

  PipelineParts parts_;
};

absl::StatusOr<std::vector<TokenId>> Pipeline::encode(absl::string_view text, bool parse_special,
                                                      bool add_special) const {
  if (text.size() > kMaxEncodeBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the text has ", text.size(), " bytes; at most ",
                                                   kMaxEncodeBytes, " can be tokenized."));
  }
  if (const std::size_t bad = utf8::first_invalid(text); bad != utf8::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not valid UTF-8 at byte ", bad, "."));
  }
  std::vector<TokenId> out;
  out.reserve(text.size() / 4 + 8);
  if (add_special) out = parts_.prefix;
  Scratch scratch;
  for (const AddedTokens::Part& part : parts_.added.split(text, parse_special)) {
    if (part.id >= 0) {
      out.push_back(part.id);
      continue;
    }
    const bool first = part.text.data() == text.data();
    QUIRE_RETURN_IF_ERROR(encode_plain(part.text, first, parse_special, scratch, &out));
  }
  if (add_special) out.insert(out.end(), parts_.suffix.begin(), parts_.suffix.end());
  return out;
}

// Text between the added tokens that are found before normalizing.
absl::Status Pipeline::encode_plain(absl::string_view text, bool first, bool parse_special,
                                    Scratch& scratch, std::vector<TokenId>* out) const {
  QUIRE_ASSIGN_OR_RETURN(const absl::string_view normalized,
                         parts_.normalizer.apply(text, &scratch.normalized));
  if (parts_.normalized_added.empty()) return encode_pieces(normalized, first, scratch, out);
  for (const AddedTokens::Part& part : parts_.normalized_added.split(normalized, parse_special)) {
    if (part.id >= 0) {
      out->push_back(part.id);
      continue;
    }
    const bool begins = first && part.text.data() == normalized.data();
    QUIRE_RETURN_IF_ERROR(encode_pieces(part.text, begins, scratch, out));
  }
  return absl::OkStatus();
}

absl::Status Pipeline::encode_pieces(absl::string_view text, bool first, Scratch& scratch,
                                     std::vector<TokenId>* out) const {
  text = parts_.pre_tokenizer.prepare(text, first, &scratch.prepared);
  QUIRE_RETURN_IF_ERROR(parts_.pre_tokenizer.split(text, &scratch.pieces));
  if (const Bpe* bpe = std::get_if<Bpe>(&parts_.model)) {
    for (const absl::string_view piece : scratch.pieces) bpe->encode(piece, out);
  } else if (const Spm* spm = std::get_if<Spm>(&parts_.model)) {
    for (const absl::string_view piece : scratch.pieces) spm->encode(piece, out);
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Tokenizer> make_pipeline(PipelineParts parts) {
  return std::make_unique<Pipeline>(std::move(parts));
}

absl::Status check_token_id(const Vocabulary& vocabulary, TokenId id, const char* what) {
  if (id == -1 || vocabulary.has(id)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ", what, " token has the id ", id,
                                                 ", but the vocabulary has ", vocabulary.size(),
                                                 " tokens"));
}

}  // namespace quire
