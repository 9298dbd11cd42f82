// A tokenizer.json of a stranger and, behind a NUL, a text to encode with it. Whatever the ids,
// what the detokenizer shows is valid UTF-8.
#include "common/utf8.h"
#include "coordinator/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  const auto [json, text] = fuzz::halves(fuzz::view(data, size));
  TokenizerData description;
  description.kind = TokenizerData::Kind::kJson;
  description.json = std::string(json);
  const auto tokenizer = Tokenizer::make(description);
  if (!tokenizer.ok()) return 0;
  for (const absl::string_view prompt : {absl::string_view("Hello, world 12 \n\n\xC3\xA9"), text}) {
    const auto ids = (*tokenizer)->encode(prompt, true, true);
    if (!ids.ok()) continue;
    for (const TokenId id : *ids) {
      QUIRE_CHECK_GE(id, 0);
      QUIRE_CHECK_LT(id, (*tokenizer)->vocab_size());
    }
    const std::string shown = (*tokenizer)->decode(*ids, false);
    QUIRE_CHECK_EQ(utf8::first_invalid(shown), utf8::npos);
  }
  return 0;
}
