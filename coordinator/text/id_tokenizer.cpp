// A vocabulary of ids that stand for nothing but themselves: --skip-tokenizer-init.
#include "coordinator/text/tokenizer.h"

namespace quire {
namespace {

class IdTokenizer final : public Tokenizer {
 public:
  explicit IdTokenizer(int vocab) : vocab_(vocab) {}

  absl::StatusOr<std::vector<TokenId>> encode(absl::string_view, bool, bool) const override {
    return absl::InvalidArgumentError(
        "the server runs without a tokenizer (--skip-tokenizer-init); send token ids.");
  }
  absl::string_view bytes_of(TokenId) const override { return {}; }
  absl::string_view name_of(TokenId) const override { return {}; }
  bool is_special(TokenId) const override { return false; }
  int vocab_size() const override { return vocab_; }
  bool strips_leading_space() const override { return false; }
  bool has_text() const override { return false; }

 private:
  const int vocab_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_id_tokenizer(int vocab) {
  return std::make_unique<IdTokenizer>(vocab);
}

}  // namespace quire
