// What single plans look like: order, budget, chunks, admission, steps in flight.
#include <gmock/gmock.h>

#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

using PlanTest = SchedulerTest;

TEST_F(PlanTest, ALongPromptIsComputedInChunks) {
  start(20);
  add(/*num_prompt=*/40, /*max_tokens=*/2);
  StepPlan first = plan();
  ASSERT_THAT(first.admits, SizeIs(1));
  EXPECT_THAT(first.admits[0].tokens, SizeIs(40));
  ASSERT_THAT(first.rows, SizeIs(1));
  EXPECT_EQ(first.rows[0].num_tokens, 16);
  EXPECT_FALSE(first.rows[0].samples);
  EXPECT_THAT(first.rows[0].new_blocks, ElementsAre(SizeIs(4)));
  EXPECT_THAT(apply(run(first)), IsEmpty());
  StepPlan second = plan();
  EXPECT_THAT(second.admits, IsEmpty());
  EXPECT_EQ(second.rows[0].first_position, 16);
  apply(run(second));
  StepPlan third = plan();
  EXPECT_EQ(third.rows[0].num_tokens, 8);
  EXPECT_TRUE(third.rows[0].samples);
  EXPECT_THAT(apply(run(third)), SizeIs(1));
}

TEST_F(PlanTest, DecodesComeBeforePrefills) {
  start(40);
  add(4, 30);
  add(4, 30);
  step();
  add(40, 5);
  for (int i = 0; i < 3; ++i) {
    const StepPlan mixed = plan();
    ASSERT_THAT(mixed.rows, SizeIs(3));
    EXPECT_EQ(mixed.rows[0].num_tokens, 1);
    EXPECT_EQ(mixed.rows[1].num_tokens, 1);
    EXPECT_EQ(mixed.rows[2].num_tokens, i < 2 ? 14 : 12);
    apply(run(mixed));
  }
}

TEST_F(PlanTest, PrefillsShareTheBudgetInOrderOfArrival) {
  start(40);
  add(10, 5);
  add(10, 5);
  add(10, 5);
  const StepPlan first = plan();
  ASSERT_THAT(first.rows, SizeIs(2));
  EXPECT_EQ(first.rows[0].num_tokens, 10);
  EXPECT_EQ(first.rows[1].num_tokens, 6);
}

TEST_F(PlanTest, SlotsLimitTheNumberOfRows) {
  start(40);
  for (int i = 0; i < 6; ++i) add(1, 2);
  EXPECT_THAT(plan().rows, SizeIs(4));
  EXPECT_EQ(scheduler_->num_waiting(), 2);
}

TEST_F(PlanTest, AdmissionLeavesAWatermarkAndRoomToGrow) {
  start(7);
  add(8, 3);  // 2 blocks, 3 at its end
  add(8, 3);  // 2 more and one for each to grow: 1 stays free, the watermark
  add(4, 3);  // 1 more would leave none
  EXPECT_THAT(plan().rows, SizeIs(2));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(PlanTest, ANewcomerMustFitWithAllItsTokensNotOnlyTheFirstChunk) {
  start(14);
  add(30, 2);  // 8 blocks, 4 of them in the first step
  add(24, 2);  // 6 blocks: 14 - 8 promised - 6 leaves no watermark
  EXPECT_THAT(plan().rows, SizeIs(1));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(PlanTest, DepthTwoPlansATokenThatOnlyTheWorkersKnow) {
  config_.steps_in_flight = 2;
  start(20);
  add(4, 3);
  const StepPlan first = plan();
  const StepPlan second = plan();
  ASSERT_THAT(second.rows, SizeIs(1));
  EXPECT_EQ(second.rows[0].first_position, 4);
  EXPECT_TRUE(second.rows[0].samples);
  EXPECT_FALSE(scheduler_->can_plan());
  EXPECT_THAT(apply(run(first)), SizeIs(1));
  const StepPlan third = plan();
  EXPECT_EQ(third.rows[0].first_position, 5);
  EXPECT_THAT(apply(run(second)), SizeIs(1));
  EXPECT_THAT(plan().rows, IsEmpty()) << "the third token is the last and is on its way";
  const std::vector<Gain> last = apply(run(third));
  ASSERT_THAT(last, SizeIs(1));
  EXPECT_EQ(last[0].end, EndReason::kLength);
  EXPECT_EQ(scheduler_->num_used_blocks(), 0);
}

TEST_F(PlanTest, ARowFoundEndedLateIsDiscarded) {
  config_.steps_in_flight = 2;
  start(20);
  std::vector<TokenId> prompt{0, 1, 2, 3};
  const TokenId first_token = HashModel{config_.vocab}.next(prompt, /*seed=*/1, 0);
  add(4, 10, {first_token});
  const StepPlan first = plan();
  const StepPlan second = plan();
  const std::vector<Gain> gains = apply(run(first));
  ASSERT_THAT(gains, SizeIs(1));
  EXPECT_EQ(gains[0].end, EndReason::kStop);
  add(4, 2);
  const StepPlan third = plan();
  EXPECT_THAT(third.releases, ElementsAre(first.rows[0].slot));
  EXPECT_THAT(apply(run(second)), IsEmpty());
  EXPECT_THAT(apply(run(third)), SizeIs(1));
}

TEST_F(PlanTest, CancelFreesAtOnceAndTheReleaseTravelsWithTheNextPlan) {
  start(20);
  const RequestId gone = add(8, 10);
  add(8, 10);
  const StepPlan first = plan();
  scheduler_->cancel(gone);
  EXPECT_EQ(scheduler_->num_used_blocks(), 2);
  scheduler_->cancel(gone);
  EXPECT_THAT(apply(run(first)), SizeIs(1)) << "only the other one's token counts";
  EXPECT_THAT(plan().releases, ElementsAre(first.rows[0].slot));
}

TEST_F(PlanTest, ReleasesWaitForAPlanThatIsSent) {
  start(20);
  const RequestId gone = add(4, 10);
  step();
  scheduler_->cancel(gone);
  const StepPlan nothing = plan();
  EXPECT_THAT(nothing.rows, IsEmpty());
  EXPECT_THAT(nothing.releases, IsEmpty());
  add(4, 10);
  const StepPlan next = plan();
  EXPECT_THAT(next.releases, SizeIs(1));
  EXPECT_EQ(next.step, 2u) << "a plan that is not sent takes no step id";
  run(next);
}

}  // namespace
}  // namespace quire::test
