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

TEST_F(PreemptionTest, TheLatestArrivalGivesWayAndComesBackWithAllItsTokens) {
  start(5);
  const SequenceId early = add(7, 10);  // 2 blocks, soon 3, then 4
  const SequenceId late = add(7, 6);    // 2 blocks, soon 3
  step();
  StepPlan next = plan();  // both need their eighth position: no new block yet
  EXPECT_THAT(next.rows, SizeIs(2));
  apply(run(next));
  next = plan();  // ninth position: one free block, the early one takes it, the late one waits
  ASSERT_THAT(next.rows, SizeIs(1));
  EXPECT_EQ(scheduler_->num_preemptions(), 0u);
  int steps = 0;
  std::set<SequenceId> ended;
  for (; ended.size() < 2 && steps < 100; ++steps) {
    for (const Gain& gain : apply(run(next))) {
      if (gain.end != EndReason::kNone) ended.insert(gain.sequence);
    }
    next = plan();
    for (const AdmitRow& row : next.admits) {
      EXPECT_GT(row.tokens.size(), 7u) << "recompute brings the generated tokens along";
      EXPECT_EQ(row.num_prompt_tokens, 7);
    }
  }
  EXPECT_EQ(ended, (std::set<SequenceId>{early, late}));
  EXPECT_EQ(scheduler_->num_preemptions(), 1u);
  EXPECT_EQ(scheduler_->num_used_blocks(), 0);
}

TEST_F(PreemptionTest, APreemptedRowInFlightIsAppliedBeforeItComesBack) {
  config_.steps_in_flight = 2;
  start(4);
  add(4, 12);
  const SequenceId late = add(4, 8);
  std::deque<StepPlan> flying{plan()};
  while (true) {
    flying.push_back(plan());
    if (scheduler_->num_preemptions() > 0) break;
    apply(run(flying.front()));
    flying.pop_front();
  }
  ASSERT_THAT(flying.back().releases, SizeIs(1));
  EXPECT_THAT(flying.front().rows, SizeIs(2)) << "the late one has a row in flight";
  EXPECT_THAT(flying.back().rows, SizeIs(1));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  const std::vector<Gain> gains = apply(run(flying.front()));
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_EQ(gains[1].sequence, late) << "its token counts though it was preempted meanwhile";
}

TEST_F(PreemptionTest, LosingTheGroupPutsEverythingBackInOrder) {
  config_.steps_in_flight = 2;
  start(20, /*epoch=*/1);
  const SequenceId a = add(4, 5);
  const SequenceId b = add(6, 5);
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
  EXPECT_EQ(gains[0].sequence, a);
  EXPECT_EQ(gains[1].sequence, b);
}

TEST_F(PreemptionTest, WhatCanNeverFitIsRefused) {
  start(4);
  NewSequence wish;
  wish.prompt.assign(10, 1);
  wish.params.max_tokens = 8;  // 17 computed positions: 5 blocks of 4
  const absl::Status status = scheduler_->add(wish).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), testing::HasSubstr("18 tokens"));
  EXPECT_THAT(status.message(), testing::HasSubstr("16"));
  wish.params.max_tokens = 7;  // 16 computed positions
  EXPECT_TRUE(scheduler_->add(wish).ok());
}

TEST_F(PreemptionTest, ASmallerGroupRefusesWhatWaitsAndNoLongerFits) {
  start(10, 1);
  const SequenceId large = add(20, 8);
  add(4, 2);
  step();
  scheduler_->lose_group();
  start(3, 2);
  ASSERT_THAT(refused_, SizeIs(1));
  EXPECT_EQ(refused_[0].sequence, large);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

}  // namespace
}  // namespace quire::test
