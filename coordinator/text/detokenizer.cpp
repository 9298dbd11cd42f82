// Streaming decode; see detokenizer.h. What is pushed, joined, equals the decoding of all ids at
// once: a character is shown as soon as it is complete, or certain never to be.
#include "coordinator/text/detokenizer.h"

#include "common/utf8.h"

namespace quire {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

std::string Detokenizer::push(TokenId id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  absl::string_view bytes = tokenizer_.bytes_of(id);
  if (first_ && !bytes.empty()) {
    first_ = false;
    if (tokenizer_.strips_leading_space() && bytes[0] == ' ') bytes.remove_prefix(1);
  }
  pending_.append(bytes.data(), bytes.size());
  const std::size_t ready = utf8::complete_prefix(pending_);
  std::string text = utf8::to_valid(absl::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return text;
}

std::string Detokenizer::finish() {
  std::string text = utf8::to_valid(pending_);
  pending_.clear();
  return text;
}

}  // namespace quire
