// Results: what ends a sequence, and what only a broken worker sends.
#include <gmock/gmock.h>

#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class ResultTest : public SchedulerTest {
 protected:
  // A plan with two sampling rows and one that does not sample, and its result.
  void make_step() {
    config_.max_num_batched_tokens = 12;
    start(40);
    add(4, 5);
    add(4, 5);
    add(20, 5);
    good_ = run(plan());
    ASSERT_THAT(good_.rows, SizeIs(2));
  }
  void expect_refused(const StepResult& result, const char* what) {
    const absl::Status status = scheduler_->apply(result).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(status.message(), HasSubstr(what));
    EXPECT_TRUE(scheduler_->verify().ok());
    EXPECT_EQ(scheduler_->num_in_flight(), 1) << "nothing may change";
  }
  StepResult good_;
};

TEST_F(ResultTest, BrokenResultsChangeNothing) {
  make_step();
  StepResult bad = good_;
  bad.step = 7;
  expect_refused(bad, "step 7");
  bad = good_;
  bad.epoch = 9;
  expect_refused(bad, "epoch 9");
  bad = good_;
  bad.rows.pop_back();
  expect_refused(bad, "lacks pick 0 of row 1");
  bad = good_;
  bad.rows.erase(bad.rows.begin());
  expect_refused(bad, "lacks pick 0 of row 0");
  bad = good_;
  bad.rows.push_back({.row = 2, .token = 1, .logprobs = {}});
  expect_refused(bad, "row 2");
  bad = good_;
  bad.rows[1].token = config_.vocab;
  expect_refused(bad, "token 1000");
  bad = good_;
  bad.rows[0].token = -1;
  expect_refused(bad, "token -1");
  EXPECT_THAT(apply(good_), SizeIs(2)) << "the right result still counts";
}

TEST_F(ResultTest, AResultWithoutAStepIsRefused) {
  start(4);
  EXPECT_FALSE(scheduler_->apply({.epoch = 1, .step = 1, .rows = {}, .busy_us = 0}).ok());
}

TEST_F(ResultTest, LogprobsThatWereAskedForMustBeThere) {
  start(10);
  NewRequest request = wish(2, 16);
  request.params.logprobs = 2;
  add(request);
  const StepResult good = run(plan());
  StepResult bad = good;
  bad.rows[0].logprobs.clear();
  expect_refused(bad, "logprob");
  const std::vector<Gain> gains = apply(good);
  ASSERT_THAT(gains, SizeIs(1));
  ASSERT_THAT(gains[0].logprobs, SizeIs(1)) << "one list per token";
  ASSERT_THAT(gains[0].logprobs[0], SizeIs(3));
  EXPECT_EQ(gains[0].logprobs[0][0].token, gains[0].tokens[0]);
}

TEST_F(ResultTest, LogitsThatAreNoNumbersEndOneSequence) {
  start(40);
  NewRequest request = wish(4, 5);
  request.params.logprobs = 2;
  add(request);
  add(4, 5);
  StepResult result = run(plan());
  result.rows[0].no_number = true;
  result.rows[0].logprobs.clear();  // nothing can be said of them
  const std::vector<Gain> gains = apply(result);
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_THAT(gains[0].tokens, SizeIs(0));
  EXPECT_EQ(gains[0].end, EndReason::kNoNumber);
  EXPECT_THAT(gains[1].tokens, SizeIs(1));
  EXPECT_EQ(gains[1].end, EndReason::kNone);
  EXPECT_EQ(scheduler_->num_running(), 1);
  EXPECT_TRUE(scheduler_->verify().ok());
}

TEST_F(ResultTest, LogitsThatAreNoNumbersEndAllBeams) {
  start(40);
  NewRequest request = wish(4, 5);
  request.n = 2;
  request.beams.width = 3;
  add(request);
  StepResult result = run(plan());
  apply(result);
  result = run(plan());
  ASSERT_THAT(result.rows, SizeIs(3));
  result.rows[1].no_number = true;
  result.rows[1].logprobs.clear();
  const std::vector<Gain> gains = apply(result);
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_EQ(gains[0].end, EndReason::kNoNumber);
  EXPECT_EQ(gains[1].end, EndReason::kNoNumber);
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_TRUE(scheduler_->verify().ok());
}

TEST_F(ResultTest, EosEndsUnlessItIsIgnored) {
  const TokenId first = HashModel{config_.vocab}.next({{0, 1, 2, 3}}, /*seed=*/1, 0);
  config_.eos = {first};
  start(20);
  add(4, 5);  // request 1: its first token is eos
  NewRequest ignorant = wish(4, 5);
  ignorant.params.seed = 1;
  ignorant.params.ignore_eos = true;
  add(ignorant);
  const std::vector<Gain> gains = step();
  ASSERT_THAT(gains, SizeIs(2));
  EXPECT_THAT(gains[0].tokens, ElementsAre(first));
  EXPECT_EQ(gains[0].end, EndReason::kStop);
  EXPECT_THAT(gains[1].tokens, ElementsAre(first));
  EXPECT_EQ(gains[1].end, EndReason::kNone);
}

TEST_F(ResultTest, TheContextEndsASequenceLikeMaxTokens) {
  config_.max_model_len = 6;
  start(20);
  add(4, 100);
  EXPECT_EQ(step()[0].end, EndReason::kNone);
  EXPECT_EQ(step()[0].end, EndReason::kLength);
  EXPECT_EQ(scheduler_->num_running(), 0);
}

TEST_F(ResultTest, ChoicesOfOneRequestDrawDifferently) {
  start(20);
  NewRequest request = wish(2, 3);
  request.n = 3;
  add(request);
  const std::vector<Gain> gains = step();
  ASSERT_THAT(gains, SizeIs(3));
  for (int i = 0; i < 3; ++i) {
    const Gain& gain = gains[static_cast<std::size_t>(i)];
    EXPECT_EQ(gain.choice, i);
    EXPECT_THAT(gain.tokens, ElementsAre(model_.next({{0, 1}}, request.params.seed, i)));
  }
}

}  // namespace
}  // namespace quire::test
