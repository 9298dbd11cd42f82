// Deadlines in a whole engine: those that cannot be kept are refused by submit(), all others are
// not. The group answers at once but says that its steps took long, so that no clock is in it.
#include <gmock/gmock.h>

#include <numeric>

#include "absl/time/clock.h"
#include "coordinator/engine/mailbox.h"
#include "tests/coordinator/engine/engine_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

// A prompt of 60 tokens is two steps, of 152 s together.
class DeadlineTest : public EngineTest {
 protected:
  DeadlineTest() {
    worker_.cost = {.step_us = 1e6, .token_us = 2.5e6, .pick_us = 0, .context_us = 0};
  }
  static std::vector<TokenId> prompt(int first, int count = 60) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(count));
    std::iota(tokens.begin(), tokens.end(), first);
    return tokens;
  }
  // One after the other, so many prompts.
  void teach(int count) {
    for (int i = 0; i < count; ++i) {
      auto client = std::make_shared<Client>();
      ASSERT_TRUE(submit(request(prompt(70 * i), 2), client).ok());
      ASSERT_TRUE(client->wait());
    }
  }
  absl::Status ask(std::vector<TokenId> tokens, absl::Duration left) {
    Request wish = request(std::move(tokens), 2);
    wish.deadline = absl::Now() + left;
    return submit(std::move(wish), std::make_shared<Client>()).status();
  }
};

TEST_F(DeadlineTest, OneThatThePromptAloneCannotKeepIsRefusedAtOnce) {
  make_and_attach();
  teach(60);
  const absl::Status refused = ask(prompt(4500), absl::Seconds(60));
  EXPECT_EQ(refused.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("the 60 tokens of its prompt that are not cached take 1"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("cannot be kept"));
  EXPECT_EQ(engine_->stats().rejected_deadline, 1u);
  EXPECT_TRUE(ask(prompt(4500), absl::Seconds(160)).ok()) << "it can be kept";
  EXPECT_TRUE(ask(prompt(4570), absl::InfiniteDuration()).ok());
  EXPECT_EQ(engine_->stats().rejected_deadline, 1u);
}

TEST_F(DeadlineTest, WhatIsCachedTakesNoTime) {
  make_and_attach();
  teach(60);
  EXPECT_TRUE(ask(prompt(70 * 59), absl::Seconds(60)).ok()) << "all but the last block is cached";
  Request other = request(prompt(70 * 59), 2);
  other.deadline = absl::Now() + absl::Seconds(60);
  other.cache_salt = "another";
  EXPECT_FALSE(submit(std::move(other), std::make_shared<Client>()).ok()) << "of another scope";
}

TEST_F(DeadlineTest, NobodyIsRefusedByAGuess) {
  make_and_attach();
  teach(4);  // the model of costs guesses by then
  EXPECT_TRUE(ask(prompt(4500), absl::Seconds(30)).ok());
}

TEST_F(DeadlineTest, ARefusedRequestLeavesNothingBehind) {
  config_.max_num_queued_reqs = 1;
  config_.max_num_seqs = 1;
  worker_.max_num_seqs = 1;
  make_and_attach();
  teach(60);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(ask(prompt(4500), absl::Seconds(60)).code(), absl::StatusCode::kDeadlineExceeded);
  }
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request(prompt(4500), 3), client).ok()) << "the queue is empty";
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).tokens, oracle(prompt(4500), 3, 0));
  EXPECT_EQ(engine_->stats().rejected_deadline, 20u);
}

TEST_F(DeadlineTest, WithoutALoopToAskARequestIsLetIn) {
  engine_ = std::make_unique<Engine>(config_, spec_);
  auto client = std::make_shared<Client>();
  Request wish = request(prompt(1), 2);
  wish.deadline = absl::Now() + absl::Milliseconds(1);
  ASSERT_TRUE(submit(std::move(wish), client).ok());
  engine_->stop();
  EXPECT_EQ(client->choice(0).finish, FinishReason::kCancelled);
}

TEST(VerdictTest, IsTakenOnceAndNotAfterItsTime) {
  Verdict in_time;
  EXPECT_TRUE(in_time.give(absl::DeadlineExceededError("no")));
  EXPECT_FALSE(in_time.wait(absl::Seconds(10)).ok());
  Verdict late;
  EXPECT_TRUE(late.wait(absl::Milliseconds(1)).ok());
  EXPECT_FALSE(late.give(absl::DeadlineExceededError("no")));
}

}  // namespace
}  // namespace quire::test
