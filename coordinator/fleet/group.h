// One seat of the fleet: the epoch that lives in it, if any. A pure state machine; groups.h says
// who takes the seat. No gRPC, no thread, no clock of its own.
//
//   begin (-> the collective's id, from rank 0 to all) -> dummy steps 1 and 2 on all ranks -> ready
//   -> steps -> ended: the seat is free
//
// Invariants: step ids are contiguous within an epoch; every rank's rolling digest equals ours for
// every step it confirms.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/step.h"
#include "coordinator/fleet/group_action.h"
#include "coordinator/fleet/instance.h"

namespace quire {

class Group {
 public:
  Group(std::shared_ptr<const GroupRules> rules, int seat)
      : rules_(std::move(rules)), seat_(seat) {}

  // The seat is free, the instance complete and checked, the epoch new. `known_saved_prefixes`:
  // what the coordinator can still make use of; 0: nothing.
  void begin(Instance instance, EpochId epoch, std::uint64_t known_saved_prefixes, absl::Time now,
             GroupActions& out);
  void end(EndCause cause, const std::string& why, GroupActions& out);

  // --- what the streams of the epoch's ranks report (has(link)) ---
  // False: of another epoch; nothing has changed.
  bool collective_id(LinkId link, EpochId epoch, std::string id, absl::Time now, GroupActions& out);
  bool heartbeat(LinkId link, EpochId epoch, StepId step, std::uint64_t digest, absl::Time now,
                 GroupActions& out);
  bool result(LinkId link, StepResult result, absl::Time now, GroupActions& out);
  bool worker_error(LinkId link, EpochId epoch, const std::string& message, GroupActions& out);
  void gone(LinkId link, const std::string& why, GroupActions& out);
  void tick(absl::Time now, GroupActions& out);  // leases and deadlines

  void plan(const StepPlan& plan, absl::Time now, GroupActions& out);  // dropped unless ready

  bool is_free() const { return !live_.has_value(); }
  bool ready() const { return live_ && live_->ready; }
  bool has(LinkId link) const;  // of one of the epoch's ranks
  const Instance* instance() const { return live_ ? &live_->instance : nullptr; }
  EpochId epoch() const { return live_ ? live_->epoch : 0; }
  StepId last_step() const { return live_ ? live_->sent : 0; }
  std::vector<LinkId> links() const;  // of the epoch's ranks
  std::string describe() const;       // of one that is not free

 private:
  struct Live {
    Instance instance;
    EpochId epoch = 0;
    int num_blocks = 0;
    int num_host_blocks = 0;
    std::uint64_t saved_prefixes = 0;  // kept by every rank
    bool ready = false;
    bool awaits_id = false;  // of the collective: no step is sent before
    absl::Time id_due;
    StepId sent = 0;
    StepId answered = 0;
    absl::Time oldest_unanswered;  // when the step after `answered` was sent, or the last answered
    StepId digests_from = 0;       // the step of digests.front()
    std::deque<std::uint64_t>
        digests;  // the epoch's nonce, then after each step; digests.back() is that of `sent`
  };

  Member* member(LinkId link);
  void broadcast(const StepPlan& plan, absl::Time now, GroupActions& out);
  void advance_proof(absl::Time now, GroupActions& out);  // the dummy steps
  void drop_confirmed_digests();

  std::shared_ptr<const GroupRules> rules_;
  int seat_;
  std::optional<Live> live_;
};

}  // namespace quire
