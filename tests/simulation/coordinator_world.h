// The random circumstances of one life of the whole coordinator: what SimulationWorld decides of
// scheduler, model and requests, and beyond it who dies, hangs, breaks or spoils what, and how
// often. A seed decides all of it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/engine/queue_gate.h"
#include "coordinator/engine/request.h"
#include "coordinator/engine/tenant_limits.h"
#include "tests/simulation/simulation_world.h"

namespace quire::test {

enum class Fault {
  kKillRank,      // one process of the group
  kKillGroup,     // all at once
  kStopRank,      // SIGSTOP, and later SIGCONT
  kStickRank,     // its heart beats, its steps never end
  kStaleResult,   // of an earlier epoch, on the stream of this one
  kLieRank,       // a result that no plan asked for, or a digest of other plans
  kCutLink,       // one rank's stream
  kRepeat,        // a message comes twice
  kCrash,         // kill -9 of the coordinator
  kCrashInWrite,  // in the middle of a write to the journal's file
  kCrashInTurn,   // between a commit and its deliveries, or in the middle of them
  kPause,         // SIGSTOP of the coordinator
  kRestart,       // an orderly stop, and a new start
  kFailDisk,      // every write fails for a while
  kCutLog,        // the machine dies: what was not synced is gone. With a crash
  kFlipRow,       // a bit of a row. With a crash
  kFlipFile,      // a bit anywhere in the file. With a crash
  kBreakClient,   // a client's connection
  kCount
};
const char* name_of(Fault fault);
inline constexpr int kNumFaults = static_cast<int>(Fault::kCount);

class CoordinatorWorld {
 public:
  explicit CoordinatorWorld(std::uint64_t seed);

  int pick(int low, int high) { return base.pick(low, high); }
  bool chance(double p) { return base.chance(p); }
  std::uint64_t any();  // 64 random bits
  absl::Duration between(absl::Duration low, absl::Duration high);
  absl::Duration about(absl::Duration mean);  // exponential, at most eight times it

  // A request that the engine's limits do not refuse. Its seed names it and its domain.
  Request request(std::uint64_t name, absl::Time now);
  Request request(std::uint64_t name, absl::Time now, int tenant);

  SimulationWorld base;
  std::vector<Tenant> tenants;
  QueueGate::Limits queue;
  int num_ranks = 1;
  int num_instances = 1;  // that the supervisor keeps alive
  int num_seats = 1;      // of groups that serve at once; more instances stand by
  bool has_collective_id = false;
  bool is_supervised = true;       // else ranks leave when their stream is closed, and not before
  HashWorkerConfig worker;         // of every group
  absl::Duration step_time;        // of a rank, about
  absl::Duration network_delay;    // about
  absl::Duration commit_time;      // about
  std::int64_t journal_bytes = 0;  // that its file may have
  absl::Duration journal_keep;     // of what has ended
  absl::Duration arrival_every;
  absl::Duration faulty_for;  // requests come and faults happen for so long
  bool is_live = false;       // then faults stop, and every request has to end
  bool has(Fault fault) const {
    return fault_every[static_cast<std::size_t>(fault)] < absl::InfiniteDuration();
  }
  std::array<absl::Duration, kNumFaults> fault_every;  // InfiniteDuration: never
};

}  // namespace quire::test
