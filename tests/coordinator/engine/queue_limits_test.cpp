// What submit() refuses for the sake of the queue, in a whole engine.
#include <gmock/gmock.h>

#include "absl/time/clock.h"
#include "tests/coordinator/engine/engine_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;

using QueueLimitsTest = EngineTest;

TEST_F(QueueLimitsTest, RequestsBeyondTheLimitAreRefusedUntilSomeHaveLeft) {
  config_.max_num_queued_reqs = 4;
  make();  // no group: everything waits
  std::vector<std::shared_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_shared<Client>(2));
    ASSERT_TRUE(submit(request({1, 2, i}, 5, 2), clients.back()).ok()) << "n = 2 is one request";
  }
  auto more = std::make_shared<Client>();
  for (int i = 0; i < 3; ++i) {
    const absl::Status refused = submit(request({1}, 5), more).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("4 requests wait, and at most 4 may"));
  }
  EXPECT_EQ(engine_->stats().rejected_queued_reqs, 3u);
  EXPECT_GE(engine_->retry_after(), absl::Seconds(1));
  group_->attach(engine_.get());
  for (const auto& client : clients) ASSERT_TRUE(client->wait());
  ASSERT_TRUE(submit(request({1, 2}, 5), more).ok());
  ASSERT_TRUE(more->wait());
  EXPECT_EQ(more->choice(0).tokens, oracle({1, 2}, 5, 0));
}

// Far more requests in all than may wait at once: leaving the queue makes room, for ever.
TEST_F(QueueLimitsTest, TheLimitIsOfThoseThatWaitAndNotOfThoseThatCame) {
  config_.max_num_queued_reqs = 2;
  make_and_attach();
  for (int i = 0; i < 50; ++i) {
    auto client = std::make_shared<Client>();
    ASSERT_TRUE(submit(request({1, i}, 2), client).ok()) << i;
    ASSERT_TRUE(client->wait());
  }
  EXPECT_EQ(engine_->stats().rejected_queued_reqs, 0u);
}

TEST_F(QueueLimitsTest, TokensOfPromptsAreLimited) {
  config_.max_num_queued_tokens = 10;
  make();
  auto first = std::make_shared<Client>(), second = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1, 2, 3, 4, 5, 6, 7}, 5), first).ok());
  const absl::Status refused = submit(request({1, 2, 3, 4}, 5), second).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("7 tokens wait"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("exceed 10"));
  EXPECT_TRUE(submit(request({1, 2, 3}, 5), second).ok());
  EXPECT_EQ(engine_->stats().rejected_queued_tokens, 1u);
}

TEST_F(QueueLimitsTest, CancelledRequestsMakeRoom) {
  config_.max_num_queued_reqs = 1;
  make();
  auto first = std::make_shared<Client>(), second = std::make_shared<Client>();
  const auto id = submit(request({1}, 5), first);
  ASSERT_TRUE(id.ok());
  EXPECT_FALSE(submit(request({1}, 5), second).ok());
  engine_->cancel(*id);
  ASSERT_TRUE(first->wait());
  const absl::Time patience = absl::Now() + absl::Seconds(60);
  bool taken = false;
  while (!taken && absl::Now() < patience) {  // until the loop has said so
    taken = submit(request({1}, 5), second).ok();
    if (!taken) absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_TRUE(taken);
}

TEST_F(QueueLimitsTest, ADeadlineOfThePastIsRefusedAtOnce) {
  make();
  auto client = std::make_shared<Client>();
  Request late = request({1}, 5);
  late.deadline = absl::Now() - absl::Milliseconds(1);
  const absl::Status refused = submit(std::move(late), client).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine_->stats().rejected_deadline, 1u);
}

}  // namespace
}  // namespace quire::test
