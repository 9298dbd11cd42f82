// All text machinery of the served model in one value: the api's only door to coordinator/text.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"

namespace quire {

struct Text {
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;  // absent: chat is refused with a sentence
  std::string bos_text, eos_text;
};

// Builds it from the checkpoint's metadata. With `skip_tokenizer` nothing of it is looked at, and
// ids have no texts.
absl::StatusOr<Text> make_text(const ModelFile& model, bool skip_tokenizer = false);

}  // namespace quire
