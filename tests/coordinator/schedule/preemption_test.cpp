// Who gives way when blocks run out, recompute, and the loss of a worker group.
#include <gmock/gmock.h>

#include <deque>
#include <set>

#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

using PreemptionTest = SchedulerTest;

TEST_F(PreemptionTest, TheLatestArrivalGivesWayOnceAndComesBackWithAllItsTokens) {
  start(15);  // enough for either, and for both to grow for a while
  const RequestId early = add(7, 50);
  const RequestId late = add(7, 40);
  std::set<RequestId> ended;
  int num_admitted = 0;
  for (int steps = 0; ended.size() < 2 && steps < 200; ++steps) {
    const StepPlan next = plan();
    for (const AdmitRow& row : next.admits) {
      EXPECT_EQ(row.num_prompt_tokens, 7);
      if (++num_admitted <= 2) continue;
      EXPECT_EQ(row.params.seed, late);
      EXPECT_GT(row.tokens.size(), 7u) << "recompute brings the generated tokens along";
      EXPECT_EQ(ended.count(early), 1u) << "it must fit with what it will grow by";
    }
    for (const Gain& gain : apply(run(next))) {
      if (gain.end != EndReason::kNone) ended.insert(gain.request);
    }
  }
  EXPECT_EQ(ended, (std::set<RequestId>{early, late}));
  EXPECT_EQ(num_admitted, 3);
  EXPECT_EQ(scheduler_->counts().preemptions, 1u);
  EXPECT_EQ(scheduler_->num_used_blocks(), 0);
}

TEST_F(PreemptionTest, APreemptedRowInFlightIsAppliedBeforeItComesBack) {
  config_.steps_in_flight = 2;
  start(14);
  add(4, 50);
  const RequestId late = add(4, 40);
  std::deque<StepPlan> flying{plan()};
  for (int steps = 0; steps < 100; ++steps) {
    flying.push_back(plan());
    if (scheduler_->counts().preemptions > 0) break;
    apply(run(flying.front()));
    flying.pop_front();
  }
  ASSERT_THAT(flying.back().releases, SizeIs(1));
  EXPECT_THAT(flying.front().rows, SizeIs(2)) << "the late one has a row in flight";
  EXPECT_THAT(flying.back().rows, SizeIs(1));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  const std::vector<Gain> gains = apply(run(flying.front()));
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_EQ(gains[1].request, late) << "its token counts though it was preempted meanwhile";
}

TEST_F(PreemptionTest, LosingTheGroupPutsEverythingBackInOrder) {
  config_.steps_in_flight = 2;
  start(20, /*epoch=*/1);
  const RequestId a = add(4, 5);
  const RequestId b = add(6, 5);
  const StepPlan first = plan();
  plan();
  apply(run(first));
  scheduler_->lose_group();
  EXPECT_FALSE(scheduler_->can_plan());
  EXPECT_EQ(scheduler_->num_waiting(), 2);
  EXPECT_EQ(scheduler_->num_in_flight(), 0);
  EXPECT_TRUE(scheduler_->verify().ok());
  start(20, /*epoch=*/2);
  const StepPlan again = plan();
  EXPECT_EQ(again.epoch, 2u);
  EXPECT_EQ(again.step, 1u);
  EXPECT_THAT(again.releases, IsEmpty());
  ASSERT_THAT(again.admits, SizeIs(2));
  EXPECT_THAT(again.admits[0].tokens, SizeIs(5)) << "prompt and the one applied token";
  EXPECT_THAT(again.admits[1].tokens, SizeIs(7));
  const std::vector<Gain> gains = apply(run(again));
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_EQ(gains[0].request, a);
  EXPECT_EQ(gains[1].request, b);
}

TEST_F(PreemptionTest, WhatCanNeverFitIsRefused) {
  start(4);
  NewRequest large = wish(10, 8);  // 17 computed positions: 5 blocks of 4
  const absl::Status status = scheduler_->add(large);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), testing::HasSubstr("18 tokens, which is 5 blocks"));
  EXPECT_THAT(status.message(), testing::HasSubstr("holds 4 of 4 tokens"));
  large.params.max_tokens = 7;  // 16 computed positions
  EXPECT_TRUE(scheduler_->add(large).ok());
}

TEST_F(PreemptionTest, ASmallerGroupRefusesWhatWaitsAndNoLongerFits) {
  start(10, 1);
  const RequestId large = add(20, 8);
  add(4, 2);
  step();
  scheduler_->lose_group();
  start(3, 2);
  EXPECT_THAT(refused_, ElementsAre(large));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(PreemptionTest, OneThatRunsAloneHasEveryRowUntilTheOthersMayRunAgain) {
  config_.steps_in_flight = 2;
  start(15);
  const RequestId first = add(5, 20);
  const RequestId second = add(5, 20);
  const RequestId third = add(5, 20);
  StepPlan in_flight = plan();
  ASSERT_THAT(in_flight.rows, SizeIs(3));
  EXPECT_THAT(scheduler_->requests_in_flight(), ElementsAre(first, second, third));
  scheduler_->run_alone(second);
  EXPECT_THAT(plan().rows, IsEmpty()) << "others' rows are in flight";
  apply(run(in_flight));
  for (int i = 0; i < 3; ++i) {
    const StepPlan next = plan();
    EXPECT_THAT(next.rows, SizeIs(1));
    EXPECT_THAT(scheduler_->requests_in_flight(), ElementsAre(second));
    apply(run(next));
  }
  EXPECT_EQ(scheduler_->num_running(), 1);
  scheduler_->run_alone(std::nullopt);
  std::set<RequestId> ended;
  for (const Gain& gain : finish()) {
    if (gain.end != EndReason::kNone) ended.insert(gain.request);
  }
  EXPECT_EQ(ended, (std::set<RequestId>{first, second, third}));
}

TEST_F(PreemptionTest, OneThatWasToRunAloneAndHasEndedHoldsBackNobody) {
  start(15);
  const RequestId first = add(5, 3);
  const RequestId second = add(5, 3);
  scheduler_->run_alone(first);
  step();
  scheduler_->cancel(first);
  std::set<RequestId> ended;
  for (const Gain& gain : finish()) {
    if (gain.end != EndReason::kNone) ended.insert(gain.request);
  }
  EXPECT_EQ(ended, (std::set<RequestId>{second}));
}

// All of them stand still: the bound on prompts would only make the last one wait longer.
TEST_F(SchedulerTest, StreamsOfALostGroupAreComputedAgainWithoutABoundOnPrompts) {
  config_.long_prefill_token_threshold = 2;
  config_.max_num_batched_tokens = 40;
  start(64);
  add(12, 20);
  add(12, 20);
  for (int i = 0; i < 12; ++i) step();
  scheduler_->lose_group();
  start(64, 2);
  const StepPlan again = plan();
  ASSERT_EQ(again.rows.size(), 2u);
  EXPECT_GT(again.rows[0].num_tokens, 12);
  EXPECT_GT(again.rows[1].num_tokens, 12);
  apply(run(again));
  add(12, 4);  // it is over
  EXPECT_EQ(plan().rows.back().num_tokens, 2);
}

}  // namespace
}  // namespace quire::test
