// Several groups behind one loop, one event at a time: who gets what, and what a loss does.
#include "coordinator/engine/lanes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/simulation/lanes_world.h"

namespace quire::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::IsEmpty;
using testing::SizeIs;

class LanesTest : public testing::Test {
 protected:
  LanesTest() {
    setup_.scheduler.max_num_seqs = 4;
    setup_.scheduler.max_num_batched_tokens = 16;
    setup_.scheduler.block_size = 4;
    setup_.scheduler.max_model_len = 120;
    setup_.scheduler.vocab = 5000;
    setup_.blocks = {60, 60};
    setup_.model.vocab = 5000;
  }
  ~LanesTest() override { EXPECT_TRUE(world_->broken().ok()) << world_->broken(); }

  void make(const std::vector<int>& attached = {0, 1}) {
    world_ = std::make_unique<LanesWorld>(setup_);
    for (const int seat : attached) world_->attach(seat);
    world_->turn();
  }
  static Request request(std::vector<TokenId> prompt, int max_tokens, int n = 1) {
    Request request;
    request.prompt = std::move(prompt);
    request.params.max_tokens = max_tokens;
    request.params.seed = 42;
    request.n = n;
    return request;
  }
  RequestId submit(std::vector<TokenId> prompt, int max_tokens, int n = 1) {
    return world_->submit(request(std::move(prompt), max_tokens, n));
  }
  static std::vector<TokenId> counting(TokenId first, int count) {
    std::vector<TokenId> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(first + i);
    return tokens;
  }
  // One step of every group.
  void step() {
    for (std::size_t seat = 0; seat < setup_.blocks.size(); ++seat) {
      world_->answer(static_cast<int>(seat));
    }
    world_->turn();
  }
  void expect_right(RequestId id) {
    const LanesWorld::Answer& answer = world_->of(id);
    const auto wanted = world_->oracle(answer.request);
    ASSERT_EQ(wanted.size(), answer.choices.size());
    for (std::size_t choice = 0; choice < wanted.size(); ++choice) {
      EXPECT_EQ(answer.choices[choice].tokens, wanted[choice]) << id << " choice " << choice;
      EXPECT_EQ(answer.choices[choice].finish, FinishReason::kLength);
    }
  }

  LanesSetup setup_;
  std::unique_ptr<LanesWorld> world_;
};

TEST_F(LanesTest, RequestsAreSharedOutAndAnsweredAsByOne) {
  make();
  std::vector<RequestId> ids;
  for (TokenId i = 0; i < 12; ++i) ids.push_back(submit({100 * i, 7, i}, 10 + i, 1 + i % 3));
  world_->turn();
  EXPECT_EQ(world_->stats().num_ready, 2);
  EXPECT_THAT(world_->take_admitted(0), SizeIs(Ge(2u)));
  EXPECT_THAT(world_->take_admitted(1), SizeIs(Ge(2u)));
  ASSERT_TRUE(world_->finish());
  for (const RequestId id : ids) expect_right(id);
  const EngineStats stats = world_->stats();
  EXPECT_EQ(stats.finished_length, 3u * 12 - 12);
  for (const GroupStats& group : stats.groups) EXPECT_GT(group.steps, 5u);
}

TEST_F(LanesTest, WhatALostGroupHadGoesOnInTheOtherInTheSameTurn) {
  make();
  std::vector<RequestId> ids;
  for (TokenId i = 0; i < 4; ++i) ids.push_back(submit({100 * i, 7}, 40));
  world_->turn();
  for (int i = 0; i < 6; ++i) step();
  world_->take_admitted(0);
  const auto there = static_cast<std::size_t>(world_->stats().groups[1].running);
  ASSERT_EQ(there, 2u);
  world_->kill(1);
  world_->answer(0);  // so that it may be sent another plan
  world_->turn();
  const auto admitted = world_->take_admitted(0);
  ASSERT_THAT(admitted, SizeIs(there));
  for (const auto& tokens : admitted) EXPECT_GT(tokens.size(), 4u) << "with what it had gained";
  const EngineStats stats = world_->stats();
  EXPECT_EQ(stats.num_ready, 1);
  EXPECT_TRUE(stats.ready);
  EXPECT_EQ(stats.group_losses, 1u);
  EXPECT_EQ(stats.requests_recovered, 2u);
  EXPECT_GT(stats.tokens_recomputed, 8u);
  ASSERT_TRUE(world_->finish());
  for (const RequestId id : ids) expect_right(id);
}

TEST_F(LanesTest, AGroupThatComesBackGetsWorkAgain) {
  make();
  world_->kill(0);
  world_->turn();
  std::vector<RequestId> ids;
  for (TokenId i = 0; i < 9; ++i) ids.push_back(submit({100 * i, 7}, 30));
  world_->turn();
  EXPECT_EQ(world_->stats().running, 4);
  for (int i = 0; i < 3; ++i) step();
  world_->attach(0);
  world_->turn();
  EXPECT_THAT(world_->take_admitted(0), SizeIs(4)) << "those that waited";
  ASSERT_TRUE(world_->finish());
  for (const RequestId id : ids) expect_right(id);
}

