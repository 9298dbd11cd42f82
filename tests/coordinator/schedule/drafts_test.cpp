// Guesses that go with rows: the same tokens in fewer steps, and when none are made.
#include <gmock/gmock.h>

#include <deque>

#include "absl/algorithm/container.h"
#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

class DraftsTest : public SchedulerTest {
 protected:
  DraftsTest() {
    allow_long_requests();
    config_.num_speculative_tokens = 4;
    model_.period = 3;  // what it says repeats itself
  }

  static int tokens_of(const StepPlan& plan) {
    int tokens = 0;
    for (const PlanRow& row : plan.rows) tokens += row.num_tokens;
    return tokens;
  }
};

TEST_F(DraftsTest, DraftsThatComeTrueSaveSteps) {
  start(100);
  const RequestId id = add(30, 60);
  std::vector<TokenId> tokens;
  int steps = 0;
  for (; !is_done(); ++steps) {
    for (const Gain& gain : step()) {
      tokens.insert(tokens.end(), gain.tokens.begin(), gain.tokens.end());
    }
  }
  std::vector<TokenId> right = wish(30, 1).prompt;
  for (int i = 0; i < 60; ++i) right.push_back(model_.next(right, id, 0));
  right.erase(right.begin(), right.begin() + 30);
  EXPECT_EQ(tokens, right) << "the same tokens as without drafts";
  EXPECT_LT(steps, 50);
  EXPECT_GT(scheduler_->counts().accepted_draft_tokens, 10u);
}

TEST_F(DraftsTest, DraftsThatMightChangeAnAnswerAreMadeOnDemandOnly) {
  one_answer_ = false;
  for (const bool may_change : {false, true}) {
    scheduler_ = nullptr;
    config_.drafts_may_change_answers = may_change;
    start(100);
    add(30, 60);
    while (!is_done()) step();
    EXPECT_EQ(scheduler_->counts().drafts > 0, may_change);
  }
}

TEST_F(DraftsTest, NothingIsPlannedAheadOfARowWithDrafts) {
  config_.steps_in_flight = 2;
  start(100);
  for (int i = 0; i < 3; ++i) add(30 + i, 60);
  bool drafted = false;
  while (!is_done()) {
    const StepPlan first = plan();
    const StepPlan ahead = plan();
    const bool has_drafts =
        absl::c_any_of(first.rows, [](const PlanRow& row) { return !row.drafts.empty(); });
    EXPECT_FALSE(has_drafts && !ahead.rows.empty());
    drafted = drafted || has_drafts;
    StepResult result = run(first);
    if (ahead.rows.empty()) {
      apply(std::move(result));
      continue;
    }
    StepResult next = run(ahead);
    apply(std::move(result));
    apply(std::move(next));
  }
  EXPECT_TRUE(drafted);
}

// Picks for drafts are bounded; the rows in front must not take those of the rows behind.
TEST_F(DraftsTest, EveryRowHasItsTokenBeforeAnyHasDrafts) {
  config_.num_speculative_tokens = 16;
  config_.max_num_batched_tokens = 24;
  start(100);
  for (int i = 0; i < 8; ++i) add(6, 60);
  for (int i = 0; i < 12; ++i) step();
  bool drafted = false;
  while (scheduler_->num_running() == 8) {
    const StepPlan next = plan();
    EXPECT_THAT(next.rows, testing::SizeIs(8));
    for (const PlanRow& row : next.rows) drafted = drafted || !row.drafts.empty();
    apply(run(next));
  }
  EXPECT_TRUE(drafted);
}

