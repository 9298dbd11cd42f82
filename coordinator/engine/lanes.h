// All lanes, and which request is in which. With one lane every request goes there at once. With
// several, those that wait for any group wait in one queue, in one order, and go to a lane in their
// turn (placement.h); what a lost group had goes back to that queue with its tokens. The engine's
// thread owns it.
//
// Invariant: a request that is not finished is known to exactly one scheduler, that of its home.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/engine/lane.h"
#include "coordinator/engine/live_requests.h"
#include "coordinator/engine/placement.h"
#include "coordinator/engine/suspects.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {

// What a scheduler is told of a request; its prompt moves there.
NewRequest wish_of(Request* request);

class Lanes {
 public:
  Lanes(const SchedulerConfig& config, const StepDeadline& deadline, int count);

  int size() const { return static_cast<int>(lanes_.size()); }
  Lane& at(int lane) { return *lanes_[static_cast<std::size_t>(lane)]; }
  const Lane& at(int lane) const { return *lanes_[static_cast<std::size_t>(lane)]; }
  int with_epoch(EpochId epoch) const;  // -1: none
  int num_ready() const;

  Scheduler& home(const LiveRequest& live) {
    return live.lane < 0 ? *lobby_ : at(live.lane).scheduler();
  }
  // A new request, or one of an earlier life. See Scheduler::add.
  absl::Status add(LiveRequest* live, NewRequest wish);
  // What is known of one before it is added, where it would be best off.
  Outlook outlook(const NewRequest& wish) const;

  // Once a turn: gives lanes what they may take now, and moves what waits in one while another has
  // nothing to do. Suspects are placed alone, one at a time: `alone` is whose turn it is. Returns
  // the requests that no group can hold although every seat has one: theirs is no home then.
  std::vector<RequestId> distribute(LiveRequests* live, const Suspects& suspects,
                                    std::optional<RequestId> alone);
  // The lane has just lost its group: what it had waits for any. With one lane, in it.
  void abandon(int lane, LiveRequests* live);

  // What stats say of lanes: sums, and each.
  void publish(EngineStats* stats) const;
  double kv_waste() const;  // walks over everything that runs
  absl::Status verify() const;

 private:
  Placement placement(std::optional<int> isolated) const;
  std::vector<Scheduler::Cached> cached(Sequence* sequence) const;
  Newcomer newcomer(const Sequence& sequence) const;
  std::vector<double> ahead() const;
  bool fits_any(const Sequence& sequence) const;
  void move(LiveRequest* live, int lane);
  void balance(LiveRequests* live, std::optional<RequestId> alone, std::optional<int> isolated);

  const SchedulerConfig config_;
  std::shared_ptr<TenantShares> shares_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<Scheduler> lobby_;  // holds what waits for any group; null: there is one lane
};

}  // namespace quire