TEST_F(LanesTest, WithoutAnyGroupRequestsWaitAndCanEnd) {
  make({});
  const RequestId stays = submit({1, 2}, 20, 2);
  const RequestId goes = submit({3, 4}, 20);
  world_->turn();
  EXPECT_EQ(world_->stats().waiting, 2) << "and a choice that follows the first";
  world_->cancel(goes);
  world_->stop_choice(stays, 1);
  world_->turn();
  EXPECT_EQ(world_->of(goes).choices[0].finish, FinishReason::kCancelled);
  world_->attach(1);
  ASSERT_TRUE(world_->finish());
  EXPECT_EQ(world_->of(stays).choices[0].tokens, world_->oracle(world_->of(stays).request)[0]);
  EXPECT_THAT(world_->of(stays).choices[1].tokens, IsEmpty());
}

TEST_F(LanesTest, AChoiceThatWasStoppedIsNotHandedOver) {
  make({0});
  const RequestId id = submit({1, 2, 3}, 30, 3);
  world_->turn();
  for (int i = 0; i < 5; ++i) step();
  world_->stop_choice(id, 0);
  world_->turn();
  world_->kill(0);
  world_->attach(1);
  ASSERT_TRUE(world_->finish());
  const auto wanted = world_->oracle(world_->of(id).request);
  EXPECT_LT(world_->of(id).choices[0].tokens.size(), 30u);
  for (const std::size_t choice : {1u, 2u}) {
    EXPECT_EQ(world_->of(id).choices[choice].tokens, wanted[choice]);
  }
}

TEST_F(LanesTest, APromptGoesWhereItsBeginningIs) {
  make();
  submit(counting(1000, 48), 2);
  submit(counting(2000, 48), 2);
  ASSERT_TRUE(world_->finish());
  const auto first = world_->take_admitted(0);
  ASSERT_THAT(first, SizeIs(1));
  ASSERT_THAT(world_->take_admitted(1), SizeIs(1));
  for (const TokenId start : {2000, 1000, 1000, 2000}) {
    std::vector<TokenId> prompt = counting(start, 48);
    prompt.push_back(start == 2000 ? 5 : 6);
    submit(prompt, 2);
    ASSERT_TRUE(world_->finish());
    const int seat = first[0][0] == start ? 0 : 1;
    EXPECT_THAT(world_->take_admitted(seat), SizeIs(1)) << start;
    EXPECT_THAT(world_->take_admitted(1 - seat), IsEmpty()) << start;
  }
  EXPECT_EQ(world_->stats().prefix_hits, 4u * 48);
}

TEST_F(LanesTest, TheOrderIsOneOverAllGroups) {
  setup_.scheduler.max_num_seqs = 1;
  make();
  std::vector<RequestId> ids;
  for (TokenId i = 0; i < 8; ++i) ids.push_back(submit({100 * i + 1, 7, 8}, 6));
  std::vector<TokenId> begun;
  world_->turn();
  for (int i = 0; i < 100 && world_->stats().unfinished > 0; ++i) {
    for (const int seat : {0, 1}) {
      for (const auto& tokens : world_->take_admitted(seat)) begun.push_back(tokens[0]);
    }
    step();
  }
  EXPECT_THAT(begun, ElementsAre(1, 101, 201, 301, 401, 501, 601, 701));
}

TEST_F(LanesTest, TenantsGetTheirSharesOfAllGroupsTogether) {
  setup_.scheduler.policy = Policy::kFair;
  setup_.scheduler.tenant_weights = {1.0, 3.0};
  setup_.scheduler.max_num_seqs = 2;
  make();
  for (TokenId i = 0; i < 120; ++i) {
    Request wish = request({100 * i, 7, 8, 9}, 10);
    wish.tenant = i < 60 ? 0 : 1;  // the first one has come with all it has before the other
    world_->submit(std::move(wish));
  }
  world_->turn();
  for (int i = 0; i < 150; ++i) step();
  std::vector<double> gained(2, 0.0);
  for (const auto& [id, answer] : world_->answers()) {
    gained[static_cast<std::size_t>(answer.request.tenant)] +=
        static_cast<double>(answer.choices[0].tokens.size());
  }
  ASSERT_GT(world_->stats().waiting, 20) << "both still want more";
  EXPECT_NEAR(gained[1] / gained[0], 3.0, 0.5);
}

TEST_F(LanesTest, ALargeRequestWaitsForTheGroupThatCanHoldIt) {
  setup_.blocks = {8, 60};
  make({0});
  const RequestId large = submit(counting(100, 60), 20);
  const RequestId small = submit({1, 2}, 10);
  world_->turn();
  for (int i = 0; i < 14; ++i) step();
  EXPECT_TRUE(world_->of(small).ended()) << "it is not held back";
  EXPECT_THAT(world_->of(large).choices[0].tokens, IsEmpty());
  world_->attach(1);
  ASSERT_TRUE(world_->finish());
  expect_right(large);
  expect_right(small);
}

