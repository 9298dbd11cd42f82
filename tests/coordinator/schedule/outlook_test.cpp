// What is known of a request before it is added: what of its prompt must be computed, how long that
// takes at least, who is served before it.
#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

class OutlookTest : public SchedulerTest {
 protected:
  OutlookTest() {
    config_.prefix_caching = true;
    config_.max_model_len = 200;
  }
  static std::int64_t step_us(const StepPlan& plan) {
    std::int64_t us = 1000;
    for (const PlanRow& row : plan.rows) us += 500 * row.num_tokens;
    return us;
  }
  void serve(const NewRequest& wish) {
    add(wish);
    while (scheduler_->num_running() + scheduler_->num_waiting() > 0) {
      const StepPlan made = plan();
      StepResult result = run(made);
      result.busy_us = step_us(made);
      apply(std::move(result));
    }
  }
  // Prompts of 40 tokens, which nobody else has, one after the other.
  void teach(int count) {
    for (int i = 0; i < count; ++i) serve(fresh(40, 3));
  }
  NewRequest fresh(int num_prompt, int max_tokens) {
    NewRequest made = wish(num_prompt, max_tokens);
    for (TokenId& token : made.prompt) token = (token + 201 * ++num_fresh_) % 1000;
    return made;
  }
  int num_fresh_ = 0;
};

TEST_F(OutlookTest, ThePromptTakesWhatStepsWereSeenToTake) {
  start(200);
  EXPECT_EQ(scheduler_->outlook(fresh(40, 3)).prompt_s, 0.0);
  EXPECT_EQ(scheduler_->full_step_us(), 0.0);
  teach(2);
  EXPECT_EQ(scheduler_->outlook(fresh(40, 3)).prompt_s, 0.0) << "too few steps to be sure";
  teach(60);
  // In steps of 16, 16 and 8 tokens.
  const Outlook known = scheduler_->outlook(fresh(40, 3));
  EXPECT_EQ(known.missing_tokens, 40);
  EXPECT_LT(known.prompt_s, 0.023);
  EXPECT_GT(known.prompt_s, 0.023 / 2);
  const double longer = scheduler_->outlook(fresh(160, 3)).prompt_s;  // 10 steps of 16
  EXPECT_LT(longer, 0.090);
  EXPECT_GT(longer, 0.090 / 2);
  EXPECT_GE(scheduler_->full_step_us(), 9000 * 0.9);
}

TEST_F(OutlookTest, WhatIsCachedIsNotComputed) {
  start(200);
  teach(60);
  NewRequest again = fresh(40, 3);
  serve(again);
  EXPECT_EQ(scheduler_->outlook(again).missing_tokens, 1) << "the last token is always computed";
  EXPECT_LT(scheduler_->outlook(again).prompt_s, 0.004);
  again.cache_salt = "another";
  EXPECT_EQ(scheduler_->outlook(again).missing_tokens, 40);
  EXPECT_GT(scheduler_->outlook(again).prompt_s, 0.010);
}

TEST_F(OutlookTest, OnlyThoseBeforeItCountWhoFindNoSlotEvenIfAllComeFree) {
  start(200);
  for (int i = 0; i < 4; ++i) add(fresh(10, 30));
  for (int i = 0; i < 3; ++i) step();  // of 16 tokens
  ASSERT_EQ(scheduler_->num_running(), 4);
  for (int i = 0; i < 7; ++i) add(fresh(10, 3));  // with four slots
  NewRequest last = fresh(10, 3);
  EXPECT_EQ(scheduler_->outlook(last).tokens_before, 30);
  last.deadline = last.arrival - absl::Seconds(1);
  EXPECT_EQ(scheduler_->outlook(last).tokens_before, 0) << "its deadline puts it first";
}

}  // namespace
}  // namespace quire::test
