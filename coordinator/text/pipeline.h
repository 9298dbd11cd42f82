// The one Tokenizer: added tokens are cut out, what lies between is normalized, cut into pieces and
// encoded by a subword model. The builders (gguf_tokenizer, hf_json) only fill in the parts.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pretokenizer.h"
#include "coordinator/text/spm.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/vocabulary.h"

namespace quire {

struct PipelineParts {
  Vocabulary vocabulary;
  AddedTokens added;             // found in the text as it is
  AddedTokens normalized_added;  // found after normalizing
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::variant<std::monostate, Bpe, Spm> model;  // holds views into `vocabulary`
  std::vector<TokenId> prefix;                   // put around every text with add_special
  std::vector<TokenId> suffix;
  bool strips_leading_space = false;
};

std::unique_ptr<Tokenizer> make_pipeline(PipelineParts parts);

// The builders. InvalidArgument says what is wrong or unknown.
absl::StatusOr<std::unique_ptr<Tokenizer>> make_gguf_tokenizer(const TokenizerData& data);
absl::StatusOr<std::unique_ptr<Tokenizer>> make_hf_tokenizer(const TokenizerData& data);

// Checks that `id` names a token (or is -1: none). `what` is "bos", "eos" or "unknown".
absl::Status check_token_id(const Vocabulary& vocabulary, TokenId id, const char* what);

}  // namespace quire
