// Ctrl-C as an event instead of a death: SIGINT is blocked in every thread and taken by one of
// ours.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace quire {

class Interrupt {
 public:
  Interrupt();  // blocks SIGINT in this thread and in those it starts
  // From now on `action` runs, on a thread of its own, at every Ctrl-C until the program ends.
  void call_on_ctrl_c(std::function<void()> action) const;
};

// What went wrong with a call, for a person.
std::string describe_failure(const absl::Status& status, const std::string& server);

}  // namespace quire
