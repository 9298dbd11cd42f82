// The fleet's rules as a pure state machine: what the streams report goes in, what must be done
// comes out as actions. No gRPC, no thread, no clock of its own.
//
//   hello (every rank of one instance, once) -> checks -> a free seat and an epoch (group.h), else
//   standby: the first complete instance takes the seat that an ended epoch leaves
//
// Invariants: at most one epoch lives in a seat; epochs only grow, over all seats, also beyond
// those that ranks were in with an earlier coordinator.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/fleet/group.h"

namespace quire {

class Groups {
 public:
  explicit Groups(GroupRules rules, int num_seats = 1);

  // --- what the streams report ---
  GroupActions hello(LinkId link, RankHello hello, absl::Time now);
  GroupActions collective_id(LinkId link, EpochId epoch, std::string id, absl::Time now);
  GroupActions heartbeat(LinkId link, EpochId epoch, StepId step, std::uint64_t digest,
                         absl::Time now);
  GroupActions result(LinkId link, StepResult result, absl::Time now);
  GroupActions worker_error(LinkId link, EpochId epoch, const std::string& message, absl::Time now);
  GroupActions gone(LinkId link, const std::string& why, absl::Time now);
  GroupActions tick(absl::Time now);  // leases and step deadlines

  // --- what the engine asks for ---
  GroupActions plan(const StepPlan& plan, absl::Time now);  // dropped unless its epoch is ready
  // Nothing unless that epoch lives.
  GroupActions end_epoch(EpochId epoch, EndCause cause, const std::string& why, absl::Time now);

  const Group& seat(int seat) const { return seats_[static_cast<std::size_t>(seat)]; }
  const Group* of(LinkId link) const;  // that the rank belongs to; null: it waits, or is nobody
  std::vector<LinkId> ready_links() const;  // of the ranks of every ready epoch
  std::uint64_t stale_dropped() const { return stale_dropped_; }
  std::string describe() const;

 private:
  Group* group_of(LinkId link);
  Group* group_of(const std::string& instance);
  void admit_standby(LinkId link, RankHello hello, absl::Time now, GroupActions& out);
  // What ended leaves its seat: complete standbys take the free ones.
  GroupActions settle(GroupActions out, absl::Time now);
  void give_up_partial(absl::Time now, GroupActions& out);
  bool take_seat(Group* seat, absl::Time now, GroupActions& out);
  absl::Status check_seated(const Instance& instance) const;

  std::shared_ptr<const GroupRules> rules_;
  std::vector<Group> seats_;
  std::vector<Instance> standby_;     // in order of arrival
  std::deque<std::string> unproven_;  // instances that failed their dummy steps: not tried again
  EpochId last_epoch_;
  std::uint64_t stale_dropped_ = 0;
};

}  // namespace quire
