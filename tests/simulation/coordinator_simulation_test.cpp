// Thousands of seeded lives of the whole coordinator. QUIRE_SIM_SEEDS sets their number (default
// 1,000, in four parts), QUIRE_SIM_SEED replays the one seed that a failure prints.
#include "tests/simulation/coordinator_simulation.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "spdlog/spdlog.h"
#include "tests/simulation/seeds.h"

namespace quire::test {
namespace {

constexpr int kParts = 4;

// In memory where that can be had: what a machine's death does to a file is simulated.
class Folder {
 public:
  Folder() {
    std::string name = (access("/dev/shm", W_OK) == 0 ? std::filesystem::path("/dev/shm")
                                                      : std::filesystem::temp_directory_path()) /
                       "quire-simulation-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class CoordinatorSimulationTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    // Faults are what it is about: only a replay tells of each.
    if (!Seeds::of_part(0, 1).is_replay) spdlog::set_level(spdlog::level::off);
  }
};

TEST_P(CoordinatorSimulationTest, NothingIsLost) {
  const Seeds seeds = Seeds::of_part(GetParam(), kParts);
  if (seeds.count == 0) GTEST_SKIP() << "one seed is replayed by part 0";
  const Folder folder;
  CoordinatorCounts sum;
  for (std::uint64_t seed = seeds.first; seed < seeds.first + seeds.count; ++seed) {
    CoordinatorSimulation simulation(seed, folder.path());
    const absl::Status status = simulation.run();
    ASSERT_TRUE(status.ok()) << replay_hint(seed) << status.message();
    sum.add(simulation.counts());
  }
  std::cout << seeds.text() << ": " << sum.text() << "\n";
  if (seeds.is_replay) return;
  for (int i = 0; i < kNumFaults; ++i) {
    EXPECT_GT(sum.faults[static_cast<std::size_t>(i)], 0)
        << "no " << name_of(static_cast<Fault>(i)) << " in " << seeds.text();
  }
  for (const auto& [what, happened] : std::vector<std::pair<const char*, std::int64_t>>{
           {"finished calls", sum.clients.finished},
           {"resumed connections", sum.clients.resumed},
           {"expired deadlines", sum.clients.expired},
           {"cancelled calls", sum.clients.cancelled},
           {"stopped choices", sum.clients.stopped},
           {"refusals", sum.clients.refused},
           {"choices ahead of a spoilt file", sum.clients.behind},
           {"recovered requests", sum.recovered},
           {"preemptions", sum.preemptions},
           {"stale messages", sum.stale_dropped},
           {"failed commits", sum.journal_failures},
           {"failed starts", sum.failed_starts}}) {
    EXPECT_GT(happened, 0) << "no " << what << " in " << seeds.text();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, CoordinatorSimulationTest, testing::Range(0, kParts));

// A seed that fails can only be replayed if nothing but the seed decides.
TEST(CoordinatorSimulationReplayTest, ASeedAlwaysGivesTheSameLife) {
  spdlog::set_level(spdlog::level::off);
  const Folder folder;
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    CoordinatorCounts seen[2];
    for (CoordinatorCounts& counts : seen) {
      CoordinatorSimulation simulation(seed, folder.path());
      const absl::Status status = simulation.run();
      ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.message();
      counts = simulation.counts();
    }
    EXPECT_EQ(seen[0].digest, seen[1].digest) << "seed " << seed;
    EXPECT_EQ(seen[0].text(), seen[1].text()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace quire::test
