// Tokenizer and chat template of one checkpoint.
#include "coordinator/text/text.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire {

absl::StatusOr<Text> make_text(const ModelFile& model, bool skip_tokenizer) {
  const auto with_path = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(model.path, ": ", status.message()));
  };
  Text text;
  if (skip_tokenizer) {
    text.tokenizer = make_id_tokenizer(model.spec.vocab);
    return text;
  }
  auto tokenizer = Tokenizer::make(model.tokenizer);
  if (!tokenizer.ok()) return with_path(tokenizer.status());
  text.tokenizer = *std::move(tokenizer);
  text.bos_text = model.tokenizer.bos_text;
  text.eos_text = model.tokenizer.eos_text;
  if (model.chat_template.empty()) return text;
  auto chat_template = ChatTemplate::parse(model.chat_template);
  if (!chat_template.ok()) return with_path(chat_template.status());
  text.chat_template = *std::move(chat_template);
  return text;
}

}  // namespace quire
