// Counting, and its sentences; see tenant_limits.h.
#include "coordinator/engine/tenant_limits.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr char kRateLimited[] = "quire/rate-limited";  // a status's payload

absl::Status refuse(const std::string& message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kRateLimited, absl::Cord());
  return status;
}

bool is_limited(const Tenant& tenant) {
  return tenant.max_requests > 0 || tenant.max_waiting_tokens > 0;
}

}  // namespace

bool is_rate_limited(const absl::Status& status) {
  return status.GetPayload(kRateLimited).has_value();
}

// Lives in the request's deliver function, and ends with it: that is the one end which every
// request has.
class TenantLimits::Watch {
 public:
  Watch(std::shared_ptr<TenantLimits> limits, RequestId id) : limits_(std::move(limits)), id_(id) {}
  ~Watch() { limits_->gone(id_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Before the client hears of it: with the last piece it may come back at once.
  void see(const OutputDelta& delta) const {
    if (!delta.tokens.empty()) limits_->began(id_);
    if (delta.finish != FinishReason::kNone) limits_->choice_ended(id_, delta.choice);
  }

 private:
  const std::shared_ptr<TenantLimits> limits_;
  const RequestId id_;
};

TenantLimits::TenantLimits(const std::vector<Tenant>& tenants) {
  if (std::any_of(tenants.begin(), tenants.end(), is_limited)) tenants_ = tenants;
  loads_.resize(tenants_.size());
}

absl::Status TenantLimits::enter(Request& request) {
  if (tenants_.empty()) return absl::OkStatus();
  const auto tenant = static_cast<std::size_t>(request.tenant);
  {
    const std::lock_guard lock(mutex_);
    QUIRE_RETURN_IF_ERROR(
        check(tenants_[tenant], loads_[tenant], static_cast<std::int64_t>(request.prompt.size())));
    add(request);
  }
  watch(request);
  return absl::OkStatus();
}

void TenantLimits::count(Request& request) {
  if (tenants_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    add(request);
  }
  watch(request);
}

void TenantLimits::add(const Request& request) {
  const auto tenant = static_cast<std::size_t>(request.tenant);
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  ++loads_[tenant].requests;
  loads_[tenant].waiting_tokens += prompt_tokens;
  Entry& entry = entries_[request.id];
  entry.tenant = tenant;
  entry.waiting_tokens = prompt_tokens;
  for (int choice = 0; choice < request.n; ++choice) entry.open.insert(choice);
}

void TenantLimits::watch(Request& request) {
  request.deliver = [watch = std::make_shared<const Watch>(shared_from_this(), request.id),
                     deliver = std::move(request.deliver)](OutputDelta delta) {
    watch->see(delta);
    deliver(std::move(delta));
  };
}

absl::Status TenantLimits::check(const Tenant& tenant, const Load& load,
                                 std::int64_t prompt_tokens) {
  if (tenant.max_requests > 0 && load.requests >= tenant.max_requests) {
    ++refusals_;
    return refuse(absl::StrCat("This key has ", load.requests,
                               " requests in the server, and at most ", tenant.max_requests,
                               " may be there at a time; try again when one has ended."));
  }
  // One that is longer than the limit may still wait alone: nothing else could ever help it.
  if (tenant.max_waiting_tokens > 0 && load.waiting_tokens > 0 &&
      load.waiting_tokens + prompt_tokens > tenant.max_waiting_tokens) {
    ++refusals_;
    return refuse(absl::StrCat("Prompts of ", load.waiting_tokens, " tokens of this key wait, and ",
                               "with the ", prompt_tokens, " of this one they exceed ",
                               tenant.max_waiting_tokens, "; try again later."));
  }
  return absl::OkStatus();
}

void TenantLimits::began(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  loads_[entry.tenant].waiting_tokens -= std::exchange(entry.waiting_tokens, 0);
}

void TenantLimits::choice_ended(RequestId id, int choice) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.open.erase(choice);
  if (found->second.open.empty()) remove(found);
}

void TenantLimits::gone(RequestId id) {
  const std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(id); found != entries_.end()) remove(found);
}

void TenantLimits::remove(std::map<RequestId, Entry>::iterator entry) {
  Load& load = loads_[entry->second.tenant];
  --load.requests;
  load.waiting_tokens -= entry->second.waiting_tokens;
  entries_.erase(entry);
}

std::uint64_t TenantLimits::refusals() const {
  const std::lock_guard lock(mutex_);
  return refusals_;
}

}  // namespace quire
