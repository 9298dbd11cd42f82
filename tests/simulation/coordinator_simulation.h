// One seeded life of everything that the coordinator promises: clients, the coordinator in one life
// after the other, its file, the network, the ranks. Faults of every kind happen for a while.
//
// In every seed (safety): each token that a client gets is the hash model's, exactly once; what was
// accepted is not lost, but where the file itself was spoilt; epochs only grow; the scheduler's
// invariants hold after every turn. In every second seed (liveness) faults then stop, and every
// request has to end within a time that its work allows.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "tests/fakes/faulty_disk.h"
#include "tests/simulation/coordinator_world.h"
#include "tests/simulation/virtual_clients.h"
#include "tests/simulation/virtual_coordinator.h"
#include "tests/simulation/virtual_network.h"
#include "tests/simulation/virtual_ranks.h"
#include "tests/simulation/virtual_time.h"

namespace quire::test {

struct CoordinatorCounts {
  ClientCounts clients;
  std::array<std::int64_t, kNumFaults> faults = {};
  std::int64_t lives = 0, epochs = 0, steps = 0, group_losses = 0, stale_dropped = 0;
  std::int64_t journal_failures = 0, failed_starts = 0, recovered = 0, preemptions = 0;
  std::uint64_t digest = 0;  // of what happened, in order
  void add(const CoordinatorCounts& more);
  std::string text() const;
};

class CoordinatorSimulation {
 public:
  // The journal lies in `folder`, and is gone afterwards.
  CoordinatorSimulation(std::uint64_t seed, const std::string& folder);
  ~CoordinatorSimulation();
  // The first thing that is wrong, or OK.
  absl::Status run();
  const CoordinatorCounts& counts() const { return counts_; }

 private:
  VirtualCoordinator* coordinator() const;
  void start_coordinator();
  void crash();  // and another life later
  void end_life();
  void restart();
  void stop(std::int64_t life);
  bool spoil(Fault fault);
  void arrive();
  void arm(Fault fault);
  bool suffer(Fault fault);
  void heal();
  void check_time();
  absl::Status check_end();
  absl::Status await(const std::function<bool()>& done);
  void broken(const absl::Status& status);
  void note(std::uint64_t what);
  void tell(const std::string& what) const;
  CoordinatorEvents events();

  CoordinatorWorld world_;
  VirtualTime time_;
  FaultyDisk disk_;
  VirtualNetwork network_;
  VirtualRanks ranks_;
  VirtualClients clients_;
  JournalOptions journal_;
  std::unique_ptr<VirtualCoordinator> coordinator_;
  bool is_faulty_ = true;
  EpochId noted_ = 0;  // the last epoch that is in the file
  EpochId floor_ = 0;  // below the next one
  absl::Status first_wrong_;
  CoordinatorCounts counts_;
};

}  // namespace quire::test
