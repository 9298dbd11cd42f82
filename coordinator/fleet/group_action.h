// What must be done about what the workers' streams reported: the output of the fleet's rules.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/step.h"
#include "coordinator/engine/engine.h"

namespace quire {

using LinkId = std::uint64_t;  // one Attach stream; never used twice

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
struct Ended {  // of every epoch; of an instance that does not come back whole, its last one
  EpochId epoch;
  std::string instance;
  EndCause cause;
  bool was_ready = false;
};
struct Lost {  // of one that was ready
  EpochId epoch;
  EndCause cause;
  std::string why;
};
}  // namespace action
using GroupAction =
    std::variant<action::Refuse, action::Welcome, action::Relay, action::Broadcast, action::Close,
                 action::Ready, action::Result, action::Ended, action::Lost>;
using GroupActions = std::vector<GroupAction>;

}  // namespace quire
