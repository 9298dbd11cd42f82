// Which requests may be what kills worker groups. One that was in the steps in flight at two deaths
// in a row of groups that had it, and gained no token between them, is suspect: it runs alone. If
// it gains a token it is cleared; if the group dies again it is guilty and must be ended, or it
// would kill every group that comes. Pure; a request that is not suspect costs nothing here.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/ids.h"

namespace quire {

class Suspects {
 public:
  // A group that served has died with rows of these requests in flight; `was_there`: whether a
  // request was that group's, or has ended. Returns the guilty ones, which are forgotten here.
  std::vector<RequestId> on_death(absl::Span<const RequestId> in_flight,
                                  const std::function<bool(RequestId)>& was_there);
  void on_gain(RequestId request) { deaths_.erase(request); }
  void forget(RequestId request) { deaths_.erase(request); }

  // Who is to run with nobody beside it: the first suspect. Nobody: all run.
  std::optional<RequestId> alone() const;
  bool is_suspect(RequestId request) const {
    const auto found = deaths_.find(request);
    return found != deaths_.end() && found->second >= kSuspect;
  }
  bool empty() const { return deaths_.empty(); }

 private:
  static constexpr int kSuspect = 2, kGuilty = 3;
  std::map<RequestId, int> deaths_;  // in a row; of a suspect: until it has run
};

}  // namespace quire
