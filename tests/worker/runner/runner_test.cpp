// The flat batch that a plan becomes, and what a runner refuses.
#include "worker/runner/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "tests/worker/harness.h"
#include "tests/worker/tiny_model.h"
#include "worker/runner/batch_builder.h"

namespace quire {
namespace {

using testing::ElementsAre;

constexpr StepLimits kLimits{.num_blocks = 32,
                             .block_size = 16,
                             .max_num_seqs = 4,
                             .max_num_batched_tokens = 64,
                             .max_model_len = 100};

template <typename T>
std::vector<T> list(const T* data, int count) {
  return {data, data + count};
}

class BatchBuilderTest : public testing::Test {
 protected:
  // What the first plan of new slots becomes. Once in a test.
  Batch build(const StepPlan& plan, const StepLimits& limits = kLimits) {
    DeviceOptions reference;
    reference.kind = "reference";
    device_ = open_device(reference).value();
    builder_ = BatchBuilder::create(limits, *device_).value();
    SlotTable slots(limits, 2500, 1);
    EXPECT_TRUE(slots.apply(plan).ok());
    const Batch batch = builder_->build(plan, slots, nullptr);
    EXPECT_TRUE(device_->wait().ok());
    return batch;
  }

  std::unique_ptr<Device> device_;
  std::optional<BatchBuilder> builder_;
};

TEST_F(BatchBuilderTest, FlattensRowsInPlanOrder) {
  StepPlan plan;
  plan.admits = {{2, {5, 31, 33}, -1, 3, 0, {}}, {0, std::vector<TokenId>(40, 8), -1, 40, 0, {}}};
  plan.rows = {test::plan_row(2, 1, 2, true, {9}), test::plan_row(0, 0, 3, false, {4, 6})};
  const Batch batch = build(plan);
  EXPECT_EQ(batch.num_tokens, 5);
  EXPECT_EQ(batch.num_rows, 2);
  EXPECT_EQ(batch.most_tokens, 3);
  EXPECT_THAT(list(batch.tokens, 5), ElementsAre(31, 33, 8, 8, 8));
  EXPECT_THAT(list(batch.positions, 5), ElementsAre(1, 2, 0, 1, 2));
  EXPECT_THAT(list(batch.row_of_token, 5), ElementsAre(0, 0, 1, 1, 1));
  EXPECT_THAT(list(batch.row_begin, 3), ElementsAre(0, 2, 5));
  EXPECT_THAT(list(batch.context, 2), ElementsAre(3, 3));
  EXPECT_EQ(batch.max_blocks, 1);  // only blocks that hold positions of this step's contexts
  EXPECT_THAT(list(batch.block_tables, 2), ElementsAre(9, 4));
  EXPECT_THAT(list(batch.sample_tokens, batch.num_samples), ElementsAre(1));
  const SampledTokens& sampled = batch.sampled;  // of row 1 there is none
  EXPECT_THAT(list(sampled.tokens, sampled.num_tokens), ElementsAre(1));
  EXPECT_THAT(list(sampled.positions, 1), ElementsAre(2));
  EXPECT_THAT(list(sampled.row_of_token, 1), ElementsAre(0));
  EXPECT_THAT(list(sampled.row_begin, 3), ElementsAre(0, 1, 1));
  EXPECT_THAT(list(sampled.sample_tokens, 1), ElementsAre(0));
  ASSERT_THAT(builder_->picks(), testing::SizeIs(1));
  EXPECT_EQ(builder_->picks()[0].row, 0);
}

// Slot 1 forks from the prompt of slot 0 and stands before it; slot 2 has two drafts.
TEST_F(BatchBuilderTest, PicksOfForksAndDrafts) {
  StepPlan plan;
  plan.admits = {{0, {5, 31, 33}, -1, 3, 0, {}}, {1, {}, 0, 3, 1, {}}, {2, {8, 9}, -1, 2, 0, {}}};
  plan.rows = {test::plan_row(1, 3, 0, true, {4}), test::plan_row(0, 0, 3, true, {4}),
               test::plan_row(2, 0, 4, true, {6})};
  plan.rows[2].drafts = {71, 72};
  const Batch batch = build(plan);
  EXPECT_EQ(batch.num_rows, 2);
  EXPECT_THAT(list(batch.tokens, batch.num_tokens), ElementsAre(5, 31, 33, 8, 9, 71, 72));
  EXPECT_THAT(list(batch.row_of_token, 7), ElementsAre(0, 0, 0, 1, 1, 1, 1));
  EXPECT_THAT(list(batch.row_begin, 3), ElementsAre(0, 3, 7));
  EXPECT_THAT(list(batch.context, 2), ElementsAre(3, 4));
  EXPECT_THAT(list(batch.block_tables, 2), ElementsAre(4, 6));
  EXPECT_THAT(list(batch.sample_tokens, batch.num_samples), ElementsAre(2, 2, 4, 5, 6));
  EXPECT_THAT(list(batch.sampled.tokens, batch.sampled.num_tokens), ElementsAre(2, 4, 5, 6));
  EXPECT_THAT(list(batch.sampled.row_begin, 3), ElementsAre(0, 1, 4));
  EXPECT_THAT(list(batch.sampled.sample_tokens, batch.num_samples), ElementsAre(0, 0, 1, 2, 3));
  std::vector<std::pair<int, int>> picks;
  for (const Pick& pick : builder_->picks()) picks.emplace_back(pick.row, pick.offset);
  EXPECT_THAT(picks, ElementsAre(testing::Pair(0, 0), testing::Pair(1, 0), testing::Pair(2, 0),
                                 testing::Pair(2, 1), testing::Pair(2, 2)));
}

TEST_F(BatchBuilderTest, DecodingSamplesEveryToken) {
  StepPlan plan;
  plan.admits = {{0, {5}, -1, 1, 0, {}}, {1, {7}, -1, 1, 0, {}}};
  plan.rows = {test::plan_row(0, 0, 1, true, {4}), test::plan_row(1, 0, 1, true, {6})};
  const Batch batch = build(plan);
  EXPECT_EQ(batch.most_tokens, 1);
  EXPECT_EQ(batch.sampled.tokens, nullptr);
}

// Slots 0 and 1 have a prefix of 300 positions in common, slot 2 is another's.
TEST_F(BatchBuilderTest, TellsWhichRowsShareABeginning) {
  StepLimits limits = kLimits;
  limits.max_model_len = 400;
  limits.num_blocks = 100;
  std::vector<BlockId> common, other;
  for (int b = 0; b < 18; ++b) common.push_back(b), other.push_back(40 + b);
  std::vector<std::vector<BlockId>> tables = {common, common, other};
  StepPlan plan;
  for (int s = 0; s < 3; ++s) {
    tables[static_cast<std::size_t>(s)].push_back(30 + s);
    plan.admits.push_back({s, std::vector<TokenId>(301, 8), -1, 301, 0, {}});
    plan.rows.push_back(test::plan_row(s, 300, 1, true, tables[static_cast<std::size_t>(s)]));
  }
  const Batch batch = build(plan, limits);
  ASSERT_EQ(batch.num_shared_runs, 3);  // one, and two of no rows
  EXPECT_THAT(list(batch.shared_runs, 12), ElementsAre(0, 2, 0, 256, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(list(batch.shared_rows, 2), ElementsAre(0, 1));
  EXPECT_THAT(list(batch.shared_of_row, 3), ElementsAre(256, 256, 0));
}

class RunnerTest : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_gguf(scratch_ / "tiny.gguf", {});
    test::GroupOptions options;
    options.world = 2;
    options.device = "cpu";
    auto group = test::RankGroup::open(scratch_ / "tiny.gguf", options);
    ASSERT_TRUE(group.ok()) << group.status();
    group_ = *std::move(group);
  }
  test::ScratchFolder scratch_;
  std::unique_ptr<test::RankGroup> group_;
};

TEST_F(RunnerTest, APlanWithoutRowsIsAStep) {
  const auto result = group_->step({});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->step, 1u);
  EXPECT_TRUE(result->rows.empty());
}

TEST_F(RunnerTest, AnyRankMaySample) {
  const test::Prompt prompt = test::greedy({1, 2, 3}, 1, 3);
  std::vector<TokenId> picked;
  for (int rank = 0; rank < 2; ++rank) {
    StepPlan plan;
    plan.sampling_rank = rank;
    if (rank > 0) plan.releases = {0};
    plan.admits = {{0, prompt.ids, -1, 3, 0, prompt.params}};
    plan.rows = {test::plan_row(0, 0, 3, true, {1})};
    const auto result = group_->step(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->rows[0].logprobs.size(), 4u);
    picked.push_back(result->rows[0].token);
  }
  EXPECT_EQ(picked[0], picked[1]);
}

// A fork shares full blocks and has its own copy of the last, partly filled one: both go on as if
// each had been alone, and neither sees what the other stores.
TEST_F(RunnerTest, AForkWritesToItsOwnCopy) {
  std::vector<TokenId> ids = test::random_ids(5, 20);
  const test::Prompt prompt = test::greedy(ids, 4, 3);
  StepPlan plan;
  plan.admits = {{0, ids, -1, 20, 0, prompt.params}};
  plan.rows = {test::plan_row(0, 0, 20, true, {1, 2})};
  auto first = group_->step(plan);
  ASSERT_TRUE(first.ok()) << first.status();
  // The fork's next token is another one, forced by admitting it.
  std::vector<TokenId> forked = ids;
  forked.push_back((first->rows[0].token + 7) % 100);
  plan = StepPlan();
  plan.admits = {{1, forked, -1, 20, 1, prompt.params}, {2, forked, -1, 20, 1, prompt.params}};
  plan.copies = {{0, 2, 5}};
  plan.rows = {test::plan_row(0, 20, 1, true, {}), test::plan_row(1, 20, 1, true, {1, 5}),
               test::plan_row(2, 0, 21, true, {7, 8})};
  const auto second = group_->step(plan);
  ASSERT_TRUE(second.ok()) << second.status();
  plan = StepPlan();
  plan.rows = {test::plan_row(0, 21, 1, true, {}), test::plan_row(1, 21, 1, true, {}),
               test::plan_row(2, 21, 1, true, {})};
  const auto third = group_->step(plan);
  ASSERT_TRUE(third.ok()) << third.status();
  for (const StepResult* result : {&*second, &*third}) {
    const RowResult &fork = result->rows[1], &alone = result->rows[2];
    EXPECT_EQ(fork.token, alone.token);
    for (std::size_t i = 0; i < alone.logprobs.size(); ++i) {
      EXPECT_EQ(fork.logprobs[i].logprob, alone.logprobs[i].logprob);
    }
  }
  // The first sequence too: as it goes on alone.
  std::vector<TokenId> continued = ids;
  continued.push_back(first->rows[0].token);
  continued.push_back(second->rows[0].token);
  plan = StepPlan();
  plan.admits = {{3, continued, -1, 20, 0, prompt.params}};
  plan.rows = {test::plan_row(3, 0, 22, true, {11, 12})};
  const auto fresh = group_->step(plan);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_EQ(fresh->rows[0].token, third->rows[0].token);
  EXPECT_EQ(fresh->rows[0].logprobs[0].logprob, third->rows[0].logprobs[0].logprob);
}

TEST_F(RunnerTest, RefusesASamplingRankThatDoesNotExist) {
  StepPlan plan;
  plan.sampling_rank = 2;
  EXPECT_EQ(group_->rank(0).place().world, 2);
  auto& runner = const_cast<Rank&>(group_->rank(0)).runner();
  const auto result = runner.run(plan);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), testing::HasSubstr("sampling_rank"));
}

TEST_F(RunnerTest, FactsForHello) {
  const Rank& zero = group_->rank(0);
  const Rank& one = group_->rank(1);
  EXPECT_EQ(zero.numerics_id(), one.numerics_id());
  EXPECT_EQ(zero.layout_digest(16), one.layout_digest(16));
  EXPECT_NE(zero.layout_digest(16), zero.layout_digest(32));
  EXPECT_GT(zero.weights().bytes, 0u);
  // 9 heads in 3 groups over 2 ranks: the group in the middle lives on both, or none does.
  const Range kv0 = zero.shards().ranks[0].kv_heads;
  const Range kv1 = zero.shards().ranks[1].kv_heads;
  EXPECT_EQ(zero.kv_replicated(), kv0.end > kv1.begin);
  EXPECT_EQ(zero.kv_block_bytes(16) / static_cast<std::size_t>(kv0.size()),
            one.kv_block_bytes(16) / static_cast<std::size_t>(kv1.size()));
}

}  // namespace
}  // namespace quire
