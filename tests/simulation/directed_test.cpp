// What users may expect of the order in which they are served, shown in situations made for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/simulation/virtual_fleet.h"

namespace quire::test {
namespace {

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 16;
  config.max_num_batched_tokens = 128;
  config.block_size = 16;
  config.max_model_len = 4096;
  config.vocab = 1000;
  return config;
}

// About a 7B model on one large GPU, in microseconds.
constexpr HashCost kGpu = {8000.0, 20.0, 10.0, 0.002};

NewRequest of_tenant(int tenant) {
  NewRequest wish;
  wish.tenant = tenant;
  return wish;
}

// [tenant] prompt and output tokens of its requests, an output token counted twice.
std::vector<double> served(const VirtualFleet& fleet, int num_tenants) {
  std::vector<double> sums(static_cast<std::size_t>(num_tenants), 0.0);
  for (const auto& [id, record] : fleet.records()) {
    if (record.first == absl::InfiniteFuture()) continue;
    sums[static_cast<std::size_t>(record.tenant)] +=
        record.num_prompt_tokens + 2.0 * static_cast<double>(record.num_tokens);
  }
  return sums;
}

class FairTest : public testing::TestWithParam<double> {};  // the second tenant's weight

TEST_P(FairTest, TwentyTimesTheLoadGetsNoMoreThanItsShare) {
  SchedulerConfig config = small_config();
  config.policy = Policy::kFair;
  config.tenant_weights = {1.0, GetParam()};
  VirtualFleet fleet(config, 4000, kGpu);
  int sent = 0;
  for (int steps = 0; steps < 2000; ++steps) {
    // Both always have something waiting; one sends twenty times as much.
    for (; sent < 5 * (steps / 20 + 1); ++sent) {
      for (int i = 0; i < 20; ++i) fleet.submit(40 + sent % 7, 20, of_tenant(0));
      fleet.submit(90, 60 + sent % 5, of_tenant(1));
    }
    ASSERT_TRUE(fleet.step());
  }
  const std::vector<double> sums = served(fleet, 2);
  const double share = sums[1] / (sums[0] + sums[1]);
  const double right = GetParam() / (1.0 + GetParam());
  EXPECT_NEAR(share, right, 0.05 * right);
}

INSTANTIATE_TEST_SUITE_P(Weights, FairTest, testing::Values(1.0, 3.0, 0.5));

TEST(WorkConservingTest, NobodyWaitsWhileThereIsRoom) {
  for (const Policy policy :
       {Policy::kFcfs, Policy::kPriority, Policy::kSpf, Policy::kLpm, Policy::kFair}) {
    SchedulerConfig config = small_config();
    config.policy = policy;
    config.tenant_weights = {1.0, 1.0};
    config.long_prefill_token_threshold = 0;
    VirtualFleet fleet(config, 4000, kGpu);
    for (int i = 0; i < 100; ++i) fleet.submit(30 + i, 10 + i % 13, of_tenant(i < 90 ? 0 : 1));
    while (fleet.num_choices() > 0) ASSERT_TRUE(fleet.step());
    EXPECT_EQ(fleet.num_idle_plans(), 0) << "policy " << static_cast<int>(policy);
  }
}

TEST(ThrashTest, WhoGaveWayComesBackWhenItsGrowthFits) {
  SchedulerConfig config = small_config();
  VirtualFleet fleet(config, 40, kGpu);  // two or three of the longest
  std::int64_t least = 0;
  constexpr int kRequests = 60;
  for (int i = 0; i < kRequests; ++i) {
    fleet.submit(20 + 5 * (i % 7), 100 + i % 40);
    least += 20 + 5 * (i % 7) + 100 + i % 40 - 1;
  }
  while (fleet.num_choices() > 0) ASSERT_TRUE(fleet.step());
  const auto preemptions = fleet.scheduler().counts().preemptions;
  EXPECT_GT(preemptions, 0u) << "or this shows nothing";
  EXPECT_LE(preemptions, static_cast<std::uint64_t>(kRequests));
  EXPECT_LE(static_cast<double>(fleet.num_computed()), 1.25 * static_cast<double>(least));
}

TEST(HeadTest, TheFirstAlwaysAdvancesAndNobodyIsPassed) {
  SchedulerConfig config = small_config();
  VirtualFleet fleet(config, 30, kGpu);
  for (int i = 0; i < 40; ++i) fleet.submit(20 + 11 * (i % 9), 60 + i);
  RequestId first = 0;
  for (int steps_without = 0; fleet.num_choices() > 0;) {
    ASSERT_TRUE(fleet.step());
    const RequestId now_first = fleet.first_running();
    steps_without = now_first != first || fleet.has_row(now_first) ? 0 : steps_without + 1;
    first = now_first;
    // Its last token may be on the way.
    ASSERT_LE(steps_without, config.steps_in_flight) << "request " << first;
  }
  EXPECT_GT(fleet.scheduler().counts().preemptions, 0u) << "or this shows nothing";
  EXPECT_FALSE(fleet.somebody_was_passed());
}

// How long a request of low priority waits while more important ones keep coming.
absl::Duration wait_of_the_least(absl::Duration ageing) {
  SchedulerConfig config = small_config();
  config.policy = Policy::kPriority;
  config.priority_ageing = ageing;
  config.max_num_seqs = 4;
  VirtualFleet fleet(config, 4000, kGpu);
  for (int i = 0; i < 8; ++i) fleet.submit(30, 50);
  NewRequest low;
  low.priority = 5;
  const RequestId least = fleet.submit(30, 50, low);
  const absl::Time begin = fleet.now();
  while (fleet.now() - begin < absl::Seconds(20)) {
    while (fleet.scheduler().num_waiting() < 8) fleet.submit(30, 50);
    EXPECT_TRUE(fleet.step());
    if (fleet.record(least).first <= fleet.now()) return fleet.record(least).first - begin;
  }
  return absl::InfiniteDuration();
}

TEST(PriorityTest, WaitingMakesUpForIt) {
  EXPECT_EQ(wait_of_the_least(absl::Hours(1)), absl::InfiniteDuration());
  const absl::Duration wait = wait_of_the_least(absl::Seconds(1));
  EXPECT_GT(wait, absl::Seconds(3)) << "five steps of priority are worth five seconds";
  EXPECT_LT(wait, absl::Seconds(7));
}

TEST(PriorityTest, TheMoreImportantPassTheOthers) {
  SchedulerConfig config = small_config();
  config.policy = Policy::kPriority;
  config.max_num_seqs = 2;
  VirtualFleet fleet(config, 4000, kGpu);
  std::vector<RequestId> usual;
  for (int i = 0; i < 20; ++i) usual.push_back(fleet.submit(30, 20));
  fleet.step();
  NewRequest urgent;
  urgent.priority = -1;
  const RequestId first = fleet.submit(30, 20, urgent);
  while (fleet.num_choices() > 0) ASSERT_TRUE(fleet.step());
  int before = 0;
  for (const RequestId id : usual) before += fleet.record(id).end < fleet.record(first).end;
  EXPECT_LE(before, 2) << "those that ran when it came";
}

TEST(DeadlineTest, AmongEqualsTheEarliestDeadlineIsFirst) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 1;
  VirtualFleet fleet(config, 4000, kGpu);
  fleet.submit(30, 5);
  fleet.step();
  std::vector<std::pair<int, RequestId>> order;
  for (const int seconds : {9, 3, 7, 1, 5}) {
    NewRequest wish;
    wish.deadline = fleet.now() + absl::Seconds(seconds);
    order.emplace_back(seconds, fleet.submit(30, 5, wish));
  }
  order.emplace_back(60, fleet.submit(30, 5));
  while (fleet.num_choices() > 0) ASSERT_TRUE(fleet.step());
  std::sort(order.begin(), order.end());
  for (std::size_t i = 1; i < order.size(); ++i) {
    EXPECT_LT(fleet.record(order[i - 1].second).end, fleet.record(order[i].second).end)
        << "due after " << order[i - 1].first << " and " << order[i].first << " s";
  }
}

