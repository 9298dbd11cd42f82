// The random circumstances of one simulated life: how the scheduler is configured, how large the
// group is, what requests come. A seed decides all of it.
#pragma once

#include <random>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_model.h"
#include "tests/fakes/hash_worker.h"

namespace quire::test {

class SimulationWorld {
 public:
  // `shortest`: the least that the longest sequence of a life may be.
  explicit SimulationWorld(std::uint64_t seed, int shortest = 2);

  int pick(int low, int high);  // both included
  bool chance(double p);

  // Prompts begin with one of a few texts, with each other, or go on where an earlier answer ended.
  NewRequest request(RequestId id, absl::Time now);
  // A group that holds the longest request, sometimes only just, rarely not.
  HashWorkerConfig group(EpochId epoch);
  // A finished choice: somebody may go on from there.
  void remember(const NewRequest& wish, const std::vector<TokenId>& tokens);

  // Whose cached blocks a request may use. Also the upper half of its seed.
  static std::uint64_t domain(const NewRequest& wish);

  SchedulerConfig config;
  HashModel model;
  double loss_rate = 0, crash_rate = 0, cancel_rate = 0, arrival_rate = 0, beam_rate = 0,
         deadline_rate = 0;

 private:
  void make_config(int shortest);
  std::vector<TokenId> prompt(NewRequest* wish);
  void ask_for_beams(NewRequest* wish);

  std::mt19937_64 random_;
  bool offloads_ = false;
  std::vector<std::vector<TokenId>> texts_;
  std::vector<NewRequest> answers_;  // as prompts, with the tenant and salt that they were for
};

}  // namespace quire::test
