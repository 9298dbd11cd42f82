#include "coordinator/schedule/tenant_shares.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace quire {

TenantShares::TenantShares(std::vector<double> weights)
    : weights_(std::move(weights)), service_(weights_.size(), 0.0), present_(weights_.size(), 0) {
  QUIRE_CHECK(!weights_.empty());
}

void TenantShares::enter(int tenant) {
  const auto index = static_cast<std::size_t>(tenant);
  if (present_[index]++ > 0) return;
  double floor = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < present_.size(); ++i) {
    if (i != index && present_[i] > 0) floor = std::min(floor, service_[i]);
  }
  if (floor == std::numeric_limits<double>::infinity()) floor = last_floor_;
  service_[index] = std::max(service_[index], floor);
}

void TenantShares::leave(int tenant) {
  const auto index = static_cast<std::size_t>(tenant);
  QUIRE_CHECK_GT(present_[index], 0);
  if (--present_[index] == 0) last_floor_ = service_[index];
}

void TenantShares::charge(int tenant, double tokens) {
  service_[static_cast<std::size_t>(tenant)] += worth(tenant, tokens);
}

}  // namespace quire
