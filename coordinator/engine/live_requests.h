// The requests that are not finished yet, with their deadlines. The engine's thread owns it; each
// choice is closed exactly once, and a request is gone with its last open choice.
#pragma once

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "coordinator/engine/request.h"

namespace quire {

// What every token needs comes first: with many groups each one finds it out of the cache.
struct LiveRequest {
  std::shared_ptr<const DeliverFn> deliver;
  absl::InlinedVector<bool, 8> open;  // [choice]
  int num_open = 0;                   // choices
  int num_prompt_tokens = 0;
  int lane = -1;               // where it is; -1: it waits for any
  bool answered = false;       // some choice has its first token
  std::uint64_t numerics = 0;  // of the group that computed its newest token; 0: none, or unknown
  Request request;             // its prompt has moved into the scheduler, `deliver` is above

  bool is_open(int choice) const {
    return choice >= 0 && choice < static_cast<int>(open.size()) &&
           open[static_cast<std::size_t>(choice)];
  }
};

class LiveRequests {
 public:
  // All choices are open. It stays where it is until its last choice is closed.
  LiveRequest& insert(Request request);
  LiveRequest* find(RequestId id);  // nullptr if unknown or finished
  // It is needed soon, as many others are: so their cache misses overlap.
  void prefetch(RequestId id);
  // Of an open choice. With the last one the request is forgotten, and `live` is dead.
  void close(LiveRequest* live, int choice);

  std::vector<RequestId> ids() const;  // in order of arrival
  absl::Time first_deadline() const;   // InfiniteFuture if none
  std::vector<RequestId> expired(absl::Time now) const;
  bool empty() const { return live_.empty(); }
  int size() const { return static_cast<int>(live_.size()); }

 private:
  absl::flat_hash_map<RequestId, std::unique_ptr<LiveRequest>> live_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // the finite ones
};

}  // namespace quire
