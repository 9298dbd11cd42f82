// Chooses the builder for a checkpoint's tokenizer, and decodes whole lists of ids.
#include "coordinator/text/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/pipeline.h"

namespace quire {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> build(const TokenizerData& data) {
  switch (data.kind) {
    case TokenizerData::Kind::kGgufBpe:
    case TokenizerData::Kind::kGgufSpm:
      return make_gguf_tokenizer(data);
    case TokenizerData::Kind::kJson:
      return make_hf_tokenizer(data);
    case TokenizerData::Kind::kNone:
      break;
  }
  return absl::InvalidArgumentError(
      "the checkpoint has none; with --skip-tokenizer-init it is served by token ids");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::make(const TokenizerData& data) {
  auto tokenizer = build(data);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat("The tokenizer cannot be used: ", tokenizer.status().message()));
}

std::string Tokenizer::decode(absl::Span<const TokenId> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const TokenId id : ids) text += detokenizer.push(id);
  text += detokenizer.finish();
  return text;
}

}  // namespace quire
