// Requests that leave one scheduler for another's: at any point, with every token, in their turn.
#include <gmock/gmock.h>

#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;

class MoveTest : public SchedulerTest {
 protected:
  // Takes a request over from scheduler_; `was`: what its client asked for.
  static void move(Scheduler& from, Scheduler* to, const NewRequest& was) {
    Scheduler::Handover handover = from.hand_over(was.id);
    NewRequest again = was;
    again.prompt = std::move(handover.prompt);
    again.past = std::move(handover.past);
    again.admission = handover.admission;
    EXPECT_EQ(again.prompt, was.prompt);
    EXPECT_TRUE(to->add(std::move(again)).ok());
    EXPECT_TRUE(from.verify().ok()) << from.verify();
    EXPECT_TRUE(to->verify().ok()) << to->verify();
  }
  std::vector<TokenId> oracle(const NewRequest& was, int count, int choice) const {
    std::vector<TokenId> tokens = was.prompt;
    for (int i = 0; i < count; ++i) {
      tokens.push_back(model_.next(tokens, was.params.seed, choice));
    }
    return {tokens.begin() + static_cast<std::ptrdiff_t>(was.prompt.size()), tokens.end()};
  }
  // Goes on with the other scheduler as if a new group had come to it.
  void go_on_with(std::unique_ptr<Scheduler> other) {
    scheduler_ = std::move(other);
    start(30, /*epoch=*/2);
  }

  std::unique_ptr<Scheduler> other_;
};

TEST_F(MoveTest, ALostGroupsRequestsGoOnElsewhereWithEveryToken) {
  start(30);
  NewRequest several = wish(5, 9);
  several.n = 3;
  const NewRequest single = wish(7, 12);
  add(several);
  add(single);
  std::map<std::pair<RequestId, int>, std::vector<TokenId>> got;
  const auto collect = [&](const std::vector<Gain>& gains) {
    for (const Gain& gain : gains) {
      auto& tokens = got[{gain.request, gain.choice}];
      tokens.insert(tokens.end(), gain.tokens.begin(), gain.tokens.end());
    }
  };
  for (int i = 0; i < 3; ++i) collect(step());
  scheduler_->stop_choice(several.id, 1);
  scheduler_->lose_group();
  auto other = std::make_unique<Scheduler>(config_);
  move(*scheduler_, other.get(), several);
  move(*scheduler_, other.get(), single);
  EXPECT_EQ(scheduler_->num_waiting(), 0);
  go_on_with(std::move(other));
  collect(finish());
  EXPECT_EQ((got[{several.id, 0}]), oracle(several, 9, 0));
  EXPECT_EQ((got[{several.id, 2}]), oracle(several, 9, 2));
  EXPECT_EQ((got[{single.id, 0}]), oracle(single, 12, 0));
  const auto stopped = got[{several.id, 1}];
  EXPECT_LT(stopped.size(), 9u) << "a choice that was stopped does not go on";
}

TEST_F(MoveTest, OnlyWhatRestsMayMove) {
  config_.steps_in_flight = 2;
  config_.max_num_seqs = 1;
  start(30);
  const RequestId runs = add(3, 5);
  const StepPlan first = plan();
  EXPECT_EQ(scheduler_->first_movable(), nullptr);
  const RequestId waits = add(3, 5);
  ASSERT_NE(scheduler_->first_movable(), nullptr);
  EXPECT_EQ(scheduler_->first_movable()->request->id, waits);
  // One that was preempted with a row in flight is to have that row's token first.
  scheduler_->run_alone(waits);
  EXPECT_TRUE(plan().rows.empty());
  EXPECT_EQ(scheduler_->first_movable()->request->id, waits);
  apply(run(first));
  const StepPlan second = plan();
  EXPECT_EQ(scheduler_->first_movable()->request->id, runs);
  EXPECT_EQ(scheduler_->hand_over(runs).past.at(0).tokens.size(), 1u);
}

