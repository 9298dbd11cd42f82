// A vocabulary of 64 ids for tests: 62 letters and digits, one piece that is half of a UTF-8
// character, one special token. Every text made of its letters encodes and decodes exactly.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/api/service.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

class LetterTokenizer final : public Tokenizer {
 public:
  static constexpr TokenId kHalf = 62;     // the first two bytes of U+20AC
  static constexpr TokenId kSpecial = 63;  // "<|end|>"

  absl::StatusOr<std::vector<TokenId>> encode(absl::string_view text, bool parse_special,
                                              bool) const override {
    std::vector<TokenId> ids;
    while (!text.empty()) {
      if (parse_special && text.substr(0, 7) == "<|end|>") {
        ids.push_back(kSpecial);
        text.remove_prefix(7);
        continue;
      }
      const std::size_t at = letters().find(text[0]);
      // What is no letter becomes some letter: prompts of tests only need to be deterministic.
      ids.push_back(at == absl::string_view::npos ? text[0] & 31 : static_cast<TokenId>(at));
      text.remove_prefix(1);
    }
    return ids;
  }
  absl::string_view bytes_of(TokenId id) const override {
    if (id == kHalf) return "\xE2\x82";
    return id == kSpecial ? absl::string_view() : letters().substr(static_cast<std::size_t>(id), 1);
  }
  absl::string_view name_of(TokenId id) const override {
    return id == kSpecial ? "<|end|>" : bytes_of(id);
  }
  bool is_special(TokenId id) const override { return id == kSpecial; }
  int vocab_size() const override { return HashModel{}.vocab; }
  bool strips_leading_space() const override { return false; }

 private:
  static absl::string_view letters() {
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  }
};

inline ServedModel letter_model(int max_model_len) {
  ServedModel model;
  model.name = "letters";
  model.architecture = "hash";
  model.spec.vocab = HashModel{}.vocab;
  model.spec.max_positions = max_model_len;
  model.max_model_len = max_model_len;
  model.tensor_parallel_size = 2;
  model.text.tokenizer = std::make_unique<LetterTokenizer>();
  model.special_texts = {"<|end|>"};
  return model;
}

}  // namespace quire::test
