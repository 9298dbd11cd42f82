// One seeded life of a scheduler with a fake worker group: random arrivals, cancels, deadlines,
// losses of the group and of the coordinator, tiny pools, every policy. Everything is checked
// against the hash oracle; every event is followed by verify().
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_worker.h"
#include "tests/simulation/plan_watch.h"
#include "tests/simulation/simulation_client.h"
#include "tests/simulation/simulation_world.h"

namespace quire::test {

// What happened, summed over seeds: a simulation that never preempts shows nothing.
struct SimulationCounts {
  std::int64_t requests = 0, finished = 0, cancelled = 0, stopped = 0, early = 0, refused = 0;
  std::int64_t searches = 0, tokens = 0, cached_tokens = 0, losses = 0, restarts = 0,
               late_picks = 0, crashes = 0;
  SchedulerCounts scheduler;
  PlanCounts plans;
  void add(const SimulationCounts& more);
  std::string text() const;
};

class SchedulerSimulation {
 public:
  explicit SchedulerSimulation(std::uint64_t seed);
  // The first thing that is wrong, or OK.
  absl::Status run();
  const SimulationCounts& counts() const { return counts_; }

 private:
  using Clients = std::map<RequestId, SimulationClient>;

  absl::Status tick(bool draining);
  absl::Status arrive();
  absl::Status check_refusal(const SimulationClient& client, int num_blocks, bool refused) const;
  absl::Status leave_one();
  absl::Status expire();
  absl::Status finish_early(Clients::iterator client);
  absl::Status change_group();
  absl::Status plan();
  absl::Status work();
  absl::Status apply();
  absl::Status take(const Gain& gain);
  absl::Status check_stuck() const;
  absl::Status check_use() const;
  absl::Status drain();
  absl::Status restart();
  absl::Status crash();
  absl::Status save_prefixes();
  absl::Status begin_group(const HashWorkerConfig& group);
  void add_counts(const SchedulerCounts& more);
  absl::Status check_counts() const;
  int most_cached(const SimulationClient& client) const;
  void remove(Clients::iterator client);

  SimulationWorld world_;
  SimulationCounts counts_;
  std::unique_ptr<Scheduler> scheduler_;
  PlanWatch watch_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  EpochId epoch_ = 0;
  HashWorkerConfig group_;
  RequestId next_request_ = 1;
  Clients clients_;                     // unfinished
  std::unique_ptr<HashWorker> worker_;  // null while no group is there
  std::deque<StepPlan> sent_;           // not run yet
  std::deque<StepResult> results_;      // run, not applied yet
  // [domain] what was computed and delivered: all that the prefix cache may know. Of a domain with
  // beams not all is delivered.
  std::map<std::uint64_t, std::vector<std::vector<TokenId>>> past_;
  std::map<std::uint64_t, bool> had_beams_;
};

}  // namespace quire::test
