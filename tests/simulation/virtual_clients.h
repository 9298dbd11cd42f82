// The clients of a simulated coordinator. Each knows from the hash model what it must get, and how
// much of it it has; its connection breaks, it comes back, gives up or has seen enough.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/api/kept_answer.h"
#include "tests/simulation/coordinator_world.h"
#include "tests/simulation/simulation_client.h"
#include "tests/simulation/virtual_coordinator.h"
#include "tests/simulation/virtual_time.h"

namespace quire::test {

struct ClientCounts {
  std::int64_t calls = 0, accepted = 0, finished = 0, refused = 0, cancelled = 0, stopped = 0;
  std::int64_t expired = 0, quarantined = 0, too_large = 0, gone = 0, resumed = 0, tokens = 0;
  std::int64_t behind = 0;      // came back to a server that had less than they
  std::int64_t unpromised = 0;  // lost, where the contract allows it
};

class VirtualClients {
 public:
  // `coordinator`: null while there is none. `broken`: a promise.
  VirtualClients(CoordinatorWorld* world, VirtualTime* time,
                 std::function<VirtualCoordinator*()> coordinator,
                 std::function<void(absl::Status)> broken);

  void arrive();
  void on_coordinator_gone();
  bool break_one();  // connection. False: there is none
  // A worker group that was ready has died.
  void on_group_lost() { ++num_group_losses_; }

  // A life of the coordinator begins, or fails to.
  void begin_life() { ++life_; }
  // What it finds in the journal's file.
  void check_saved(const std::vector<SavedAnswer>& saved);
  // From here on the file may be behind what clients have, or lack them.
  void lose_protection();
  // A row of the file is spoilt: of the answer, or of the steps, which everybody has tokens in.
  void lose_row(const FaultyDisk::Flipped& row);

  int num_unfinished() const;
  std::string describe_unfinished() const;
  const ClientCounts& counts() const { return counts_; }

 private:
  enum class State { kAway, kConnected, kDone };
  struct Client {
    std::uint64_t number = 0;
    Call call;
    std::vector<SimulationClient> oracles;  // [place]
    State state = State::kAway;
    bool is_protected = true;  // by the journal: nothing of it is lost
    bool is_kept = true;       // its request is not; its tokens may be
    // [place] How much the file had of it, and in which life it first had so much.
    struct Saved {
      std::int64_t num_tokens = -1;
      int life = 0;
    };
    std::vector<Saved> saved;
    bool is_deadly = false;           // as far as the journal can know: it may be dropped
    std::uint64_t losses_before = 0;  // of groups, before it came
    std::uint64_t connection = 0;     // the server's name for it
    std::uint64_t generation = 0;     // of its connections
    absl::Time arrives;               // the newest message of this connection
    int num_refusals = 0;
  };

  void later(const Client& client, absl::Duration wait, std::function<void(Client&)> what);
  void hear(std::uint64_t number, std::uint64_t generation, std::function<void(Client&)> what);
  Connection connection_of(const Client& client);
  void dial(Client& client);
  void come_back(Client& client, absl::Duration mean);
  void drop(Client& client);
  void refused(Client& client, const absl::Status& why);
  void unknown(Client& client);
  void take(Client& client, int place, OutputDelta delta);
  void take_end(Client& client, std::size_t place, const OutputDelta& delta);
  void stop_one(Client& client);
  void finish(Client& client, std::int64_t* count);
  void plan_whims(Client& client);
  bool can_be_too_large(const Client& client) const;
  void note_life(Client& client, const SavedAnswer& saved);
  void check_past(const Client& client, std::size_t place, int choice, const OutputDelta& past);
  // Of client.call.had.
  static std::size_t index_of(const Client& client, std::size_t place, int choice);
  static bool is_done(const Client& client);
  template <typename... Words>
  void wrong(const Client& client, const Words&... words);

  CoordinatorWorld& world_;
  VirtualTime& time_;
  const std::function<VirtualCoordinator*()> coordinator_;
  const std::function<void(absl::Status)> broken_;
  std::map<std::uint64_t, Client> clients_;
  std::uint64_t num_group_losses_ = 0;
  int life_ = 0;  // of the coordinator
  ClientCounts counts_;
};

}  // namespace quire::test
