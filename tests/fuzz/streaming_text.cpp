// From bytes of tokens to text: however the bytes are cut into tokens, the text shown is the same
// and is valid UTF-8, and the same stop string is found. Behind a NUL: what the stop strings are.
#include <vector>

#include "absl/strings/str_split.h"
#include "common/utf8.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/stop_matcher.h"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

// Token i is the i-th piece of the input.
class Pieces final : public Tokenizer {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  absl::StatusOr<std::vector<TokenId>> encode(absl::string_view, bool, bool) const override {
    return absl::UnimplementedError("these tokens are only decoded");
  }
  absl::string_view bytes_of(TokenId id) const override {
    return pieces_[static_cast<std::size_t>(id)];
  }
  absl::string_view name_of(TokenId id) const override { return bytes_of(id); }
  bool is_special(TokenId) const override { return false; }
  int vocab_size() const override { return static_cast<int>(pieces_.size()); }
  bool strips_leading_space() const override { return false; }

 private:
  std::vector<std::string> pieces_;
};

// Pieces of 1 to 4 bytes; the bytes themselves say how long.
std::vector<std::string> cut(absl::string_view bytes) {
  std::vector<std::string> pieces;
  while (!bytes.empty()) {
    const auto mixed = static_cast<unsigned char>(bytes.front() ^ bytes.back());
    pieces.emplace_back(bytes.substr(0, 1 + mixed % 4));
    bytes.remove_prefix(pieces.back().size());
  }
  return pieces;
}

std::vector<std::string> stream(const std::vector<std::string>& pieces) {
  const Pieces tokenizer(pieces);
  Detokenizer detokenizer(tokenizer, true);
  std::vector<std::string> shown;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) shown.push_back(detokenizer.push(id));
  shown.push_back(detokenizer.finish());
  return shown;
}

// What is shown, then which stop string ended it.
std::pair<std::string, std::string> match(const std::vector<std::string>& texts,
                                          const std::vector<std::string>& stops) {
  StopMatcher matcher(stops, /*include_stop=*/false);
  std::string shown;
  for (const std::string& text : texts) {
    const StopMatcher::Output out = matcher.push(text);
    shown += out.text;
    if (out.stopped) return {shown, out.stop};
  }
  return {shown + matcher.finish(), ""};
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  const auto [bytes, stop_text] = fuzz::halves(fuzz::view(data, size));
  const std::string valid = utf8::to_valid(bytes);
  QUIRE_CHECK_EQ(utf8::first_invalid(valid), utf8::npos);
  QUIRE_CHECK_EQ(utf8::to_valid(valid), valid);
  if (utf8::first_invalid(bytes) == utf8::npos) QUIRE_CHECK(valid == bytes);
  QUIRE_CHECK_LE(utf8::complete_prefix(bytes), bytes.size());

  const std::vector<std::string> shown = fuzz::stream(fuzz::cut(bytes));
  std::string joined;
  for (const std::string& text : shown) {
    QUIRE_CHECK_EQ(utf8::first_invalid(text), utf8::npos);
    joined += text;
  }
  QUIRE_CHECK_EQ(joined, valid);

  const std::vector<std::string> stops = absl::StrSplit(stop_text, '|');
  const auto streamed = fuzz::match(shown, stops);
  const auto whole = fuzz::match({valid}, stops);
  QUIRE_CHECK_EQ(streamed.first, whole.first);
  QUIRE_CHECK_EQ(streamed.second, whole.second);
  return 0;
}
