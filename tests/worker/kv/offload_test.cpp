// A whole rank whose plans save and load: what comes back from the store picks the same tokens with
// the same bits as what never left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/worker/kv/offload_cases.h"
#include "tests/worker/tiny_model.h"

namespace quire::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr StepLimits kLimits{.num_blocks = 24,
                             .block_size = 16,
                             .max_num_seqs = 4,
                             .max_num_batched_tokens = 64,
                             .max_model_len = 100};
constexpr std::uint64_t kId = 0xabcdef;
constexpr int kSlots = 8;

SamplingParams greedy_params() {
  SamplingParams params;
  params.temperature = 0.0f;
  params.logprobs = 5;
  params.max_tokens = 20;
  return params;
}

AdmitRow admission(SlotId slot, std::vector<TokenId> tokens) {
  AdmitRow row;
  row.slot = slot;
  row.num_prompt_tokens = static_cast<int>(tokens.size());
  row.tokens = std::move(tokens);
  row.params = greedy_params();
  return row;
}

PlanRow grant(SlotId slot, int first, int tokens, std::vector<BlockId> blocks = {}) {
  PlanRow row;
  row.slot = slot;
  row.first_position = first;
  row.num_tokens = tokens;
  row.samples = true;
  row.new_blocks = {std::move(blocks)};
  return row;
}

class OffloadTest : public testing::TestWithParam<OffloadCase> {
 protected:
  void SetUp() override {
    write_tiny_gguf(scratch_ / "tiny.gguf", {});
    prompt_ = random_ids(11, 40);
  }

  // A rank with a store, ready for plans.
  std::unique_ptr<Rank> begin(std::uint64_t expect_saved = 0, bool with_store = true) {
    auto file = open_model(scratch_ / "tiny.gguf");
    EXPECT_TRUE(file.ok()) << file.status();
    DeviceOptions options;
    options.kind = GetParam().device;
    options.num_threads = 1;
    auto device = GetParam().open_device(options);
    EXPECT_TRUE(device.ok()) << device.status();
    auto rank =
        Rank::load(*std::move(file), *std::move(device), {0, 1, 0, 1}, make_progress("none", ""));
    EXPECT_TRUE(rank.ok()) << rank.status();
    if (with_store) add_store(**rank, expect_saved);
    const absl::Status started =
        (*rank)->start(kLimits, absl::StrCat("quire-offload-", ::getpid(), "-", num_starts_++), "");
    EXPECT_TRUE(started.ok()) << started;
    return *std::move(rank);
  }
  void add_store(Rank& rank, std::uint64_t expect_saved) {
    HostStoreOptions options;
    const std::size_t bytes = rank.kv_block_bytes(16);
    options.bytes = static_cast<std::int64_t>(bytes) * kSlots;
    if (GetParam().in_file) options.folder = scratch_ / "store";
    options.model_hash = rank.file().hash;
    options.layout = rank.layout_digest(16);
    auto store = HostStore::open(options, bytes, rank.device());
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->saved(), expect_saved);
    ASSERT_TRUE((*store)->begin_epoch(kSlots, expect_saved != 0).ok());
    rank.keep_store(*std::move(store));
  }

  // Each plan is enqueued as soon as the runner has room.
  static std::vector<StepResult> run(Rank& rank, std::vector<StepPlan> plans) {
    std::vector<StepResult> results;
    const auto finish = [&] {
      auto result = rank.runner().finish();
      EXPECT_TRUE(result.ok()) << result.status();
      results.push_back(result.ok() ? *std::move(result) : StepResult());
    };
    for (const StepPlan& plan : plans) {
      while (!rank.runner().may_enqueue()) finish();
      const absl::Status status = rank.runner().enqueue(plan);
      EXPECT_TRUE(status.ok()) << status;
    }
    while (rank.runner().in_flight() > 0) finish();
    return results;
  }
  static StepResult run_one(Rank& rank, StepPlan plan) { return run(rank, {std::move(plan)})[0]; }

  // The prompt into blocks 1, 2, 3, and one token behind it.
  std::vector<RowResult> compute(Rank& rank) {
    StepPlan prefill, decode;
    prefill.admits = {admission(0, prompt_)};
    prefill.rows = {grant(0, 0, 40, {1, 2, 3})};
    decode.rows = {grant(0, 40, 1)};
    const auto results = run(rank, {prefill, decode});
    EXPECT_EQ(results[0].rows.size(), 1u);
    EXPECT_EQ(results[1].rows.size(), 1u);
    return {results[0].rows[0], results[1].rows[0]};
  }
  // Goes on behind position 40 with what the blocks hold of the first 40.
  StepPlan go_on(TokenId first, const std::vector<BlockId>& blocks) {
    std::vector<TokenId> tokens = prompt_;
    tokens.push_back(first);
    StepPlan plan;
    plan.admits = {admission(2, tokens)};
    plan.rows = {grant(2, 40, 1, blocks)};
    return plan;
  }
  static void expect_same(const StepResult& result, const RowResult& want) {
    ASSERT_EQ(result.rows.size(), 1u);
    const RowResult& got = result.rows[0];
    EXPECT_EQ(got.token, want.token);
    ASSERT_EQ(got.logprobs.size(), want.logprobs.size());
    for (std::size_t i = 0; i < want.logprobs.size(); ++i) {
      EXPECT_EQ(got.logprobs[i].token, want.logprobs[i].token);
      EXPECT_EQ(got.logprobs[i].logprob, want.logprobs[i].logprob);
    }
  }

  ScratchFolder scratch_;
  std::vector<TokenId> prompt_;
  int num_starts_ = 0;
};

