// Thousands of seeded lives of the scheduler. QUIRE_SIM_SEEDS sets their number (default 1,000, in
// four parts), QUIRE_SIM_SEED replays the one seed that a failure prints.
#include "tests/simulation/scheduler_simulation.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

namespace quire::test {
namespace {

constexpr int kParts = 4;

std::uint64_t from_environment(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

void add(SimulationCounts* sum, const SimulationCounts& more) {
  sum->sequences += more.sequences;
  sum->finished += more.finished;
  sum->cancelled += more.cancelled;
  sum->refused += more.refused;
  sum->steps += more.steps;
  sum->tokens += more.tokens;
  sum->preemptions += more.preemptions;
  sum->losses += more.losses;
  sum->late_rows += more.late_rows;
}

class SchedulerSimulationTest : public testing::TestWithParam<int> {};

TEST_P(SchedulerSimulationTest, EveryOutputIsRight) {
  const std::uint64_t only = from_environment("QUIRE_SIM_SEED", 0);
  if (only != 0 && GetParam() != 0) GTEST_SKIP() << "one seed is replayed by part 0";
  const std::uint64_t per_part = from_environment("QUIRE_SIM_SEEDS", 1000) / kParts;
  const std::uint64_t first =
      only != 0 ? only : 1 + static_cast<std::uint64_t>(GetParam()) * per_part;
  const std::uint64_t count = only != 0 ? 1 : per_part;
  SimulationCounts sum;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SchedulerSimulation simulation(seed);
    const absl::Status status = simulation.run();
    ASSERT_TRUE(status.ok()) << "seed " << seed << " (replay: QUIRE_SIM_SEED=" << seed
                             << "): " << status.message();
    add(&sum, simulation.counts());
  }
  std::cout << "seeds " << first << " to " << first + count - 1 << ": " << sum.text() << "\n";
  if (only != 0) return;
  EXPECT_GT(sum.preemptions, 0);
  EXPECT_GT(sum.losses, 0);
  EXPECT_GT(sum.late_rows, 0);
  EXPECT_GT(sum.refused, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimulationTest, testing::Range(0, kParts));

}  // namespace
}  // namespace quire::test