TEST_F(LanesTest, ManyThatWaitForAnAbsentGroupHoldNobodyBack) {
  setup_.blocks = {8, 60};
  make({0});
  for (TokenId i = 0; i < 100; ++i) submit(counting(10 * i, 60), 20);
  const RequestId small = submit({1, 2}, 5);
  world_->turn();
  for (int i = 0; i < 8; ++i) step();
  EXPECT_TRUE(world_->of(small).ended());
  EXPECT_EQ(world_->stats().waiting, 100);
}

TEST_F(LanesTest, WhatNoGroupCanHoldEndsWhenAllAreThere) {
  setup_.blocks = {8, 10};
  make({0});
  const RequestId large = submit(counting(100, 60), 20, 2);
  world_->turn();
  EXPECT_FALSE(world_->of(large).ended());
  world_->attach(1);
  world_->turn();
  for (const OutputDelta& choice : world_->of(large).choices) {
    EXPECT_EQ(choice.finish, FinishReason::kError);
    EXPECT_THAT(choice.error, testing::HasSubstr("every worker group"));
  }
}

TEST_F(LanesTest, WhatGaveWayInAFullGroupGoesToAnIdleOne) {
  setup_.blocks = {14, 14};
  setup_.scheduler.prefix_caching = false;
  make({0});
  std::vector<RequestId> ids;
  for (TokenId i = 0; i < 3; ++i) ids.push_back(submit({100 * i, 7}, 40));  // 11 blocks each
  world_->turn();
  for (int i = 0; i < 60 && world_->stats().preemptions == 0; ++i) step();
  ASSERT_GT(world_->stats().preemptions, 0u);
  ASSERT_GT(world_->stats().groups[0].waiting, 0);
  world_->attach(1);
  world_->turn();
  world_->turn();
  EXPECT_EQ(world_->stats().groups[1].running, 1);
  ASSERT_TRUE(world_->finish());
  for (const RequestId id : ids) expect_right(id);
}

TEST_F(LanesTest, OneThatWaitsForAnAbsentGroupHindersNoBalance) {
  setup_.blocks = {14, 14, 60};
  setup_.scheduler.prefix_caching = false;
  make({0});
  submit(counting(100, 60), 20);  // for the third group, which never comes
  for (TokenId i = 0; i < 3; ++i) submit({100 * i, 7}, 40);
  world_->turn();
  for (int i = 0; i < 60 && world_->stats().preemptions == 0; ++i) step();
  ASSERT_GT(world_->stats().groups[0].waiting, 0);
  world_->attach(1);
  world_->turn();
  world_->turn();
  EXPECT_EQ(world_->stats().groups[1].running, 1);
}

TEST_F(LanesTest, ASearchIsRedoneInTheOtherGroup) {
  make();
  Request search = request({5, 6, 7}, 12);
  search.beams.width = 3;
  search.params.ignore_eos = true;
  search.n = 2;
  const RequestId id = world_->submit(std::move(search));
  world_->turn();
  for (int i = 0; i < 5; ++i) step();
  const int seat = world_->stats().groups[0].running > 0 ? 0 : 1;
  ASSERT_EQ(world_->stats().groups[static_cast<std::size_t>(seat)].running, 3);
  world_->kill(seat);
  ASSERT_TRUE(world_->finish());
  expect_right(id);
}

TEST_F(LanesTest, WhatKillsGroupsRunsAloneInOneWhileTheOtherGoesOn) {
  make();
  world_->set_poison(4999);
  std::vector<RequestId> good;
  for (TokenId i = 0; i < 3; ++i) good.push_back(submit({100 * i, 7}, 60));
  const RequestId poison = submit({4999, 1}, 20, 2);
  world_->turn();
  for (int i = 0; i < 2000 && world_->stats().unfinished > 0; ++i) {
    step();
    for (const int seat : {0, 1}) {
      if (!world_->is_there(seat)) world_->attach(seat);
    }
  }
  EXPECT_EQ(world_->num_deaths(), 3) << "twice in company, once alone";
  for (const OutputDelta& choice : world_->of(poison).choices) {
    EXPECT_EQ(choice.error_code, "request_quarantined");
  }
  for (const RequestId id : good) expect_right(id);
  EXPECT_EQ(world_->stats().requests_quarantined, 1u);
}

TEST_F(LanesTest, AnAnswerOfAnEpochThatHasEndedIsDropped) {
  make();
  submit({1, 2}, 20);
  world_->turn();
  step();
  for (const int seat : {0, 1}) {
    if (world_->num_plans(seat) == 0) continue;
    world_->answer(seat);  // it is in the inbox when the loss comes
    world_->kill(seat);
  }
  ASSERT_TRUE(world_->finish());
  expect_right(1);
}

}  // namespace
}  // namespace quire::test
