#include "coordinator/schedule/prefill_share.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace quire {
namespace {

constexpr int kNoLimit = std::numeric_limits<int>::max();

double true_us(const StepWork& work) {
  return 1000.0 + 100.0 * work.num_tokens + 0.01 * work.context_tokens + 0.02 * work.context_reads;
}

StepWork decodes(int rows) {
  return {.num_rows = rows,
          .num_tokens = rows,
          .num_samples = rows,
          .context_tokens = 200.0 * rows,
          .context_reads = 200.0 * rows};
}

PrefillShare::Limits limits(int num_prompts, int threshold) {
  return {.num_prompts = num_prompts, .budget_tokens = 512, .threshold = threshold};
}

class PrefillShareTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 600; ++i) {
      StepWork work = decodes(1 + i % 40);
      const int prompt = i % 3 == 0 ? 8 * (i % 64) : 0;
      if (prompt > 0) work.add_row(i % 500, prompt);
      model_.observe(work, true_us(work));
    }
  }
  // How much longer a step of 32 decodes becomes.
  double stretch(const PrefillShare& share, int begin) const {
    StepWork work = decodes(32);
    const double alone = true_us(work);
    work.add_row(begin, share.most_tokens(begin, 6000));
    return true_us(work) / alone;
  }

  StepCostModel model_;
};

TEST_F(PrefillShareTest, OnePromptLengthensAStepByABoundedFactor) {
  const PrefillShare share(model_, decodes(32), limits(1, -1));
  for (const int begin : {0, 1000, 5000}) {
    EXPECT_GT(stretch(share, begin), 1.8) << begin;
    EXPECT_LT(stretch(share, begin), 2.2) << begin;
  }
  EXPECT_LT(share.most_tokens(5000, 100), share.most_tokens(0, 100));
}

TEST_F(PrefillShareTest, ManyPromptsGetMoreAndTheFirstHalfOfIt) {
  PrefillShare share(model_, decodes(32), limits(8, -1));
  const int first = share.most_tokens(0, 1000);
  EXPECT_GT(first, 3 * PrefillShare(model_, decodes(32), limits(1, -1)).most_tokens(0, 1000));
  share.take(0, first);
  const int second = share.most_tokens(0, 1000);
  EXPECT_NEAR(second, first / 2.0, 0.2 * first);
  share.take(0, 10);  // a short one leaves the rest to others
  EXPECT_GT(share.most_tokens(0, 1000), second / 3);
}

TEST_F(PrefillShareTest, TheFirstPromptAlwaysAdvancesAndNothingIsLeftAtTheEnd) {
  PrefillShare share(model_, decodes(1), limits(1, -1));
  EXPECT_GE(share.most_tokens(7000, 1000), 4);
  share.take(7000, 400);
  EXPECT_EQ(share.most_tokens(7000, 1000), 0);
}

TEST_F(PrefillShareTest, NothingIsBoundWithoutDecodesOrKnowledgeOrWish) {
  EXPECT_EQ(PrefillShare(model_, StepWork(), limits(3, -1)).most_tokens(0, 1000), kNoLimit);
  EXPECT_EQ(PrefillShare(StepCostModel(), decodes(32), limits(3, -1)).most_tokens(0, 1000),
            kNoLimit);
  EXPECT_EQ(PrefillShare(model_, decodes(32), limits(3, 0)).most_tokens(0, 1000), kNoLimit);
}

TEST_F(PrefillShareTest, APromptOfManyStepsLeavesHalfOfTheBudgetToOthers) {
  const PrefillShare several(model_, StepWork(), limits(2, -1));
  EXPECT_EQ(several.most_tokens(0, 6000), 256);
  EXPECT_EQ(several.most_tokens(0, 2000), kNoLimit);
  EXPECT_EQ(PrefillShare(model_, StepWork(), limits(1, -1)).most_tokens(0, 6000), kNoLimit);
  EXPECT_EQ(PrefillShare(model_, StepWork(), limits(2, 0)).most_tokens(0, 6000), kNoLimit);
}

TEST_F(PrefillShareTest, AThresholdInTokensBoundsEachPrompt) {
  PrefillShare share(model_, decodes(32), limits(2, 64));
  EXPECT_EQ(share.most_tokens(0, 1000), 64);
  share.take(0, 64);
  EXPECT_EQ(share.most_tokens(500, 1000), 64);
}

}  // namespace
}  // namespace quire
