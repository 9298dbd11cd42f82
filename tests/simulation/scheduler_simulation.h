// One seeded life of a scheduler with a fake worker group: random arrivals, cancels, group losses,
// tiny pools. Everything is checked against the hash oracle; every event is followed by verify().
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

// What happened, summed over seeds: a simulation that never preempts shows nothing.
struct SimulationCounts {
  std::int64_t sequences = 0, finished = 0, cancelled = 0, refused = 0;
  std::int64_t steps = 0, tokens = 0, preemptions = 0, losses = 0, late_rows = 0;
  std::string text() const;
};

class SchedulerSimulation {
 public:
  explicit SchedulerSimulation(std::uint64_t seed);
  // The first thing that is wrong, or OK.
  absl::Status run();
  const SimulationCounts& counts() const { return counts_; }

 private:
  struct Client {  // what one sequence's reader has seen
    NewSequence wish;
    std::vector<TokenId> tokens;  // prompt and output
    int max_total = 0;
  };

  int pick(int low, int high);  // both included
  bool chance(double p);
  SchedulerConfig random_config();
  absl::Status tick(bool draining);
  absl::Status arrive();
  void cancel_one();
  absl::Status change_group();
  absl::Status plan();
  absl::Status work();
  absl::Status apply();
  absl::Status check_gain(const Gain& gain);
  absl::Status check_stuck() const;
  absl::Status drain();
  EndReason expected_end(const Client& client) const;

  std::mt19937_64 random_;
  SimulationCounts counts_;
  HashModel model_;
  double loss_rate_ = 0, cancel_rate_ = 0, arrival_rate_ = 0;
  SchedulerConfig config_;  // after what random_config() also sets
  Scheduler scheduler_;
  EpochId epoch_ = 0;
  RequestId next_request_ = 1;
  std::map<SequenceId, Client> clients_;  // unfinished
  std::unique_ptr<HashWorker> worker_;    // null while no group is there
  std::deque<StepPlan> sent_;             // not run yet
  std::deque<StepResult> results_;        // run, not applied yet
};

}  // namespace quire::test
