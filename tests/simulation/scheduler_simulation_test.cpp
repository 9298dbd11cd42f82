// Thousands of seeded lives of the scheduler. QUIRE_SIM_SEEDS sets their number (default 1,000, in
// four parts), QUIRE_SIM_SEED replays the one seed that a failure prints.
#include "tests/simulation/scheduler_simulation.h"

#include <gtest/gtest.h>

#include <iostream>

#include "tests/simulation/seeds.h"

namespace quire::test {
namespace {

constexpr int kParts = 4;

class SchedulerSimulationTest : public testing::TestWithParam<int> {};

TEST_P(SchedulerSimulationTest, EveryOutputIsRight) {
  const Seeds seeds = Seeds::of_part(GetParam(), kParts);
  if (seeds.count == 0) GTEST_SKIP() << "one seed is replayed by part 0";
  SimulationCounts sum;
  for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    SchedulerSimulation simulation(seed);
    const absl::Status status = simulation.run();
    ASSERT_TRUE(status.ok()) << replay_hint(seed) << status.message();
    sum.add(simulation.counts());
  }
  std::cout << seeds.text() << ": " << sum.text() << "\n";
  if (seeds.is_replay) return;
  for (const auto& [what, happened] : std::vector<std::pair<const char*, std::int64_t>>{
           {"searches", sum.searches},
           {"early ends", sum.early},
           {"refusals", sum.refused},
           {"cached tokens", sum.cached_tokens},
           {"group losses", sum.losses},
           {"restarts", sum.restarts},
           {"crashes of the coordinator", sum.crashes},
           {"late picks", sum.late_picks},
           {"preemptions", static_cast<std::int64_t>(sum.scheduler.preemptions)},
           {"right drafts", static_cast<std::int64_t>(sum.scheduler.accepted_draft_tokens)},
           {"forks", sum.plans.forks},
           {"copies", sum.plans.copies},
           {"saves", sum.plans.saves},
           {"loads", sum.plans.loads}}) {
    EXPECT_GT(happened, 0) << "no " << what << " in " << seeds.text();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimulationTest, testing::Range(0, kParts));

// A seed that fails can only be replayed if nothing but the seed decides.
TEST(SchedulerSimulationReplayTest, ASeedAlwaysGivesTheSamePlans) {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    SchedulerSimulation first(seed), second(seed);
    const absl::Status status = first.run();
    ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.message();
    ASSERT_TRUE(second.run().ok());
    EXPECT_EQ(first.counts().plans.digest, second.counts().plans.digest) << "seed " << seed;
  }
}

}  // namespace
}  // namespace quire::test
