// One request at a time: answers, ends, deadlines, stopping.
#include <gmock/gmock.h>

#include "absl/time/clock.h"
#include "tests/coordinator/engine/engine_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(EngineTest, AnswersAsTheOracleSays) {
  make_and_attach();
  auto client = std::make_shared<Client>(3);
  ASSERT_TRUE(submit(request({1, 2, 3}, 20, 3), client).ok());
  ASSERT_TRUE(client->wait());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client->choice(i).tokens, oracle({1, 2, 3}, 20, i));
    EXPECT_EQ(client->choice(i).finish, FinishReason::kLength);
  }
  engine_->stop();
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.prompt_tokens, 3u);
  EXPECT_EQ(stats.generation_tokens, 60u);
  EXPECT_EQ(stats.finished_length, 3u);
  EXPECT_EQ(stats.used_blocks, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.total_blocks, 40);
  EXPECT_GT(stats.plan_us, 0);
  EXPECT_GT(stats.step_us, 0);
}

TEST_F(EngineTest, AStopTokenIsDeliveredAndNamed) {
  const TokenId third = oracle({7}, 3, 0).back();
  spec_.eos = {third};
  make_and_attach();
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({7}, 20), client).ok());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).tokens, oracle({7}, 3, 0));
  EXPECT_EQ(client->choice(0).finish, FinishReason::kStop);
  EXPECT_EQ(client->choice(0).stop_token, third);
}

TEST_F(EngineTest, WorkThatArrivesBeforeTheGroupWaitsForIt) {
  make();
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({7, 8}, 5), client).ok());
  EXPECT_FALSE(engine_->stats().ready);
  group_->attach(engine_.get());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).tokens, oracle({7, 8}, 5, 0));
}

TEST_F(EngineTest, CancelEndsEveryOpenChoiceOnce) {
  make_and_attach(absl::ZeroDuration(), absl::Milliseconds(2));
  auto client = std::make_shared<Client>(2);
  const absl::StatusOr<RequestId> id = submit(request({1}, 90, 2), client);
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(client->wait_for_tokens(4));
  engine_->cancel(*id);
  engine_->cancel(*id);
  engine_->cancel(*id + 1000);
  ASSERT_TRUE(client->wait());
  engine_->stop();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(client->choice(i).finish, FinishReason::kCancelled);
    EXPECT_FALSE(client->choice(i).late);
  }
  EXPECT_EQ(engine_->stats().finished_abort, 2u);
  EXPECT_EQ(engine_->stats().used_blocks, 0);
}

TEST_F(EngineTest, AStoppedChoiceHearsNothingMoreAndTheOthersGoOn) {
  make_and_attach(absl::ZeroDuration(), absl::Milliseconds(1));
  auto client = std::make_shared<Client>(2);
  const absl::StatusOr<RequestId> id = submit(request({1}, 50, 2), client);
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(client->wait_for_tokens(4));
  engine_->stop_choice(*id, 0);
  engine_->stop_choice(*id, 0);
  engine_->stop_choice(*id, 7);
  client->close(0);
  ASSERT_TRUE(client->wait());
  engine_->stop();
  EXPECT_EQ(client->choice(0).finish, FinishReason::kNone);
  EXPECT_LT(client->choice(0).tokens.size(), 50u);
  EXPECT_EQ(client->choice(1).tokens, oracle({1}, 50, 1));
  EXPECT_EQ(engine_->stats().finished_stop, 1u);
}

TEST_F(EngineTest, ADeadlineEndsARequestThatIsStillQueued) {
  make();  // no group: it can only wait
  auto client = std::make_shared<Client>(2);
  Request late = request({1}, 5, 2);
  late.deadline = absl::Now() + absl::Milliseconds(20);
  ASSERT_TRUE(submit(std::move(late), client).ok());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).finish, FinishReason::kDeadline);
  EXPECT_EQ(client->choice(1).finish, FinishReason::kDeadline);
  EXPECT_THAT(client->choice(0).tokens, IsEmpty());
}

TEST_F(EngineTest, StopCancelsWhatIsUnfinishedAndRefusesWhatComes) {
  make();
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1}, 5), client).ok());
  engine_->stop();
  EXPECT_EQ(client->choice(0).finish, FinishReason::kCancelled);
  const absl::Status status = submit(request({1}, 5), client).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("stopping"));
}

TEST_F(EngineTest, AnEngineThatNeverStartedAlsoEndsItsRequests) {
  engine_ = std::make_unique<Engine>(config_, spec_);
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1}, 5), client).ok());
  engine_->stop();
  EXPECT_EQ(client->choice(0).finish, FinishReason::kCancelled);
}

}  // namespace
}  // namespace quire::test
