#include "coordinator/engine/suspects.h"

#include <set>

namespace quire {

std::vector<RequestId> Suspects::on_death(absl::Span<const RequestId> in_flight,
                                          const std::function<bool(RequestId)>& was_there) {
  const std::set<RequestId> dying(in_flight.begin(), in_flight.end());
  // Those that were not there this time have not died twice in a row; a suspect waits for its turn.
  std::erase_if(deaths_, [&](const auto& entry) {
    return entry.second < kSuspect && !dying.contains(entry.first) && was_there(entry.first);
  });
  std::vector<RequestId> guilty;
  for (const RequestId request : dying) {
    if (++deaths_[request] < kGuilty) continue;
    guilty.push_back(request);
    deaths_.erase(request);
  }
  return guilty;
}

std::optional<RequestId> Suspects::alone() const {
  for (const auto& [request, deaths] : deaths_) {
    if (deaths >= kSuspect) return request;
  }
  return std::nullopt;
}

}  // namespace quire
