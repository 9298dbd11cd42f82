// Worker groups that die, hang or lie: no request notices more than a pause.
#include <gmock/gmock.h>

#include "absl/time/clock.h"
#include "tests/coordinator/engine/engine_fixture.h"

namespace quire::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using RecoveryTest = EngineTest;

TEST_F(RecoveryTest, AKilledGroupLosesNoToken) {
  make_and_attach(absl::ZeroDuration(), absl::Microseconds(300));
  auto client = std::make_shared<Client>(2);
  ASSERT_TRUE(submit(request({3, 4, 5}, 90, 2), client).ok());
  for (int tokens : {5, 40, 80, 120}) {
    ASSERT_TRUE(client->wait_for_tokens(tokens));
    group_->kill();
  }
  ASSERT_TRUE(client->wait());
  for (int i = 0; i < 2; ++i) EXPECT_EQ(client->choice(i).tokens, oracle({3, 4, 5}, 90, i));
  EXPECT_THAT(group_->ended(), IsEmpty()) << "the engine had no reason to end an epoch";
  engine_->stop();
  EXPECT_EQ(engine_->stats().group_losses, 4u);
  EXPECT_EQ(engine_->stats().epoch, 5u);
}

TEST_F(RecoveryTest, WithoutAGroupRequestsWaitAndCanBeCancelled) {
  make_and_attach(absl::ZeroDuration(), absl::Microseconds(300));
  auto stays = std::make_shared<Client>();
  auto goes = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({3}, 60), stays).ok());
  const absl::StatusOr<RequestId> id = submit(request({4}, 60), goes);
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(goes->wait_for_tokens(3));
  group_->leave();
  engine_->cancel(*id);
  ASSERT_TRUE(goes->wait());
  EXPECT_EQ(goes->choice(0).finish, FinishReason::kCancelled);
  group_->attach(engine_.get());
  ASSERT_TRUE(stays->wait());
  EXPECT_EQ(stays->choice(0).tokens, oracle({3}, 60, 0));
}

TEST_F(RecoveryTest, AStepWithoutAnswerEndsTheEpoch) {
  make_and_attach(/*step_deadline=*/absl::Milliseconds(50));
  group_->hang();
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({9}, 10), client).ok());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).tokens, oracle({9}, 10, 0));
  ASSERT_THAT(group_->ended(), testing::Not(IsEmpty()));
  EXPECT_THAT(group_->ended()[0], HasSubstr("have not answered step 1 within 50ms"));
}

TEST_F(RecoveryTest, AResultThatBreaksTheProtocolEndsTheEpoch) {
  make_and_attach();
  group_->lie_once();
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({9}, 10), client).ok());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(client->choice(0).tokens, oracle({9}, 10, 0));
  ASSERT_THAT(group_->ended(), SizeIs(1));
  EXPECT_THAT(group_->ended()[0], HasSubstr("row 1048576"));
}

TEST_F(RecoveryTest, AnswersOfAnOlderEpochAreDroppedAndCounted) {
  worker_.epoch = 7;
  make_and_attach();
  engine_->on_result({.epoch = 6, .step = 1, .rows = {}, .busy_us = 0});
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({9}, 10), client).ok());
  ASSERT_TRUE(client->wait());
  engine_->stop();
  EXPECT_EQ(engine_->stats().stale_replies_dropped, 1u);
  EXPECT_THAT(group_->ended(), IsEmpty());
}

TEST_F(RecoveryTest, AGroupWithTooFewBlocksEndsOnlyWhatCannotFit) {
  worker_.num_blocks = 3;
  make();
  auto large = std::make_shared<Client>(2);
  auto small = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1, 2, 3, 4}, 50, 2), large).ok());
  ASSERT_TRUE(submit(request({1}, 5), small).ok());
  group_->attach(engine_.get());
  ASSERT_TRUE(large->wait());
  ASSERT_TRUE(small->wait());
  EXPECT_EQ(large->choice(0).finish, FinishReason::kError);
  EXPECT_EQ(large->choice(1).finish, FinishReason::kError);
  EXPECT_THAT(large->choice(0).error, HasSubstr("3 blocks"));
  EXPECT_EQ(small->choice(0).tokens, oracle({1}, 5, 0));
  const absl::Status status = submit(request({1, 2, 3, 4}, 50), large).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("only 3 blocks"));
}

