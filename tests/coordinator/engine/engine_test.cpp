// One request at a time: answers, ends, deadlines, stopping.
#include <gmock/gmock.h>

#include <future>

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

TEST_F(EngineTest, WhoIsGivenATokenFindsItInTheNumbers) {
  make_and_attach();
  std::promise<std::uint64_t> counted;
  Request wish = request({1, 2, 3}, 20);
  wish.deliver = [&](const OutputDelta& delta) {
    if (delta.finish != FinishReason::kNone) {
      counted.set_value(engine_->stats().generation_tokens);
    }
  };
  ASSERT_TRUE(engine_->submit(std::move(wish)).ok());
  EXPECT_EQ(counted.get_future().get(), 20u);
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
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("stopping"));
}

TEST_F(EngineTest, ADrainLetsRunningRequestsFinishAndTakesNoMore) {
  make_and_attach(absl::ZeroDuration(), absl::Microseconds(200));
  auto runs = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({3, 4}, 60), runs).ok());
  ASSERT_TRUE(runs->wait_for_tokens(2));
  EXPECT_TRUE(engine_->drain(absl::Minutes(1)));
  EXPECT_EQ(runs->choice(0).tokens, oracle({3, 4}, 60, 0));
  EXPECT_EQ(engine_->state(), ServingState::kDraining);
  EXPECT_EQ(submit(request({1}, 5), runs).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, ADrainEndsWithItsPatienceOrWhenHurried) {
  make_and_attach();
  group_->hang();
  auto hangs = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({3}, 60), hangs).ok());
  EXPECT_FALSE(engine_->drain(absl::Milliseconds(20)));
  std::thread hurrier([this] { engine_->hurry(); });
  EXPECT_FALSE(engine_->drain(absl::Hours(1)));
  hurrier.join();
  engine_->stop();
  EXPECT_EQ(hangs->choice(0).finish, FinishReason::kCancelled) << "it is told, not forgotten";
}

TEST_F(EngineTest, TellsItsOwnerOfEachGroupAndOfItsFirstStep) {
  std::mutex mutex;
  std::vector<std::string> heard;
  const auto note = [&](const std::string& what) {
    std::lock_guard lock(mutex);
    heard.push_back(what);
  };
  engine_ = std::make_unique<Engine>(config_, spec_);
  group_ = std::make_unique<HashGroup>(worker_, absl::Microseconds(200));
  engine_->set_events(
      {.on_ready = [&] { note("ready"); },
       .on_lost = [&] { note("lost"); },
       .on_progress = [&](EpochId e, const std::string&) { note(absl::StrCat("progress ", e)); }});
  EXPECT_EQ(engine_->state(), ServingState::kStarting);
  engine_->start(group_.get());
  group_->attach(engine_.get());
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({3}, 40), client).ok());
  ASSERT_TRUE(client->wait_for_tokens(3));
  group_->kill();
  ASSERT_TRUE(client->wait());
  engine_->stop();
  EXPECT_THAT(heard, testing::ElementsAre("ready", "progress 1", "lost", "ready", "progress 2"));
  engine_->fail();
  EXPECT_EQ(engine_->state(), ServingState::kFailed);
  EXPECT_FALSE(engine_->check_progress().ok());
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
