// From where a client can go on.
#include "coordinator/api/kept_answer.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

constexpr int kMaxTokens = 50;

std::shared_ptr<KeptAnswer> answer_with(FinishReason finish, TokenId stop_token = -1) {
  auto answer = std::make_shared<KeptAnswer>(std::make_shared<AnswerRecord>(), 0);
  OutputDelta past;
  past.tokens = {1, 2, 3};
  past.finish = finish;
  past.stop_token = stop_token;
  answer->add_prompt({past});
  return answer;
}

TEST(KeptAnswerTest, WhatGoesOnMayBeBehindItsClient) {
  const auto answer = answer_with(FinishReason::kNone);
  EXPECT_TRUE(answer->covers(0, 3, kMaxTokens));
  EXPECT_TRUE(answer->covers(0, kMaxTokens, kMaxTokens));
  EXPECT_FALSE(answer->covers(0, kMaxTokens + 1, kMaxTokens));
  EXPECT_FALSE(answer->covers(1, 0, kMaxTokens)) << "there is no such choice";
}

TEST(KeptAnswerTest, NobodyHasMoreThanTheModelGave) {
  for (const auto& answer :
       {answer_with(FinishReason::kLength), answer_with(FinishReason::kStop, /*stop_token=*/3)}) {
    EXPECT_TRUE(answer->covers(0, 3, kMaxTokens));
    EXPECT_FALSE(answer->covers(0, 4, kMaxTokens));
  }
}

// Its journal has lost the last tokens, and a deadline passed, or the reader had enough, before
// they were computed again: the client still has to hear of its end.
TEST(KeptAnswerTest, WhatWasEndedFromOutsideMayBeBehindItsClient) {
  for (const FinishReason finish :
       {FinishReason::kDeadline, FinishReason::kError, FinishReason::kStop}) {
    const auto answer = answer_with(finish);
    ASSERT_TRUE(answer->covers(0, 20, kMaxTokens));
    EventId::Choice had{20, false};
    std::vector<OutputDelta> heard;
    answer->listen([&](int, OutputDelta delta) {
      take_had(&had, &delta);
      heard.push_back(std::move(delta));
    });
    ASSERT_EQ(heard.size(), 1u);
    EXPECT_TRUE(heard[0].tokens.empty());
    EXPECT_EQ(heard[0].finish, finish);
  }
}

}  // namespace
}  // namespace quire