TEST_F(MoveTest, WhatItWasToldOfItsFirstAdmissionStays) {
  config_.prefix_caching = true;
  start(30);
  const NewRequest first = wish(12, 2);
  add(first);
  finish();
  const NewRequest second = wish(12, 3);
  add(second);
  const std::vector<Gain> gains = step();
  ASSERT_EQ(gains.size(), 1u);
  EXPECT_EQ(gains[0].num_cached_tokens, 11);
  scheduler_->lose_group();
  auto other = std::make_unique<Scheduler>(config_);
  move(*scheduler_, other.get(), second);
  go_on_with(std::move(other));
  const std::vector<Gain> rest = finish();
  EXPECT_EQ(rest.at(0).num_cached_tokens, 0) << "it has been told";
  EXPECT_EQ(scheduler_->counts().prefix_queries, 0u) << "it was looked up before";
}

TEST_F(MoveTest, ASearchBeginsAnew) {
  start(30);
  NewRequest search = wish(5, 4);
  search.params.ignore_eos = true;
  search.beams.width = 2;
  add(search);
  step();
  step();
  scheduler_->lose_group();
  auto other = std::make_unique<Scheduler>(config_);
  move(*scheduler_, other.get(), search);
  go_on_with(std::move(other));
  const std::vector<Gain> gains = finish();
  ASSERT_EQ(gains.size(), 1u);
  EXPECT_EQ(gains[0].tokens.size(), 4u);
}

TEST_F(MoveTest, TenantsHaveTheirShareOfAllGroupsTogether) {
  config_.policy = Policy::kFair;
  config_.tenant_weights = {1.0, 1.0};
  config_.max_num_seqs = 1;
  const auto shares = std::make_shared<TenantShares>(config_.tenant_weights);
  scheduler_ = std::make_unique<Scheduler>(config_, shares);
  Scheduler other(config_, shares);
  start(30);
  EXPECT_EQ(other.start_group(2, 30, 1).size(), 0u);
  NewRequest large = wish(16, 2);
  large.tenant = 0;
  ASSERT_TRUE(other.add(large).ok());
  NewRequest of_first = wish(4, 2);
  NewRequest of_second = wish(4, 2);
  of_second.tenant = 1;
  add(of_first);
  add(of_second);
  const StepPlan elsewhere = other.plan();
  EXPECT_EQ(elsewhere.rows.size(), 1u);
  ASSERT_EQ(plan().rows.size(), 1u);
  EXPECT_EQ(scheduler_->requests_in_flight(), std::vector<RequestId>{of_second.id})
      << "the first tenant has had a prompt of the other group";
}

TEST_F(MoveTest, LoadIsWhatANewcomerWouldFind) {
  config_.max_num_seqs = 3;
  EXPECT_EQ(Scheduler(config_).load().free_seqs, 0) << "nobody is there";
  start(30);
  GroupLoad load = scheduler_->load();
  EXPECT_TRUE(load.idle);
  EXPECT_EQ(load.free_seqs, 3);
  EXPECT_EQ(load.free_blocks, 29) << "less the watermark";
  add(4, 8);
  step();
  add(40, 2);
  load = scheduler_->load();
  EXPECT_FALSE(load.idle);
  EXPECT_EQ(load.free_seqs, 1);
  EXPECT_EQ(load.streams.num_rows, 1);
  EXPECT_EQ(load.waiting_tokens, 40);
  EXPECT_EQ(load.prompt_tokens, 40);
  // 11 positions at its end, 3 blocks, 1 of them held; 10 blocks for the prompt.
  EXPECT_EQ(load.free_blocks, 29 - 3 - 10);
  step();  // 15 of the prompt's tokens beside the stream's one
  load = scheduler_->load();
  EXPECT_EQ(load.waiting_tokens, 0);
  EXPECT_EQ(load.prompt_tokens, 25);
  EXPECT_EQ(load.free_seqs, 1);
}

}  // namespace
}  // namespace quire::test
