// The streams between ranks and coordinator. Each is in order, with a delay of its own, so that
// messages of different ranks overtake each other. One that is cut tells both ends, each in its
// time; what was on its way may be lost, or come late, on a stream that the coordinator has closed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/fleet/group.h"
#include "tests/simulation/coordinator_world.h"
#include "tests/simulation/virtual_time.h"

namespace quire::test {

namespace up {
struct Beat {
  EpochId epoch = 0;
  StepId step = 0;
  std::uint64_t digest = 0;
};
struct CollectiveId {
  EpochId epoch = 0;
  std::string id;
};
struct Error {
  EpochId epoch = 0;
  std::string what;
};
}  // namespace up
using Up = std::variant<RankHello, up::Beat, up::CollectiveId, up::Error, StepResult>;

namespace down {
struct Refusal {};
struct Welcome {
  EpochId epoch = 0;
  std::uint64_t nonce = 0;
  int num_blocks = 0;
  int num_host_blocks = 0;
};
struct CollectiveId {
  EpochId epoch = 0;
};
struct Plan {
  std::string bytes;
};
struct Beat {};
struct Closed {};  // by the coordinator
struct Broken {};  // the coordinator has died, or the stream has
}  // namespace down
using Down = std::variant<down::Refusal, down::Welcome, down::CollectiveId, down::Plan, down::Beat,
                          down::Closed, down::Broken>;

class VirtualNetwork {
 public:
  VirtualNetwork(CoordinatorWorld* world, VirtualTime* time) : world_(*world), time_(*time) {}

  // Where the coordinator hears of streams; nothing while there is none.
  struct Coordinator {
    std::function<void(LinkId)> opened;
    std::function<void(LinkId, Up)> up;
    std::function<void(LinkId)> gone;
  };
  void attach(Coordinator coordinator) { coordinator_ = std::move(coordinator); }
  void detach();  // it has died: every stream breaks
  bool is_attached() const { return coordinator_.up != nullptr; }

  // A rank dials; 0: nobody is there.
  LinkId open(std::function<void(const Down&)> rank);
  void send(LinkId link, Up message);
  void send(LinkId link, Down message);
  void leave(LinkId link);  // the rank's process has gone
  void close(LinkId link);  // the coordinator wants it no more
  void cut(LinkId link);
  // The last message of the stream comes once more.
  void repeat(LinkId link);

  std::vector<LinkId> open_links() const;

 private:
  struct Link {
    std::function<void(const Down&)> rank;  // nothing: its end is closed
    bool is_open = true;                    // for the coordinator
    bool is_cut = false;
    std::uint64_t life = 0;  // of the coordinator, that it leads to
    absl::Duration delay;
    absl::Time up_free, down_free;  // when the last message has arrived
    Up last;
  };
  void tell_rank(LinkId link, Down message);
  void tell_gone(LinkId link);
  absl::Time arrival(absl::Duration delay, absl::Time* free);

  CoordinatorWorld& world_;
  VirtualTime& time_;
  Coordinator coordinator_;
  std::uint64_t life_ = 0;
  LinkId last_ = 0;
  std::map<LinkId, Link> links_;
};

}  // namespace quire::test
