// The engine's loop with many worker groups of the modelled GPU, in virtual time: a step takes what
// the model says, and a turn of the loop what it really took here. So a loop that cannot follow
// makes groups wait, as it would.
#pragma once

#include <deque>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "bench/schedule/fake_fleet.h"
#include "bench/schedule/trace.h"
#include "coordinator/engine/step_loop.h"

namespace quire::bench {

struct FleetsOptions {
  int num_groups = 1;
  int num_requests = 0;     // of the trace, from its beginning, again and again
  double oversupply = 1.5;  // unfinished requests at any time, per slot
  SchedulerConfig scheduler;
  GpuModel gpu;
};

struct FleetsSeen {
  double virtual_s = 0;
  double loop_s = 0;  // CPU time of the loop's thread, wire format of plans and results included
  double idle_s = 0;  // of groups that waited for a plan, summed
  std::int64_t steps = 0, turns = 0, tokens = 0, finished = 0;
};

class VirtualFleets final : public GroupPort {
 public:
  VirtualFleets(const FleetsOptions& options, const Trace& trace);
  // Until every request has ended. A request that ends otherwise than by its length is an error.
  absl::StatusOr<FleetsSeen> run();

  void send(const StepPlan& plan) override;
  void end_epoch(EpochId epoch, EndCause cause, const std::string& why) override;

 private:
  struct Seat {
    std::unique_ptr<FakeFleet> fleet;
    double free_at = 0;  // its last plan is done
  };
  struct Event {  // a result reaches the coordinator
    double at = 0;
    std::uint64_t order = 0;
    std::string bytes;
    bool operator>(const Event& other) const {
      return std::pair(at, order) > std::pair(other.at, other.order);
    }
  };

  void refill();
  void turn();

  const FleetsOptions options_;
  const Trace& trace_;
  double now_ = 0;
  StepLoop loop_;
  std::vector<Seat> seats_;
  std::vector<Message> inbox_;
  std::vector<StepPlan> plans_;  // that this turn sent
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t num_events_ = 0;
  int num_submitted_ = 0;
  FleetsSeen seen_;
  std::string failure_;
};

}  // namespace quire::bench
