// How much service each tenant has had, over all worker groups. Fairness is by a virtual counter
// (Sheng et al., "Fairness in Serving Large Language Models", 2024): what a tenant is granted is
// added to its counter, divided by its weight, and of those that have something waiting the one
// with the smallest counter is next. A tenant that comes back after a pause starts at the smallest
// counter of those present: nobody saves up a claim.
#pragma once

#include <vector>

#include "absl/types/span.h"

namespace quire {

class TenantShares {
 public:
  // `weights` of the tenants, at least one.
  explicit TenantShares(std::vector<double> weights);

  // A tenant has so many requests unfinished: present while there are any.
  void enter(int tenant);
  void leave(int tenant);
  void charge(int tenant, double tokens);
  absl::Span<const double> service() const { return service_; }  // [tenant], by weight
  // What tokens add to a counter.
  double worth(int tenant, double tokens) const {
    return tokens / weights_[static_cast<std::size_t>(tenant)];
  }
  int num_tenants() const { return static_cast<int>(weights_.size()); }

 private:
  const std::vector<double> weights_;
  std::vector<double> service_;
  std::vector<int> present_;  // [tenant] unfinished requests
  double last_floor_ = 0.0;   // the counter of whoever left last
};

}  // namespace quire