// long_prefill_token_threshold and max_num_batched_tokens: the share of time or the budget binds.
class PrefillTest : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(PrefillTest, AShortPromptDoesNotWaitForALongOne) {
  SchedulerConfig config = small_config();
  config.long_prefill_token_threshold = GetParam().first;
  config.max_num_batched_tokens = GetParam().second;
  VirtualFleet fleet(config, 4000, kGpu);
  for (int i = 0; i < 8; ++i) fleet.submit(20, 2000);  // streams that run all the time
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(fleet.step());
  const RequestId long_one = fleet.submit(3500, 10);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(fleet.step());
  const RequestId short_one = fleet.submit(20, 10);
  int steps = 0;
  for (; fleet.record(short_one).num_tokens == 0; ++steps) ASSERT_TRUE(fleet.step());
  EXPECT_LE(steps, 5);
  EXPECT_EQ(fleet.record(long_one).num_tokens, 0);
}

INSTANTIATE_TEST_SUITE_P(Thresholds, PrefillTest,
                         testing::Values(std::pair(-1, 1024), std::pair(-1, 256),
                                         std::pair(64, 256), std::pair(200, 256)));

TEST(WasteTest, OnlyLastBlocksHaveRoom) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 32;
  VirtualFleet fleet(config, 700, kGpu);
  double waste = 0.0, floor = 0.0;
  int samples = 0;
  for (int steps = 0; steps < 3000; ++steps) {
    while (fleet.scheduler().num_waiting() < 8) {
      const auto random =
          static_cast<int>(mix(static_cast<std::uint64_t>(fleet.records().size())) % 1000);
      fleet.submit(20 + random % 300, 20 + random % 170);
    }
    ASSERT_TRUE(fleet.step());
    if (steps < 500) continue;
    const KvUse use = fleet.scheduler().kv_use(), least = fleet.least_use();
    waste += 1.0 - static_cast<double>(use.filled) / static_cast<double>(use.allocated);
    floor += 1.0 - static_cast<double>(least.filled) / static_cast<double>(least.allocated);
    ++samples;
  }
  EXPECT_GT(fleet.scheduler().num_used_blocks(), 350) << "not a full load";
  EXPECT_LE(waste, 1.15 * floor);
  EXPECT_LT(waste / samples, 0.06);
}

}  // namespace
}  // namespace quire::test
