// Worker groups and their supervisor: instances of ranks that dial in, run plans with HashWorker,
// confirm them by digest, beat, die, stop, lie, and are replaced. As real workers do, they leave
// when the coordinator closes their stream or is silent for a lease, and dial again when it dies.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tests/fakes/hash_worker.h"
#include "tests/simulation/coordinator_world.h"
#include "tests/simulation/virtual_network.h"
#include "tests/simulation/virtual_time.h"

namespace quire::test {

class VirtualRanks {
 public:
  // `broken`: a plan broke a rule.
  VirtualRanks(CoordinatorWorld* world, VirtualTime* time, VirtualNetwork* network,
               std::function<void(absl::Status)> broken);

  void start();
  // The coordinator has ended an epoch: the supervisor ends what is left of its instance.
  void on_ended(const std::string& instance);
  // False where nobody is there for it.
  bool suffer(Fault fault);
  EpochId newest_epoch() const { return newest_epoch_; }  // that any rank was ever in
  std::int64_t num_steps() const { return num_steps_; }

 private:
  struct Rank {
    int rank = 0;
    std::uint64_t pid = 0;
    LinkId link = 0;
    EpochId epoch = 0;              // 0: in none
    EpochId last_epoch = 0;         // that it was in
    std::uint64_t digest = 0;       // of the plans it has read
    StepId step = 0;                // done
    std::uint64_t done_digest = 0;  // of these
    bool is_dead = false, is_stuck = false, lies = false, is_haunted = false;
    absl::Time stopped_until;
    absl::Time last_heard;
    absl::Time free;                                      // when its newest plan is done
    std::deque<std::pair<StepPlan, std::uint64_t>> todo;  // with the digest up to each
    std::unique_ptr<HashWorker> worker;                   // of the sampling rank
  };
  struct Instance {
    std::string name;
    std::vector<Rank> ranks;
    bool is_dead = false;  // all of it, and another comes
  };
  using Name = std::pair<int, int>;  // instance, rank

  Rank* find(Name name);
  // Something that a rank does: not while it is stopped, never when it is dead.
  void act(Name name, absl::Duration wait, std::function<void(Rank&)> what);
  void dial(Name name, Rank& rank);
  void hear(Name name, LinkId link, const Down& message);
  void take(Name name, Rank& rank, const down::Welcome& welcome);
  void take(Name name, Rank& rank, const down::Plan& plan);
  void work(Name name, Rank& rank);
  bool waits_for_others(Name name) const;
  StepResult answer(Rank& rank, const StepPlan& plan);
  void send_stale(Rank& rank, StepResult like);
  void beat(Name name, Rank& rank);
  void send_beat(Rank& rank);
  void start_instance();
  void kill_rank(Name name);
  void kill(int instance);
  std::vector<Name> alive() const;
  bool may_hang_for_ever(Name name);

  CoordinatorWorld& world_;
  VirtualTime& time_;
  VirtualNetwork& network_;
  const std::function<void(absl::Status)> broken_;
  std::deque<Instance> instances_;
  EpochId newest_epoch_ = 0;
  std::int64_t num_steps_ = 0;
};

}  // namespace quire::test
