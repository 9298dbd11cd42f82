// The table of unfinished requests; see live_requests.h.
#include "coordinator/engine/live_requests.h"

#include <algorithm>

#include "common/check.h"

namespace quire {

LiveRequest& LiveRequests::insert(Request request) {
  const RequestId id = request.id;
  if (request.deadline != absl::InfiniteFuture()) deadlines_.emplace(request.deadline, id);
  std::unique_ptr<LiveRequest>& entry = live_[id];
  entry = std::make_unique<LiveRequest>();
  LiveRequest& live = *entry;
  live.num_prompt_tokens = static_cast<int>(request.prompt.size());
  live.open.assign(static_cast<std::size_t>(request.n), true);
  live.num_open = request.n;
  live.deliver = std::make_shared<const DeliverFn>(std::move(request.deliver));
  live.request = std::move(request);
  return live;
}

LiveRequest* LiveRequests::find(RequestId id) {
  const auto found = live_.find(id);
  return found == live_.end() ? nullptr : found->second.get();
}

void LiveRequests::prefetch(RequestId id) {
  __builtin_prefetch(find(id));  // of nothing it is nothing
}

void LiveRequests::close(LiveRequest* live, int choice) {
  QUIRE_CHECK(live->is_open(choice));
  live->open[static_cast<std::size_t>(choice)] = false;
  if (--live->num_open > 0) return;
  deadlines_.erase({live->request.deadline, live->request.id});
  live_.erase(RequestId{live->request.id});
}

std::vector<RequestId> LiveRequests::ids() const {
  std::vector<RequestId> ids;
  ids.reserve(live_.size());
  for (const auto& [id, live] : live_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::Time LiveRequests::first_deadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture() : deadlines_.begin()->first;
}

std::vector<RequestId> LiveRequests::expired(absl::Time now) const {
  std::vector<RequestId> ids;
  for (const auto& [deadline, id] : deadlines_) {
    if (deadline > now) break;
    ids.push_back(id);
  }
  return ids;
}

}  // namespace quire