// Another sequence takes the blocks in the very plan that saves them; the plan that loads them
// copies one of them and reads them at once.
TEST_P(OffloadTest, WhatComesBackGivesTheSameBits) {
  const auto rank = begin();
  const std::vector<RowResult> want = compute(*rank);
  StepPlan leave;
  leave.releases = {0};
  leave.saves = {{1, 4}, {2, 0}, {3, 7}};
  leave.admits = {admission(1, random_ids(99, 48))};
  leave.rows = {grant(1, 0, 48, {3, 1, 2})};
  StepPlan back = go_on(want[0].token, {7, 8, 10});
  back.loads = {{7, 4}, {8, 0}, {9, 7}};
  back.copies = {{0, 9, 10}};
  const auto results = run(*rank, {leave, back});
  ASSERT_EQ(results.size(), 2u);
  expect_same(results[1], want[1]);
}

TEST_P(OffloadTest, SavesAloneAreAStep) {
  const auto rank = begin();
  const std::vector<RowResult> want = compute(*rank);
  StepPlan save, load;
  save.saves = {{1, 0}, {2, 1}, {3, 2}};
  load.loads = {{11, 0}, {12, 1}, {13, 2}};
  load.releases = {0};
  const auto results = run(*rank, {save, load});
  EXPECT_THAT(results[0].rows, IsEmpty());
  EXPECT_THAT(results[1].rows, IsEmpty());
  expect_same(run_one(*rank, go_on(want[0].token, {11, 12, 13})), want[1]);
}

TEST_P(OffloadTest, APlanThatNamesNoSlotOfTheStoreIsRefused) {
  const auto rank = begin();
  StepPlan plan;
  plan.saves = {{0, kSlots}};
  const absl::Status status = rank->runner().enqueue(plan);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("host block 8"));
}

TEST_P(OffloadTest, WithoutAStoreNothingIsSaved) {
  const auto rank = begin(0, false);
  StepPlan plan;
  plan.saves = {{0, 0}};
  const absl::Status status = rank->runner().enqueue(plan);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no offload store"));
}

INSTANTIATE_TEST_SUITE_P(Devices, OffloadTest, testing::ValuesIn(offload_cases()));

using OffloadFileTest = OffloadTest;

TEST_P(OffloadFileTest, AnotherProcessGoesOnWithWhatWasSealed) {
  std::vector<RowResult> want;
  {
    const auto rank = begin();
    want = compute(*rank);
    StepPlan save;
    save.saves = {{1, 5}, {2, 6}, {3, 7}};
    EXPECT_THAT(run_one(*rank, save).rows, IsEmpty());
    ASSERT_TRUE(rank->store()->seal(kId).ok());
  }
  {
    const auto rank = begin(kId);
    StepPlan back = go_on(want[0].token, {20, 21, 22});
    back.loads = {{20, 5}, {21, 6}, {22, 7}};
    expect_same(run_one(*rank, back), want[1]);
  }
  begin(0);  // the last life sealed nothing
}

INSTANTIATE_TEST_SUITE_P(Devices, OffloadFileTest, testing::ValuesIn(offload_file_cases()));

}  // namespace
}  // namespace quire::test
