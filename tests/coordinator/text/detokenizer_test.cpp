// Streaming decode: always valid UTF-8, and joined it is the decoding of all ids, for every model.
#include "coordinator/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "common/utf8.h"
#include "tests/coordinator/text/text_fixtures.h"

namespace quire {
namespace {

class DetokenizerTest : public ::testing::TestWithParam<const char*> {};

// What decoding means, said in one go.
std::string decoded(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                    bool skip_special) {
  std::string bytes;
  for (const TokenId id : ids) {
    if (skip_special && tokenizer.is_special(id)) continue;
    const absl::string_view part = tokenizer.bytes_of(id);
    bytes.append(part.data(), part.size());
  }
  if (tokenizer.strips_leading_space() && !bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
  return utf8::to_valid(bytes);
}

TEST_P(DetokenizerTest, StreamsWhatItDecodes) {
  const auto path = test::shared_file(GetParam());
  QUIRE_NEED_DATA(path);
  const auto tokenizer = test::make_tokenizer(test::json_data(path));
  ASSERT_NE(tokenizer, nullptr);
  const unsigned seed = 7;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const int vocab = tokenizer->vocab_size();
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> ids(random() % 12);
    // Half of the ids are of the first 600: single bytes and short pieces.
    for (TokenId& id : ids) {
      id = static_cast<TokenId>(random() % static_cast<unsigned>(random() % 2 == 0 ? 500 : vocab));
    }
    const bool skip_special = random() % 2 == 0;
    Detokenizer detokenizer(*tokenizer, skip_special);
    std::string joined;
    for (const TokenId id : ids) {
      const std::string piece = detokenizer.push(id);
      ASSERT_EQ(utf8::first_invalid(piece), utf8::npos) << "round " << round;
      joined += piece;
    }
    joined += detokenizer.finish();
    ASSERT_EQ(joined, decoded(*tokenizer, ids, skip_special)) << "round " << round;
    ASSERT_EQ(joined, tokenizer->decode(ids, skip_special)) << "round " << round;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DetokenizerTest,
                         ::testing::Values("data/tokenizers/smollm2/tokenizer.json",
                                           "data/models/stories260K/hf/tokenizer.json"));

TEST(DetokenizerTest, ShowsACharacterWithItsLastByte) {
  const auto path = test::shared_file("data/tokenizers/gpt2/tokenizer.json");
  QUIRE_NEED_DATA(path);
  const auto tokenizer = test::make_tokenizer(test::json_data(path));
  ASSERT_NE(tokenizer, nullptr);
  const auto ids = tokenizer->encode("\xF0\x9F\xA6\x94!", false, false);
  ASSERT_TRUE(ids.ok());
  ASSERT_GT(ids->size(), 2u);  // the hedgehog is more than one token
  Detokenizer detokenizer(*tokenizer, true);
  std::string shown;
  for (std::size_t i = 0; i + 2 < ids->size(); ++i) EXPECT_EQ(detokenizer.push((*ids)[i]), "");
  EXPECT_EQ(detokenizer.push((*ids)[ids->size() - 2]), "\xF0\x9F\xA6\x94");
  EXPECT_EQ(detokenizer.push(ids->back()), "!");
  // Cut off for good: one mark for the part that never became a character.
  Detokenizer cut(*tokenizer, true);
  EXPECT_EQ(cut.push(ids->front()), "");
  EXPECT_EQ(cut.finish(), "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace quire