// A plan of few tokens: the first ones of every row go before the later ones of any.
TEST_F(DraftsTest, AllRowsHaveSomeBeforeAnyHasMore) {
  config_.num_speculative_tokens = 16;
  config_.max_num_batched_tokens = 48;
  start(200);
  for (int i = 0; i < 8; ++i) add(6, 200);
  int full = 0;
  for (int i = 0; i < 80; ++i) {
    const StepPlan next = plan();
    const int tokens = tokens_of(next);
    int drafting = 0, most = 0;
    for (const PlanRow& row : next.rows) {
      const int drafts = static_cast<int>(row.drafts.size());
      drafting += drafts > 0 ? 1 : 0;
      most = std::max(most, drafts);
    }
    EXPECT_LE(tokens, 48);
    if (drafting >= 4 && tokens > 40) {
      ++full;
      EXPECT_LT(most, 16);
    }
    StepResult result = run(next);
    result.busy_us = 10'000 + 10 * tokens;  // drafts are cheap
    apply(std::move(result));
  }
  EXPECT_GT(full, 5);
}

TEST_F(DraftsTest, OneThatWaitsForRoomDoesNotStopThem) {
  config_.max_num_seqs = 2;
  start(12);  // blocks of 16 positions
  add(8, 100);
  for (int i = 0; i < 30; ++i) step();
  add(100, 20);
  for (int i = 0; i < 3; ++i) step();
  ASSERT_EQ(scheduler_->num_waiting(), 1);
  const std::uint64_t before = scheduler_->counts().drafts;
  for (int i = 0; i < 10; ++i) step();
  EXPECT_GT(scheduler_->counts().drafts, before);
}

TEST_F(DraftsTest, TriesGoOutThoughDraftsDoNotPay) {
  config_.steps_in_flight = 2;
  config_.max_num_seqs = 8;
  start(800);
  for (int i = 0; i < 8; ++i) add(20 + i, 900);
  std::deque<StepResult> results;
  int plans = 0;
  std::uint64_t tried = 0;
  for (; plans < 600; ++plans) {
    while (scheduler_->can_plan()) {
      StepPlan next = plan();
      if (next.rows.empty()) break;
      results.push_back(run(next));
      results.back().busy_us = 100 * tokens_of(next);  // each costs its share
    }
    apply(std::move(results.front()));
    results.pop_front();
    if (plans == 300) tried = scheduler_->counts().drafts;
  }
  EXPECT_GT(scheduler_->counts().drafts, tried + 3) << "none after the costs were known";
  EXPECT_LT(scheduler_->counts().drafts, tried + 60);
}

// Where many rows run a draft has to be right more often than is hoped for at first. Every guess is
// judged, drafted or not: so rows that repeat themselves draft without having been tried one by
// one.
TEST_F(DraftsTest, GuessesThatComeTrueBecomeDrafts) {
  config_.max_num_seqs = 16;
  for (const int period : {3, 0}) {
    SCOPED_TRACE(period);
    model_.period = period;
    scheduler_ = nullptr;
    start(800);
    for (int i = 0; i < 16; ++i) add(20 + i, 300);
    for (int plans = 0; plans < 60; ++plans) {
      const StepPlan next = plan();
      StepResult result = run(next);
      const auto rows = static_cast<int>(next.rows.size());
      result.busy_us = 30 * rows + 80 * tokens_of(next);  // a draft takes 0.73 of what a row does
      apply(std::move(result));
    }
    const SchedulerCounts counts = scheduler_->counts();
    if (period == 0) {
      EXPECT_LT(counts.draft_tokens, 30u) << "only what is tried";
    } else {
      EXPECT_GT(counts.draft_tokens, 200u);
      EXPECT_GT(counts.accepted_draft_tokens, counts.draft_tokens * 8 / 10);
    }
  }
}

TEST_F(DraftsTest, NoneAreMadeWhileAPromptIsComputed) {
  config_.max_num_batched_tokens = 8;
  start(100);
  add(8, 300);
  for (int i = 0; i < 40; ++i) step();
  const std::uint64_t before = scheduler_->counts().drafts;
  EXPECT_GT(before, 0u);
  add(100, 1);
  while (scheduler_->num_running_requests() + scheduler_->num_waiting() > 1) step();
  EXPECT_EQ(scheduler_->counts().drafts, before);
  for (int i = 0; i < 20; ++i) step();
  EXPECT_GT(scheduler_->counts().drafts, before);
}

}  // namespace
}  // namespace quire::test
