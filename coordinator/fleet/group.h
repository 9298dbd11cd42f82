// The worker group as a pure state machine: what the streams report goes in, what must be done
// comes out as actions. No gRPC, no thread, no clock of its own.
//
//   hello (every rank of one instance, once) -> checks -> epoch (-> the collective's id, from rank
//   0 to all) -> dummy steps 1 and 2 on all ranks -> ready -> steps -> lost -> (a complete standby
//   instance takes over)
//
// Invariants: at most one epoch lives; epochs only grow, also beyond those that ranks were in with
// an earlier coordinator; step ids are contiguous within an epoch;
// every rank's rolling digest equals ours for every step it confirms.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "coordinator/engine/engine.h"

namespace quire {

using LinkId = std::uint64_t;  // one Attach stream; never used twice

struct RankHello {
  std::uint32_t protocol = 0;
  std::string instance;
  int rank = 0;
  int world = 0;
  std::string host;
  std::uint64_t pid = 0;
  std::string build;
  std::uint64_t model_hash = 0;
  std::string numerics_id;
  std::string layout_digest;
  std::int64_t kv_capacity_blocks = 0;
  std::string secret;
  int num_kv_groups = 1;
  std::string collective;            // by what the ranks meet; empty: in host memory
  std::int64_t host_blocks = 0;      // of its offload store
  std::uint64_t saved_prefixes = 0;  // what that still holds of an earlier life; 0: nothing
  EpochId last_epoch = 0;            // that its process was in, with an earlier coordinator
};

// What a group must match, and its deadlines.
struct GroupRules {
  std::string build;
  int world = 1;
  std::uint64_t model_hash = 0;
  std::string secret;                      // empty: none is asked for
  std::uint64_t known_saved_prefixes = 0;  // what the coordinator can make use of; 0: nothing
  EpochId last_epoch = 0;                  // of an earlier coordinator; ours are above it
  absl::Duration lease = absl::Seconds(5);
  absl::Duration step_deadline = absl::Minutes(5);
  absl::Duration id_deadline = absl::Seconds(30);  // for rank 0 to make its collective's id
  std::function<std::uint64_t()> nonce;
};

namespace action {
struct Refuse {  // tell the worker why, then close
  LinkId link;
  std::string reason;
};
struct Welcome {
  std::vector<LinkId> links;
  EpochId epoch;
  std::uint64_t nonce;
  int num_blocks;
  int num_host_blocks = 0;
  bool keep_saved = false;
};
struct Relay {  // rank 0's id of the epoch's collective, to every rank
  std::vector<LinkId> links;
  EpochId epoch;
  std::string id;
};
struct Broadcast {  // the same bytes of a StepPlan to every rank of the epoch
  std::vector<LinkId> links;
  std::string plan;
};
struct Close {
  std::vector<LinkId> links;
  std::string why;
};
struct Ready {
  GroupReady group;
};
struct Result {
  StepResult result;
};
struct Ended {  // of every epoch
  EpochId epoch;
  std::string instance;
  EndCause cause;
};
struct Lost {  // of one that was ready
  EndCause cause;
  std::string why;
};
}  // namespace action
using GroupAction =
    std::variant<action::Refuse, action::Welcome, action::Relay, action::Broadcast, action::Close,
                 action::Ready, action::Result, action::Ended, action::Lost>;
using GroupActions = std::vector<GroupAction>;

class Group {
 public:
  explicit Group(GroupRules rules);

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
  GroupActions end_epoch(EndCause cause, const std::string& why, absl::Time now);

  EpochId epoch() const { return live_ ? live_->epoch : 0; }
  StepId last_step() const { return live_ ? live_->sent : 0; }
  bool ready() const { return live_ && live_->ready; }
  std::vector<LinkId> ready_links() const;  // of the epoch's ranks, once it is ready
  std::uint64_t stale_dropped() const { return stale_dropped_; }
  std::string describe() const;

 private:
  struct Member {
    LinkId link = 0;
    RankHello hello;
    absl::Time last_heard;
    StepId confirmed = 0;  // by its heartbeat
  };
  struct Instance {
    std::string id;
    std::map<int, Member> ranks;
  };
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

  absl::Status check_hello(const RankHello& hello) const;
  absl::Status check_instance(const Instance& instance) const;
  Member* live_member(LinkId link);
  std::vector<LinkId> live_links() const;
  void admit_standby(LinkId link, RankHello hello, absl::Time now, GroupActions& out);
  void form(absl::Time now, GroupActions& out);  // a complete standby becomes the epoch
  void begin_epoch(Instance instance, absl::Time now, GroupActions& out);
  void broadcast(const StepPlan& plan, absl::Time now, GroupActions& out);
  void advance_proof(absl::Time now, GroupActions& out);  // the dummy steps
  void end(EndCause cause, const std::string& why, absl::Time now, GroupActions& out);
  void drop_confirmed_digests();

  GroupRules rules_;
  std::optional<Live> live_;
  std::vector<Instance> standby_;     // in order of arrival
  std::deque<std::string> unproven_;  // instances that failed their dummy steps: not tried again
  EpochId last_epoch_;
  std::uint64_t stale_dropped_ = 0;
};

}  // namespace quire