TEST_F(RecoveryTest, GoingOnByAnotherNumericsIdIsCounted) {
  make(absl::ZeroDuration(), absl::Milliseconds(2));
  group_->set_numerics(7);
  group_->attach(engine_.get());
  auto client = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1}, 90), client).ok());
  ASSERT_TRUE(client->wait_for_tokens(3));
  group_->kill();  // the same again
  const int before = client->num_tokens();
  ASSERT_TRUE(client->wait_for_tokens(before + 3));
  EXPECT_EQ(engine_->stats().numerics_changes, 0u);
  group_->set_numerics(8);
  group_->kill();
  ASSERT_TRUE(client->wait());
  auto fresh = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({1}, 5), fresh).ok());
  ASSERT_TRUE(fresh->wait());
  EXPECT_EQ(engine_->stats().numerics_changes, 1u);
}

TEST_F(RecoveryTest, AnEarlierCoordinatorsNumericsIdCountsToo) {
  make();
  SavedRequest saved{.request = request({1}, 10), .past = {}, .numerics = 7};
  auto client = std::make_shared<Client>();
  saved.request.id = 1;
  saved.request.deliver = [client](OutputDelta delta) { client->take(std::move(delta)); };
  OutputDelta past;
  past.request = 1;
  past.tokens = oracle({1}, 2, 0);
  saved.past = {past};
  ASSERT_TRUE(engine_->resume(std::move(saved)).ok());
  group_->set_numerics(8);
  group_->attach(engine_.get());
  ASSERT_TRUE(client->wait());
  EXPECT_EQ(engine_->stats().numerics_changes, 1u);
}

TEST_F(RecoveryTest, ARequestOfWhichGroupsDieIsEndedAndTheOthersGoOn) {
  make_and_attach(absl::ZeroDuration(), absl::Microseconds(300));
  group_->die_of(4999);
  std::vector<std::shared_ptr<Client>> good;
  for (TokenId first = 10; first < 14; ++first) {
    ASSERT_TRUE(
        submit(request({first, 1}, 50), good.emplace_back(std::make_shared<Client>())).ok());
  }
  ASSERT_TRUE(good[0]->wait_for_tokens(3));
  auto poison = std::make_shared<Client>();
  ASSERT_TRUE(submit(request({7, 4999}, 50), poison).ok());
  for (TokenId first = 14; first < 16; ++first) {
    ASSERT_TRUE(
        submit(request({first, 1}, 50), good.emplace_back(std::make_shared<Client>())).ok());
  }
  ASSERT_TRUE(poison->wait());
  EXPECT_EQ(poison->choice(0).finish, FinishReason::kError);
  EXPECT_EQ(poison->choice(0).error_code, "request_quarantined");
  EXPECT_THAT(poison->choice(0).tokens, IsEmpty());
  for (std::size_t i = 0; i < good.size(); ++i) {
    ASSERT_TRUE(good[i]->wait()) << i;
    EXPECT_EQ(good[i]->choice(0).tokens, oracle({static_cast<TokenId>(10 + i), 1}, 50, 0)) << i;
  }
  engine_->stop();
  EXPECT_EQ(engine_->stats().group_losses, 3u) << "twice in company, once alone";
  EXPECT_EQ(engine_->stats().requests_quarantined, 1u);
  EXPECT_GT(engine_->stats().requests_recovered, 0u);
  EXPECT_GT(engine_->stats().tokens_recomputed, 0u);
}

TEST_F(RecoveryTest, EveryChoiceOfAGuiltyRequestEnds) {
  make_and_attach(absl::ZeroDuration(), absl::Microseconds(300));
  group_->die_of(4999);
  auto poison = std::make_shared<Client>(3);
  auto other = std::make_shared<Client>(3);
  ASSERT_TRUE(submit(request({4999, 4}, 50, 3), poison).ok());
  ASSERT_TRUE(submit(request({5, 4}, 50, 3), other).ok());
  ASSERT_TRUE(poison->wait());
  ASSERT_TRUE(other->wait());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(poison->choice(i).error_code, "request_quarantined");
    EXPECT_EQ(other->choice(i).tokens, oracle({5, 4}, 50, i));
  }
}

}  // namespace
}  // namespace quire::test
