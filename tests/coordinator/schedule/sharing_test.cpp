// Blocks that several sequences hold: choices that fork, prefixes that are found again, beams,
// the offload store over a restart.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/coordinator/schedule/scheduler_fixture.h"

namespace quire::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class SharingTest : public SchedulerTest {
 protected:
  SharingTest() { allow_long_requests(); }
  // Runs until `tokens` are computed of the longest sequence; blocks in use then.
  int blocks_after(int tokens) {
    int computed = 0;
    while (computed < tokens) {
      const StepPlan next = plan();
      if (next.rows.empty()) break;
      for (const PlanRow& row : next.rows) {
        computed = std::max(computed, row.first_position + row.num_tokens);
      }
      const int used = scheduler_->num_used_blocks();
      if (computed >= tokens) return used;
      apply(run(next));
    }
    ADD_FAILURE() << "only " << computed << " tokens were computed";
    return 0;
  }
};

TEST_F(SharingTest, EightChoicesShareTheirPrompt) {
  start(400);
  NewRequest request = wish(512, 128);
  request.n = 8;
  add(request);
  // At the end each choice has computed 639 positions: 40 blocks, 32 of them the prompt's.
  const int used = blocks_after(639);
  EXPECT_EQ(used, 32 + 8 * 8);
  EXPECT_LE(used, 0.35 * 8 * 40) << "65 % less than eight copies";
}

TEST_F(SharingTest, APromptThatEndsWithinABlockIsCopiedByAllButTheLastToWrite) {
  start(40);
  NewRequest request = wish(20, 8);
  request.n = 3;
  add(request);
  step();
  const StepPlan second = plan();
  EXPECT_THAT(second.copies, SizeIs(2));
  apply(run(second));
  EXPECT_EQ(scheduler_->num_used_blocks(), 1 + 3);
}

TEST_F(SharingTest, FourBeamsShareWhatTheyHaveInCommon) {
  start(400);
  NewRequest request = wish(512, 128);
  request.beams.width = 4;
  request.params.ignore_eos = true;
  add(request);
  const int used = blocks_after(639);
  EXPECT_LE(used, 32 + 4 * 8);
  EXPECT_LE(used, 0.45 * 4 * 40) << "55 % less than four copies";
}

TEST_F(SharingTest, APrefixIsFoundAgainAndItsTokensAreCounted) {
  config_.prefix_caching = true;
  start(100);
  add(40, 4);
  EXPECT_EQ(finish()[0].num_cached_tokens, 0);
  EXPECT_GT(scheduler_->num_cached_blocks(), 0);
  add(40, 4);
  const StepPlan second = plan();
  ASSERT_THAT(second.rows, SizeIs(1));
  // Two full blocks, and of the third what is common, by a copy; the last token is computed.
  EXPECT_EQ(second.rows[0].num_tokens + second.rows[0].first_position, 40);
  EXPECT_GE(second.rows[0].first_position, 32);
  const std::vector<Gain> gains = apply(run(second));
  ASSERT_THAT(gains, SizeIs(1));
  EXPECT_EQ(gains[0].num_cached_tokens, second.rows[0].first_position);
  EXPECT_EQ(scheduler_->counts().prefix_queries, 80u);
  EXPECT_EQ(scheduler_->counts().prefix_hits,
            static_cast<std::uint64_t>(gains[0].num_cached_tokens));
  for (const Gain& gain : finish()) EXPECT_EQ(gain.num_cached_tokens, 0) << "counted once";
}

TEST_F(SharingTest, NothingIsFoundAcrossSaltsAndTenants) {
  config_.prefix_caching = true;
  config_.tenant_weights = {1.0, 1.0};
  start(100);
  add(40, 4);
  finish();
  NewRequest salted = wish(40, 4);
  salted.cache_salt = "pepper";
  add(salted);
  EXPECT_EQ(finish()[0].num_cached_tokens, 0);
  NewRequest other = wish(40, 4);
  other.tenant = 1;
  add(other);
  EXPECT_EQ(finish()[0].num_cached_tokens, 0);
  NewRequest same = wish(40, 4);
  same.cache_salt = "pepper";
  add(same);
  EXPECT_GE(finish()[0].num_cached_tokens, 32);
}

TEST_F(SharingTest, EvictedPrefixesComeBackFromTheHost) {
  config_.prefix_caching = true;
  start(10, /*epoch=*/1, /*num_host_blocks=*/20);
  add(100, 2);
  finish();
  NewRequest other = wish(100, 2);
  std::reverse(other.prompt.begin(), other.prompt.end());
  add(other);
  finish();
  EXPECT_GT(scheduler_->counts().saved_blocks, 0u);
  add(100, 2);
  const std::vector<Gain> gains = finish();
  EXPECT_GE(gains[0].num_cached_tokens, 96);
  EXPECT_GT(scheduler_->counts().loaded_blocks, 0u);
}

TEST_F(SharingTest, ACancelledSearchLeavesNothingBehind) {
  start(100);
  NewRequest request = wish(20, 30);
  request.beams.width = 3;
  add(request);
  for (int i = 0; i < 5; ++i) step();
  EXPECT_EQ(scheduler_->num_running(), 3);
  scheduler_->cancel(request.id);
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_EQ(scheduler_->num_used_blocks(), 0);
  EXPECT_TRUE(scheduler_->verify().ok());
}

TEST_F(SharingTest, ASearchThatEndsEarlyGivesItsBestSoFar) {
  start(100);
  NewRequest request = wish(20, 30);
  request.beams.width = 3;
  request.n = 2;
  request.params.ignore_eos = true;
  add(request);
  EXPECT_THAT(scheduler_->finish_early(request.id), IsEmpty()) << "nothing was generated";
  request.id = next_request_++;
  add(request);
  for (int i = 0; i < 5; ++i) EXPECT_THAT(step(), IsEmpty());
  const std::vector<Gain> gains = scheduler_->finish_early(request.id);
  ASSERT_THAT(gains, SizeIs(2));
  for (const Gain& gain : gains) EXPECT_THAT(gain.tokens, SizeIs(5));
  EXPECT_NE(gains[0].tokens, gains[1].tokens);
}

TEST_F(SharingTest, ASearchWiderThanAStepIsRefused) {
  config_.max_num_batched_tokens = 2;
  start(100);
  NewRequest request = wish(1, 4);
  request.beams.width = 3;
  const absl::Status status = scheduler_->add(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), testing::HasSubstr("3 beams wide"));
}

}  // namespace
}  // namespace quire::test
