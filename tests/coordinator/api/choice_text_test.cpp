// From token ids to text for one choice: cuts, counts, held-back bytes, names of tokens.
#include "coordinator/api/choice_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/api/letter_tokenizer.h"

namespace quire::test {
namespace {

class ChoiceTextTest : public ::testing::Test {
 protected:
  OutputDelta delta(const std::string& text, FinishReason finish = FinishReason::kNone) {
    OutputDelta d;
    d.tokens = model_.text.tokenizer->encode(text, true, false).value();
    d.finish = finish;
    return d;
  }
  ChoiceText make(std::vector<std::string> stop, bool include_stop = false, int min_tokens = 0) {
    return ChoiceText(model_.text, {std::move(stop), include_stop, true, min_tokens});
  }

  ServedModel model_ = letter_model(100);
};

TEST_F(ChoiceTextTest, GivesTextAsItComes) {
  ChoiceText choice = make({});
  EXPECT_EQ(choice.push(delta("hel")).text, "hel");
  const ChoiceText::Piece last = choice.push(delta("lo", FinishReason::kLength));
  EXPECT_EQ(last.text, "lo");
  EXPECT_EQ(last.finish, FinishReason::kLength);
  EXPECT_EQ(choice.num_tokens(), 5);
  EXPECT_TRUE(choice.push(delta("more")).empty());
}

TEST_F(ChoiceTextTest, TheFirstTokensEndNothing) {
  ChoiceText choice = make({"E"}, false, 4);
  EXPECT_EQ(choice.push(delta("aEbE")).text, "aEbE");
  const ChoiceText::Piece piece = choice.push(delta("cEd"));
  EXPECT_EQ(piece.text, "c");
  EXPECT_EQ(piece.finish, FinishReason::kStop);
}

TEST_F(ChoiceTextTest, AStopStringOverSeveralDeltasCutsTextAndCount) {
  ChoiceText choice = make({"END", "never"});
  EXPECT_EQ(choice.push(delta("abE")).text, "ab");  // E may begin END
  EXPECT_EQ(choice.push(delta("N")).text, "");
  const ChoiceText::Piece piece = choice.push(delta("Dxyz"));
  EXPECT_EQ(piece.text, "");
  EXPECT_EQ(piece.finish, FinishReason::kStop);
  EXPECT_EQ(piece.stop_string, "END");
  EXPECT_TRUE(piece.stop_engine);
  EXPECT_EQ(piece.tokens.size(), 1u);  // D; x, y and z are not counted
  EXPECT_EQ(choice.num_tokens(), 5);
}

TEST_F(ChoiceTextTest, TextHeldBackComesOutAtTheEnd) {
  ChoiceText choice = make({"END"});
  EXPECT_EQ(choice.push(delta("abEN")).text, "ab");
  EXPECT_EQ(choice.push(delta("", FinishReason::kLength)).text, "EN");
}

TEST_F(ChoiceTextTest, AStopStringWinsOverTheEnginesOwnEnd) {
  ChoiceText choice = make({"END"}, true);
  const ChoiceText::Piece piece = choice.push(delta("xEND", FinishReason::kLength));
  EXPECT_EQ(piece.finish, FinishReason::kStop);
  EXPECT_EQ(piece.text, "xEND");
  EXPECT_FALSE(piece.stop_engine);  // it has ended there already
}

TEST_F(ChoiceTextTest, TheStopTokenIsCountedButNotShown) {
  ChoiceText choice = make({});
  OutputDelta d = delta("abc", FinishReason::kStop);
  d.stop_token = d.tokens.back();
  const ChoiceText::Piece piece = choice.push(d);
  EXPECT_EQ(piece.text, "ab");
  EXPECT_EQ(piece.stop_token, d.stop_token);
  EXPECT_EQ(choice.num_tokens(), 3);
}

TEST_F(ChoiceTextTest, HalfACharacterWaits) {
  ChoiceText choice = make({});
  OutputDelta d;
  d.tokens = {0, LetterTokenizer::kHalf};
  EXPECT_EQ(choice.push(d).text, "a");
  EXPECT_EQ(choice.push(delta("", FinishReason::kLength)).text, "\xEF\xBF\xBD");
}

TEST_F(ChoiceTextTest, NamesTokensInLogprobs) {
  ChoiceText choice = make({"b"});
  OutputDelta d = delta("abc");
  d.logprobs = {{{0, -1.0f}, {0, -1.0f}, {LetterTokenizer::kSpecial, -2.0f}},
                {{1, -1.0f}, {1, -1.0f}, {2, -2.0f}},
                {{2, -1.0f}, {2, -1.0f}, {1, -2.0f}}};
  const ChoiceText::Piece piece = choice.push(d);
  ASSERT_EQ(piece.logprobs.size(), piece.tokens.size());
  ASSERT_EQ(piece.logprobs.size(), 2u);  // a and b; c is after the cut
  EXPECT_EQ(piece.logprobs[0].chosen.bytes, "a");
  ASSERT_EQ(piece.logprobs[0].top.size(), 2u);
  EXPECT_EQ(piece.logprobs[0].top[1].bytes, "<|end|>");
}

TEST(ApiKeysTest, AcceptOnlyTheWholeKey) {
  const ApiKeys open("", {});
  EXPECT_FALSE(open.required());
  EXPECT_EQ(open.tenant_of(""), 0);
  const ApiKeys one("k1", {});
  EXPECT_TRUE(one.required());
  EXPECT_EQ(one.tenant_of("Bearer k1"), 0);
  EXPECT_EQ(one.tenant_of("bearer  k1 "), 0);
  for (const char* wrong : {"", "k1", "Bearer", "Bearer ", "Bearer k", "Bearer k11", "Basic k1"}) {
    EXPECT_EQ(one.tenant_of(wrong), std::nullopt) << wrong;
  }
}

TEST(ApiKeysTest, NameTheTenant) {
  const std::vector<TenantEntry> tenants = {{"a", "key-a", 1}, {"b", "key-b", 2}, {"c", "key", 1}};
  const ApiKeys keys("ignored", tenants);
  EXPECT_TRUE(keys.required());
  EXPECT_EQ(keys.tenant_of("Bearer key-a"), 0);
  EXPECT_EQ(keys.tenant_of("Bearer key-b"), 1);
  EXPECT_EQ(keys.tenant_of("Bearer key"), 2);
  for (const char* wrong : {"", "Bearer ", "Bearer key-", "Bearer ignored", "Bearer a"}) {
    EXPECT_EQ(keys.tenant_of(wrong), std::nullopt) << wrong;
  }
}

TEST(FieldOf, ReadsTheFieldBack) {
  EXPECT_EQ(field_of(absl::InvalidArgumentError("`top_p` is 2; ...")), "top_p");
  EXPECT_EQ(field_of(absl::InvalidArgumentError("The prompt is `x`")), "");
  EXPECT_EQ(field_of(absl::InvalidArgumentError("`broken")), "");
}

}  // namespace
}  // namespace quire::test
