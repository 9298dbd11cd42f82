// What one tenant may have in the server at a time: requests, and prompt tokens of those that have
// not begun to answer. So a key that floods is turned away while the others' requests are served.
// Any thread. Knows a request from enter() until each of its choices has ended, however it ended.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/engine/request.h"

namespace quire {

// One of the users that share the server.
struct Tenant {
  std::string name;
  double weight = 1.0;
  int max_requests = 0;                 // running and waiting; 0: no limit
  std::int64_t max_waiting_tokens = 0;  // of prompts; 0: no limit
};

// A ResourceExhausted that is the client's own doing, not the server's load.
bool is_rate_limited(const absl::Status& status);

// Shared: a request may be delivered, by the journal, after its engine has gone.
class TenantLimits : public std::enable_shared_from_this<TenantLimits> {
 public:
  explicit TenantLimits(const std::vector<Tenant>& tenants);

  // Counts the request, whose id is set, for as long as it lives and wraps its `deliver` to see how
  // it goes on; or ResourceExhausted with the limit, is_rate_limited().
  absl::Status enter(Request& request);
  // The same for one of an earlier life: it is never refused.
  void count(Request& request);
  // Ended by the api, of which nothing is delivered.
  void choice_ended(RequestId id, int choice);

  std::uint64_t refusals() const;

 private:
  struct Load {
    int requests = 0;
    std::int64_t waiting_tokens = 0;
  };
  struct Entry {
    std::size_t tenant = 0;
    std::int64_t waiting_tokens = 0;  // 0 once it answers
    std::set<int> open;               // choices
  };
  class Watch;

  absl::Status check(const Tenant& tenant, const Load& load, std::int64_t prompt_tokens);
  void add(const Request& request);  // with the lock held
  void watch(Request& request);
  void began(RequestId id);
  void gone(RequestId id);  // nobody will hear of it any more
  void remove(std::map<RequestId, Entry>::iterator entry);

  std::vector<Tenant> tenants_;  // empty: nobody is limited
  mutable std::mutex mutex_;     // guards what follows
  std::vector<Load> loads_;      // [tenant]
  std::map<RequestId, Entry> entries_;
  std::uint64_t refusals_ = 0;
};

}  // namespace quire
